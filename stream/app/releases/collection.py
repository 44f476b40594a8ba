"""Garbage collection, tuned to long-lived memory and short-lived contents."""

import gc


def settle() -> None:
    """Exclude all current objects from garbage collection.

    Some 50,000 objects live on, mostly of modules and models, and a full collection traverses each: 0.1 s. Exemplars
    are not among them, because memory holds payloads as bytes: with 150,000 of them as dictionaries it took 1.0 s.
    """
    gc.collect()
    gc.freeze()
    # A content makes some 400 short-lived objects: at the default of 700 every other one started a collection. The
    # batches in flight hold up to some 100,000: at 50,000 collections found nothing to free, in pauses of 35 ms, which
    # were 5% of the CPU time of a worker whose tagger does nothing.
    gc.set_threshold(200_000, 20, 20)


def free_dropped() -> None:
    """Free objects in reference cycles that `settle` excluded and nothing uses any more.

    It is a full collection of all objects, which stops the process for 0.1 s: call it only after dropping a release.
    """
    gc.unfreeze()
    settle()
