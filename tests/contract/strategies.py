"""Events as hypothesis makes them: every form that the contract allows, kept small."""

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from pydantic import JsonValue

from tagbus.stream.contract.decision import Decision, JudgedTag, Mode, ResultPlace, ShownTag
from tagbus.stream.contract.events import (
    Content,
    DeadLetter,
    Degraded,
    Evidence,
    Exemplar,
    Knowledge,
    Neighbour,
    Passage,
    ScoredTag,
    Tag,
    TaggedContent,
    Usage,
    Versions,
)
from tagbus.stream.contract.fields import Source, blank

CHARACTERS = st.characters(exclude_categories=["Cs"])  # lone surrogates are no characters
IDS = st.text(CHARACTERS, min_size=1, max_size=20)
TEXTS = st.text(CHARACTERS, max_size=40)
NAMES = st.text(CHARACTERS, min_size=1, max_size=40)
SOURCES: SearchStrategy[Source] = st.sampled_from(["people", "machine"])
ZONES = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
TIMES = st.none() | st.datetimes(timezones=ZONES)
SOME_TIME = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
LATER = st.timedeltas(timedelta(microseconds=1), timedelta(days=999)).map(SOME_TIME.__add__)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
SHARES = st.floats(0, 1)
COUNTS = st.integers(0, 2**53)
SHOWN = NAMES.filter(lambda text: not blank(text))
BY_LANGUAGE = st.dictionaries(st.text(CHARACTERS, min_size=1, max_size=35), NAMES, max_size=3)
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
    text=TEXTS.filter(lambda text: not blank(text)),
    language=st.none() | st.text(CHARACTERS, max_size=35),
    time=TIMES,
    metadata=st.dictionaries(TEXTS, JSON, max_size=3),
    scopes=lists(IDS),
)
TAGS = st.builds(
    Tag,
    id=IDS,
    name=SHOWN,
    description=TEXTS,
    aliases=lists(SHOWN),
    parents=lists(IDS),
    names=st.dictionaries(st.text(CHARACTERS, min_size=1, max_size=35), SHOWN, max_size=3),
    scopes=lists(IDS),
    # Longer than an id here, so never the tag's own.
    replaced_by=lists(IDS.map(lambda name: f"{name:>21}")),
)
EXEMPLARS = st.builds(
    Exemplar,
    id=IDS,
    source=SOURCES,
    title=st.just("") | SHOWN,
    text=st.just("") | SHOWN,
    accepted=lists(IDS),
    rejected=lists(IDS),
    time=TIMES,
    scopes=lists(IDS),
)
KNOWLEDGE = st.builds(
    Knowledge,
    id=IDS,
    kind=st.text(CHARACTERS, min_size=1, max_size=64),
    title=TEXTS,
    text=SHOWN,
    valid_from=st.none() | st.just(SOME_TIME),
    valid_until=st.none() | LATER,
    scopes=lists(IDS),
)
NEIGHBOURS = st.builds(Neighbour, id=IDS, source=SOURCES, similarity=FINITE)
PASSAGES = st.builds(Passage, field=NAMES, start=COUNTS, end=COUNTS, text=TEXTS)
EVIDENCE = st.builds(
    Evidence,
    similarity=st.none() | FINITE,
    votes=st.integers(0, 100),
    neighbours=st.lists(NEIGHBOURS, max_size=2).map(tuple),
    scores=st.dictionaries(NAMES, FINITE, max_size=2),
    matched=st.dictionaries(NAMES, TEXTS, max_size=2),
    unjudged=st.none() | FINITE,
    passage=st.none() | PASSAGES,
    decided=st.booleans(),
    broader=lists(IDS),
    narrower=lists(IDS),
)
SCORED = st.builds(
    ScoredTag, id=IDS, name=NAMES, names=BY_LANGUAGE, score=FINITE, confidence=SHARES, stage=NAMES, evidence=EVIDENCE
)
VERSIONS = st.builds(
    Versions,
    release=NAMES,
    taxonomy=st.dictionaries(NAMES, st.integers(0, 2**63 - 1), max_size=3),
    components=st.dictionaries(NAMES, NAMES, max_size=3),
    calibration=NAMES,
    prompt=st.none() | NAMES,
    llm=st.none() | NAMES,
    backend=st.none() | st.sampled_from(["decision_api", "yesno", "stated"]),
)
USAGE = st.builds(
    Usage,
    calls=COUNTS,
    tokens_in=COUNTS,
    tokens_out=COUNTS,
    cost=st.none() | st.floats(0, 1e6),
    currency=st.none() | NAMES,
)
TAGGED = st.builds(
    TaggedContent,
    id=IDS,
    tags=st.lists(SCORED, max_size=2).map(tuple),
    versions=VERSIONS,
    path=lists(NAMES),
    degraded=st.lists(st.builds(Degraded, stage=NAMES, reason=NAMES), max_size=2).map(tuple),
    usage=st.none() | USAGE,
    scopes=lists(IDS),
    time=TIMES,
)
MODES: SearchStrategy[Mode] = st.sampled_from(["review", "pool", "blind", "adjudicate", "bulk", "api"])
SHOWN_TAGS = st.builds(
    ShownTag,
    tag=IDS,
    rank=st.integers(1, 1000),
    score=st.none() | FINITE,
    confidence=st.none() | SHARES,
    propensity=st.floats(1e-6, 1),
    policy=st.text(CHARACTERS, min_size=1, max_size=64),
    stage=TEXTS,
)


def decisions(tags: list[str]) -> SearchStrategy[Decision]:
    """Some of the tags are accepted, some rejected and some left open."""
    return st.builds(
        Decision,
        id=IDS,
        decision=IDS,
        supersedes=lists(IDS),
        replaces=st.booleans(),
        who=IDS,
        role=TEXTS,
        time=st.datetimes(timezones=ZONES),
        mode=MODES,
        shown=st.lists(SHOWN_TAGS, max_size=2).map(tuple),
        judged=st.lists(st.builds(JudgedTag, tag=IDS, score=FINITE, judge=st.none() | SHARES), max_size=2).map(tuple),
        result=st.none() | st.builds(ResultPlace, topic=NAMES, partition=st.integers(0, 99), offset=COUNTS),
        versions=st.none() | VERSIONS,
        path=lists(NAMES),
        machine_visible=st.booleans(),
        accepted=st.just(tuple(tags[0::3])),
        rejected=st.just(tuple(tags[1::3])),
        unsure=st.just(tuple(tags[2::3])),
        title=st.just("") | SHOWN,
        text=st.just("") | SHOWN,
        language=st.none() | st.text(CHARACTERS, max_size=35),
        scopes=lists(IDS),
    )


DECISIONS = st.lists(IDS, max_size=6, unique=True).flatmap(decisions)
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
INPUTS = CONTENTS | TAGS | EXEMPLARS
EVENTS = INPUTS | KNOWLEDGE | TAGGED | DECISIONS
