"""Releases: which are loaded, which one is active, and how a new one takes over.

loaded      LoadedRelease: one release in this worker, with its tagger
manager     ReleaseManager: all releases of the topic, and the active one
recorded    releases on their topic, as the commands read and write them
backfill    a worker over a range of offsets that writes to another topic
shadow      two releases over the same contents, compared
collection  garbage collection, tuned to a long-lived memory
"""
