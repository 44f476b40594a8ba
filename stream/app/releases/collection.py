"""Garbage collection, tuned to a memory that stays and contents that go."""

import gc


def settle() -> None:
    """Take what stands in memory now out of the garbage collector's rounds.

    Some 50,000 objects stay, modules and models above all, and a full round looks at each: 0.1 s. Exemplars are not
    among them, for memory holds payloads as bytes: with 150,000 of them a round took 1.0 s as dictionaries, 0.1 s so.
    """
    gc.collect()
    gc.freeze()
    # A content makes some 400 short-lived objects: at the default of 700 every other one began a round.
    gc.set_threshold(50_000, 20, 20)


def free_dropped() -> None:
    """Free what was settled and nobody refers to any longer, where it refers to itself.

    No round looks at what is settled, so it is looked at whole here, which stops the process for 0.1 s. Therefore only
    where a release was dropped.
    """
    gc.unfreeze()
    settle()
