"""Releases: which are loaded, which one is active, and how a new one takes over.

loaded      LoadedRelease: one release in this worker, with its tagger
manager     ReleaseManager: all releases of the topic, and the active one
recorded    releases on their topic, as the commands read and write them
backfill    a worker over a range of offsets that writes to another topic
building    the memory of a release, filled beside the one in force
switching   one release in force after another
shadow      two releases over the same contents, compared
behaviour   what a release does: dead letters, contents without tags, confidences; and its limits
shadow_run  two releases on the newest contents, of which nothing is published
watch       a release in its first contents in force, and the way back
collection  garbage collection, tuned to a long-lived memory
"""
