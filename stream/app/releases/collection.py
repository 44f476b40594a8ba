"""Garbage collection, tuned to long-lived memory and short-lived contents."""

import gc


def settle() -> None:
    """Exclude all current objects from garbage collection.

    Some 50,000 objects live on, mostly of modules and models, and a full collection traverses each: 0.1 s. Exemplars
    are not among them, because memory holds payloads as bytes: with 150,000 of them as dictionaries it took 1.0 s.
    """
    gc.collect()
    gc.freeze()
    # A content makes some 400 short-lived objects: at the default of 700 every other one started a collection. At
    # 50,000 the batches in flight started four in 10 s, which found nothing and took 35 ms each; at 200,000 none.
    gc.set_threshold(200_000, 20, 20)


def free_dropped() -> None:
    """Free objects in reference cycles that `settle` excluded and nothing uses any more.

    It is a full collection of all objects, which stops the process for 0.1 s: call it only after dropping a release.
    """
    gc.unfreeze()
    settle()
