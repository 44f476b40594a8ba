"""Events as hypothesis makes them: every form that the contract allows, kept small."""

from collections.abc import Sequence
from datetime import timedelta, timezone

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from pydantic import JsonValue

from tagbus.stream.contract.events import (
    Content,
    DeadLetter,
    Evidence,
    Exemplar,
    Neighbour,
    ScoredTag,
    Source,
    Tag,
    TaggedContent,
    Versions,
)

CHARACTERS = st.characters(exclude_categories=["Cs"])  # lone surrogates are no characters
IDS = st.text(CHARACTERS, min_size=1, max_size=20)
TEXTS = st.text(CHARACTERS, max_size=40)
NAMES = st.text(CHARACTERS, min_size=1, max_size=40)
SOURCES: SearchStrategy[Source] = st.sampled_from(["people", "machine"])
ZONES = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
TIMES = st.none() | st.datetimes(timezones=ZONES)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
SHARES = st.floats(0, 1)
JSON: SearchStrategy[JsonValue] = st.recursive(
    st.none() | st.booleans() | st.integers() | FINITE | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


def lists(items: SearchStrategy[str]) -> SearchStrategy[tuple[str, ...]]:
    return st.lists(items, max_size=4).map(tuple)


CONTENTS = st.builds(
    Content,
    id=IDS,
    title=TEXTS,
    text=TEXTS.filter(lambda text: bool(text.strip())),
    language=st.none() | st.text(CHARACTERS, max_size=35),
    time=TIMES,
    metadata=st.dictionaries(TEXTS, JSON, max_size=3),
)
TAGS = st.builds(Tag, id=IDS, name=NAMES, description=TEXTS, aliases=lists(NAMES), parents=lists(IDS))
EXEMPLARS = st.builds(
    Exemplar, id=IDS, source=SOURCES, title=TEXTS, text=TEXTS, accepted=lists(IDS), rejected=lists(IDS), time=TIMES
)
NEIGHBOURS = st.builds(Neighbour, id=IDS, source=SOURCES, similarity=FINITE)
EVIDENCE = st.builds(
    Evidence,
    similarity=st.none() | FINITE,
    votes=st.integers(0, 100),
    neighbours=st.lists(NEIGHBOURS, max_size=2).map(tuple),
    heads=st.none() | SHARES,
    literal=st.none() | NAMES,
    decided=st.booleans(),
)
VERSIONS = st.builds(
    Versions,
    release=NAMES,
    calibration=NAMES,
    heads=st.none() | NAMES,
    ranker=st.none() | NAMES,
    cross_encoder=st.none() | NAMES,
    taxonomy=st.dictionaries(NAMES, st.integers(0, 2**63 - 1), max_size=3),
)


def tagged(stages: Sequence[str]) -> SearchStrategy[TaggedContent]:
    """Results whose tags are of these stages."""
    scored = st.builds(
        ScoredTag,
        id=IDS,
        name=NAMES,
        score=FINITE,
        confidence=SHARES,
        stage=st.sampled_from(stages),
        evidence=EVIDENCE,
    )
    return st.builds(
        TaggedContent,
        id=IDS,
        tags=st.lists(scored, max_size=2).map(tuple),
        versions=VERSIONS,
        path=lists(NAMES),
        degraded=st.booleans(),
        time=TIMES,
    )


# The stages of a worker without recallers beside the graph: all that readers of 1.1 know.
TAGGED_BY_RECALL = tagged(["recall", "people"])
TAGGED = tagged(["recall", "fusion", "rank", "people"])
LETTERS = st.builds(
    DeadLetter,
    topic=NAMES,
    partition=st.integers(0, 2**31 - 1),
    offset=st.integers(0, 2**63 - 1),
    exception=TEXTS,
    message=TEXTS,
    stage=TEXTS,
    attempts=st.integers(1, 10**6),
    value_bytes=st.none() | st.integers(0, 2**31 - 1),
    value_sha256=st.none() | TEXTS,
)
EVENTS = CONTENTS | TAGS | EXEMPLARS | TAGGED
EVENTS_BY_RECALL = CONTENTS | TAGS | EXEMPLARS | TAGGED_BY_RECALL
