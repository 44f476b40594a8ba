"""Literal recall: tags whose name or alias occurs in the content, over a changing taxonomy."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from threading import Event

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagbus.stream.app.data.examples import example
from tagbus.stream.app.places import files
from tagbus.stream.contract.events import Exemplar, Tag
from tagbus.stream.errors import DependencyDown, UserError
from tagbus.stream.index.apply import Memory, Projection
from tagbus.stream.memory.exact import ExactStore
from tagbus.stream.memory.store import Payload, Point
from tagbus.stream.recall.base import Query
from tagbus.stream.recall.lexical.literal import INFLECTED, MATCHES, Lexicon, LiteralRecall
from tests.cli.harness import scripts
from tests.index.parts import encoder, record, tombstone


def lexicon(names: Mapping[str, Sequence[str]], *languages: str) -> Lexicon:
    made = Lexicon(languages or ("en",))
    for tag_id, each in names.items():
        made.put(tag_id, tuple(each))
    return made


BEES = {"bee": ["bees"], "keep": ["urban beekeeping", "city bees"], "light": ["light (physics)"], "city": ["cities"]}


class TestMatch:
    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ("Honey bees", {"bee": 1.0}),
            ("A BEE, alone", {"bee": INFLECTED}),
            ("The speed of Light", {"light": 1.0}),
            ("City bees: longer and shorter names both count", {"keep": 2.0, "bee": 1.0, "city": INFLECTED}),
            ("city bee", {"keep": 1 + INFLECTED, "bee": INFLECTED, "city": INFLECTED}),
            ("city, bees", {"keep": 2.0, "bee": 1.0, "city": INFLECTED}),
            ("urban honey beekeeping", {}),
            ("beeswax and beehives", {}),
            ("", {}),
        ],
    )
    def test_names_stand_in_a_text_word_by_word_in_any_form(self, text: str, found: dict[str, float]) -> None:
        assert lexicon(BEES).match(text) == found

    def test_the_most_words_come_first(self) -> None:
        assert list(lexicon(BEES).match("a city, its city bees")) == ["keep", "bee", "city"]

    def test_it_reports_the_matched_name_or_alias(self) -> None:
        assert lexicon(BEES).match("city bee").names["keep"] == "city bees"
        assert lexicon(BEES).match("light").names["light"] == "light (physics)"

    @pytest.mark.parametrize(
        ("name", "text", "stands"),
        [
            ("hay (green fodder", "Making hay", True),
            ("(untitled)", "Untitled works", True),
            ("C++", "Programming in C++", True),
            ("C++", "Vitamin C", False),
            ("C#", "C#, a language", True),
            ("children's literature", "Literature for children", False),
            ("children's literature", "Children’s literature", True),
            ("--", "nothing -- at all", False),
            ("café", "A cafe\u0301", True),
            ("蜜蜂", "城市里的蜜蜂和人", True),
            ("ミツバチ", "都市のミツバチ", True),
            ("ผึ้ง", "การเลี้ยงผึ้งในเมือง", True),
            ("النحل", "تربية النحل في المدينة", True),
            ("пчёлы", "Городские пчёлы", True),
            ("ＡＢＣ", "the abc", True),
            ("beekeeping", "Urban bee\u00adkeep\u00ading", True),
            ("bee\u2060keeping", "Urban beekeeping", True),
            ("bees", "\u202abees\u202c", True),
            ("bees", "honey\u200bbees", True),
            ("کتاب‌ها", "کتاب‌ها و کتابخانه", True),
        ],
    )
    def test_signs_and_scripts(self, name: str, text: str, stands: bool) -> None:  # noqa: FBT001
        assert ("t" in lexicon({"t": [name]}).match(text)) == stands

    def test_an_acronym_in_small_letters_is_worth_less(self) -> None:
        made = lexicon({"t": ["AIDS"]})
        assert (made.match("AIDS")["t"], made.match("hearing aids")["t"]) == (1.0, INFLECTED)

    def test_each_language_has_its_dictionary(self) -> None:
        assert lexicon({"t": ["Haus"]}, "en").match("Häuser am See") == {}
        assert lexicon({"t": ["Haus"], "b": ["bee"]}, "en", "de").match("Häuser, bees") == {
            "t": INFLECTED,
            "b": INFLECTED,
        }

    def test_an_invalid_language_is_named(self) -> None:
        with pytest.raises(
            UserError, match=r"TAGBUS_COMPONENTS__LITERAL__LANGUAGES: 'xx' is wrong, expected codes such as en or de,en"
        ):
            Lexicon(("en", "xx"))

    def test_contents_of_the_examples(self) -> None:
        """Given the tags and contents of the examples, a name of a content's own words is found for it."""
        made = lexicon({tag.id: [tag.name] for tag in files.all_of(example("tags.jsonl"), files.tag_of)})
        titles = files.all_of(example("calibration.jsonl"), files.exemplar_of)
        right = sum(len(made.match(f"{one.title}\n{one.text}").keys() & set(one.accepted)) for one in titles)
        assert right / sum(len(one.accepted) for one in titles) > 0.15


class TestHostile:
    @pytest.mark.parametrize("text", ["a " * 250_000, "a" * 500_000, "(" * 500_000, "経" * 500_000, "\ufdfa" * 500_000])
    def test_a_text_of_any_kind_is_read(self, text: str) -> None:
        made = lexicon({**BEES, **{f"a{count}": ["a " * count] for count in range(1, 40)}})
        made.match(text)

    def test_every_script(self) -> None:
        texts = scripts()
        made = lexicon({name: [text[:8]] for name, text in texts.items()})
        for text in texts.values():
            made.match(text)

    def test_a_name_of_a_million_words_is_left_out(self) -> None:
        made = lexicon({"t": ["word " * 1_000_000, "(" * 1_000_000, "bees"]})
        assert made.match("word word bees") == {"t": 1.0}

    def test_a_text_of_all_names_gets_the_longest(self) -> None:
        made = lexicon({f"t{number}": [f"word{number}"] for number in range(1000)} | {"long": ["word1 word2"]})
        found = made.match(" ".join(f"word{number}" for number in range(1000)))
        assert len(found) == MATCHES
        assert next(iter(found)) == "long"


WORDS = st.sampled_from(["bee", "bees", "city", "urban", "Light", "(x)", "蜜蜂"])
NAMES = st.lists(st.lists(WORDS, min_size=1, max_size=3).map(" ".join), min_size=1, max_size=3).map(tuple)
TAGS = st.sampled_from(["a", "b", "c", "d"])
CHANGES = st.lists(st.tuples(TAGS, st.none() | NAMES), max_size=12)


@given(CHANGES, st.lists(WORDS, max_size=8).map(" ".join))
@settings(max_examples=200)
def test_incremental_changes_equal_one_build(changes: list[tuple[str, tuple[str, ...] | None]], text: str) -> None:
    stepwise = Lexicon()
    last: dict[str, tuple[str, ...]] = {}
    for tag_id, names in changes:
        if names is None:
            stepwise.drop(tag_id)
            last.pop(tag_id, None)
        else:
            stepwise.put(tag_id, names)
            last[tag_id] = names
    assert stepwise.match(text) == lexicon(last).match(text)
    assert stepwise.tags() == set(last)


class Counted(ExactStore):
    """A store that counts reads, and can be down."""

    fetched = 0
    listed = 0
    away = False

    async def fetch(self, keys: Sequence[str]) -> dict[str, Payload]:
        if self.away:
            raise DependencyDown("the memory is away")
        self.fetched += len(keys)
        return await super().fetch(keys)

    async def keys(self) -> set[str]:
        self.listed += 1
        return await super().keys()


def point(tag_id: str, name: str, *aliases: str, dimension: int = 2) -> Point:
    vector = np.zeros(dimension, np.float32)
    vector[0] = 1
    return Point(tag_id, vector, payload(name, *aliases))


def payload(name: str, *aliases: str) -> Payload:
    return {"name": name, "aliases": list(aliases), "parents": [], "text_hash": ""}


async def found(recall: LiteralRecall, *texts: str) -> list[list[str]]:
    return [list(one) for one in await recall.recall(Query([], texts, np.zeros((len(texts), 2), np.float32)))]


class TestScopes:
    async def test_tags_of_other_tenants_with_the_same_name_take_no_place(self) -> None:
        recall = LiteralRecall(Counted("r", 2))
        tenants = {f"t{number:03}": frozenset({f"tenant-{number}"}) for number in range(MATCHES + 20)}
        await recall.change({tag: {**payload("bees"), "scopes": sorted(of)} for tag, of in tenants.items()})
        await recall.change({"all": payload("honey bees")})
        last = frozenset({f"tenant-{MATCHES + 19}"})
        query = Query(["a", "b"], ["honey bees"] * 2, np.zeros((2, 2), np.float32), [last, frozenset()])

        assert [list(one) for one in await recall.recall(query)] == [["all", f"t{MATCHES + 19}"], ["all"]]

    async def test_a_tag_that_changes_its_scopes_alone_is_seen_by_others(self) -> None:
        recall = LiteralRecall(Counted("r", 2))
        ann = Query(["a"], ["bees"], np.zeros((1, 2), np.float32), [frozenset({"ann"})])
        for scopes, expected in ((["bob"], []), (["ann"], ["t"]), ([], ["t"]), (["bob"], [])):
            await recall.change({"t": {**payload("bees"), "scopes": scopes}})
            assert [list(one) for one in await recall.recall(ann)] == [expected]


class TestTaxonomy:
    async def test_a_tag_is_found_and_lost_with_the_change_that_tells_of_it(self) -> None:
        store = Counted("r", 2)
        recall = LiteralRecall(store)
        await store.upsert([point("t", "bees"), point("u", "cities")])
        assert await found(recall, "bees in cities") == [["t", "u"]]

        await recall.change({"t": payload("wasps", "hornets"), "u": None})
        assert await found(recall, "bees in cities", "a hornet") == [[], ["t"]]

    async def test_of_25_000_tags_one_change_reads_none_again(self) -> None:
        dimension = encoder().release.dimension
        store = Counted(encoder().release.name, dimension)
        await store.upsert([point(f"t{number}", f"word{number}", dimension=dimension) for number in range(25_000)])
        recall = LiteralRecall(store)
        projection = Projection(encoder(), Memory({"tags": store}), listeners={"tags": [recall.change]})
        assert await found(recall, "word7 word24999") == [["t24999", "t7"]]
        assert (store.listed, store.fetched) == (1, 25_000)

        await projection.apply([record(Tag(id="new", name="gravitational lensing"))])
        await projection.apply([tombstone("tags", "t7")])

        assert await found(recall, "word7 and gravitational lensing") == [["new"]]
        # The projection asks whether the new tag stands there already.
        assert (store.listed, store.fetched) == (1, 25_001)

    async def test_tagging_does_not_wait_for_changes(self) -> None:
        recall = LiteralRecall(Counted("r", 2))
        await recall.change({"t": payload("bees")})
        assert await found(recall, "bees in cities") == [["t"]]
        slow = Slow({"t": payload("wasps"), "u": payload("cities")})
        changing = asyncio.create_task(recall.change(slow))
        try:
            async with asyncio.timeout(120):
                await asyncio.to_thread(slow.begun.wait, 10)
                assert await found(recall, "bees in cities") == [["t"]]
            assert not changing.done()
        finally:
            slow.go.set()
        await changing
        assert await found(recall, "wasps and bees in cities") == [["t", "u"]]

    async def test_what_changes_before_all_is_read_counts(self) -> None:
        """Given a store that was read before a change and answers after it, the change is newer."""
        store = Counted("r", 2)
        await store.upsert([point("t", "bees"), point("u", "cities"), point("v", "towns")])
        recall = LiteralRecall(store)
        answer, asked = asyncio.Event(), asyncio.Event()
        fetch = store.fetch

        async def late(keys: Sequence[str]) -> dict[str, Payload]:
            read = await fetch(keys)
            asked.set()
            await answer.wait()
            return read

        store.fetch = late  # type: ignore[method-assign]
        async with asyncio.timeout(120):
            first = asyncio.create_task(found(recall, "bees, wasps, cities, towns"))
            await asked.wait()
            await recall.change({"t": payload("wasps"), "u": None})
            answer.set()
            assert await first == [["t", "v"]]
            assert await found(recall, "bees in cities") == [[]]

    async def test_nothing_is_read_where_nothing_changed(self) -> None:
        store = Counted("r", 2)
        recall = LiteralRecall(store)
        await store.upsert([point("t", "bees")])
        await found(recall, "bees")
        await found(recall, "bees")
        assert store.fetched == 1

    async def test_a_store_that_was_followed_from_the_beginning_is_never_read(self) -> None:
        store = Counted("r", 2)
        recall = LiteralRecall(store)
        await store.upsert([point("t", "bees")])
        await recall.change({"t": payload("bees")})
        assert await found(recall, "bees") == [["t"]]
        assert store.fetched == 0

    async def test_it_reads_again_after_the_store_was_away(self) -> None:
        store = Counted("r", 2)
        recall = LiteralRecall(store)
        await store.upsert([point("t", "bees")])
        store.away = True
        with pytest.raises(DependencyDown):
            await found(recall, "bees")
        store.away = False
        assert await found(recall, "bees") == [["t"]]

    async def test_concurrent_batches_see_one_taxonomy(self) -> None:
        store = Counted("r", 2)
        recall = LiteralRecall(store)
        await store.upsert([point(f"t{number:04}", f"word{number}") for number in range(3000)])
        answers = await asyncio.gather(*(found(recall, "word7 word2999") for _ in range(4)))
        assert answers == [[["t0007", "t2999"]]] * 4
        assert store.fetched == 3000

    async def test_no_text_no_answer(self) -> None:
        assert await found(LiteralRecall(ExactStore("r", 2))) == []


class Slow(dict[str, Payload | None]):
    """Changes that arrive one by one, each once `go` is set."""

    def __init__(self, changes: Mapping[str, Payload | None]) -> None:
        super().__init__(changes)
        self.begun, self.go = Event(), Event()

    def items(self) -> Iterator[tuple[str, Payload | None]]:  # type: ignore[override]
        self.begun.set()
        for one in super().items():
            assert self.go.wait(120)
            yield one


def test_the_contract_allows_the_names_that_are_read_here() -> None:
    """Names of 512 characters are accepted, as the contract allows."""
    tag = Tag(id="t", name="a" * 512, aliases=("bees",))
    assert lexicon({tag.id: (tag.name, *tag.aliases)}).match(tag.name[:64]) != {}
    assert Exemplar(id="a", accepted=("t",)).accepted == ("t",)
