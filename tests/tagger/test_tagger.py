"""The tagger: contents in, results or failures out, of the same length in the same order."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import hypothesis
import pytest
from hypothesis import strategies as st

from tagbus.stream.app.filling import cached_memory
from tagbus.stream.config import Settings
from tagbus.stream.contract.events import Content, Exemplar, Tag
from tagbus.stream.contract.fields import TEXT_CHARS
from tagbus.stream.encoder.base import Vectors
from tagbus.stream.encoder.release import Release
from tagbus.stream.errors import DependencyDown, ReleaseMismatch, Untaggable
from tagbus.stream.index.apply import Projection
from tagbus.stream.memory import Memory
from tagbus.stream.tagger import DECIDED, Failure
from tests.cli.harness import Slice, scripts
from tests.index.parts import encoder, record
from tests.tagger.pipeline import content, curve, results, tagger

POISON = "the encoder chokes on this"


class Choking:
    """The real encoder, which fails for one text as a native library fails: the whole batch with it."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.calls: list[int] = []

    @property
    def release(self) -> Release:
        return encoder().release

    async def encode(self, texts: Sequence[str]) -> Vectors:
        self.calls.append(len(texts))
        if any(POISON in text for text in texts):
            raise self.error
        return await encoder().encode(texts)

    async def close(self) -> None:
        """The shared encoder stays open."""


class TestBatch:
    async def test_a_result_for_each_content_in_their_order(self, filled: Memory, cutting: Slice) -> None:
        found = await tagger(filled).tag(cutting.contents)
        assert [one.id for one in found] == [one.id for one in cutting.contents]

    async def test_an_empty_batch_is_an_empty_answer(self, filled: Memory) -> None:
        assert await tagger(filled).tag([]) == []

    async def test_what_a_content_gets_does_not_depend_on_its_batch(self, filled: Memory, cutting: Slice) -> None:
        given = tagger(filled)
        together = results(await given.tag(cutting.contents))
        for one, asked in zip(together, cutting.contents, strict=True):
            (alone,) = results(await given.tag([asked]))
            assert [tag.id for tag in alone.tags] == [tag.id for tag in one.tags]
            # Padding changes the last bits of a vector: a cosine is equal to about 1e-6, a published one to 1e-4.
            for left, right in zip(alone.tags, one.tags, strict=True):
                assert left.score == pytest.approx(right.score, abs=2e-5)

    async def test_concurrent_batches_do_not_disturb_each_other(self, filled: Memory, cutting: Slice) -> None:
        given = tagger(filled)
        parts = [cutting.contents[start : start + 8] for start in range(0, 40, 8)]
        at_once = await asyncio.gather(*(given.tag(part) for part in parts))
        assert list(at_once) == [await given.tag(part) for part in parts]

    async def test_one_id_twice_is_answered_twice(self, filled: Memory) -> None:
        found = results(await tagger(filled).tag([content("a", "Chess game"), content("a", "Mail server")]))
        assert [one.id for one in found] == ["a", "a"]
        assert found[0].tags != found[1].tags

    def test_permuted_contents_have_permuted_results(self, cutting: Slice) -> None:
        given = tagger(asyncio.run(cached_memory(cutting.folder, Settings.model_construct(), encoder().release)))
        expected = {one.id: one for one in results(asyncio.run(given.tag(cutting.contents)))}

        @hypothesis.settings(max_examples=15)
        @hypothesis.given(st.permutations(cutting.contents))
        def holds(permuted: Sequence[Content]) -> None:
            found = results(asyncio.run(given.tag(permuted)))
            assert [one.id for one in found] == [one.id for one in permuted]
            for one in found:
                assert [tag.id for tag in one.tags] == [tag.id for tag in expected[one.id].tags]

        holds()


class TestFailure:
    async def test_a_text_that_fails_the_encoder_fails_alone(self, filled: Memory, cutting: Slice) -> None:
        contents = [*cutting.contents[:5], content("bad", POISON), *cutting.contents[5:10]]
        found = await tagger(filled, Choking(RuntimeError("bad token"))).tag(contents)
        assert [one.id for one in found] == [one.id for one in contents]
        failure = found.pop(5)
        assert isinstance(failure, Failure)
        assert isinstance(failure.error, Untaggable)
        assert failure.error.stage == "encode"
        assert str(failure.error) == (
            f"text: {POISON!r} is wrong, expected a text that the encoder takes (RuntimeError: bad token)"
        )
        for one, right in zip(results(found), results(await tagger(filled).tag(cutting.contents[:10])), strict=True):
            assert [tag.id for tag in one.tags] == [tag.id for tag in right.tags]

    async def test_a_batch_of_nothing_else_is_all_failures(self, filled: Memory) -> None:
        found = await tagger(filled, Choking(ValueError("no"))).tag([content(name, POISON) for name in "ab"])
        assert [type(one) for one in found] == [Failure, Failure]

    @pytest.mark.parametrize(
        "error", [DependencyDown("the encoder is away"), ReleaseMismatch("another encoder answers"), MemoryError()]
    )
    async def test_what_may_pass_later_is_no_failure_of_a_content(self, filled: Memory, error: Exception) -> None:
        choking = Choking(error)
        with pytest.raises(type(error)):
            await tagger(filled, choking).tag([content("a", "Chess game"), content("b", POISON)])
        assert choking.calls == [2]

    async def test_a_megabyte_in_a_failure_is_shortened(self, filled: Memory) -> None:
        (failure,) = await tagger(filled, Choking(ValueError("no"))).tag([content("a", POISON * 10_000)])
        assert isinstance(failure, Failure)
        assert len(str(failure.error)) < 300


class TestVersions:
    async def test_every_result_names_release_calibration_and_taxonomy(self, filled: Memory, cutting: Slice) -> None:
        given = tagger(filled, calibration=curve(), taxonomy=lambda: {"0": 17, "1": -1})
        for one in results(await given.tag(cutting.contents[:3])):
            assert one.versions.release == encoder().release.name
            assert one.versions.calibration == curve().name
            assert one.versions.taxonomy == {"0": 17, "1": -1}
            assert one.path == ("prepare", "encode", "recall", "rank", "select", "calibrate")
            assert one.degraded == ()
            assert one.usage is None
            assert one.versions.components == {}

    async def test_a_result_has_scopes_and_time_of_its_content(self, filled: Memory) -> None:
        given = Content(id="a", title="Chess game", scopes=("news", "tenant-7"), time=datetime(2026, 1, 31, tzinfo=UTC))
        (one,) = results(await tagger(filled).tag([given]))
        assert (one.scopes, one.time) == (given.scopes, given.time)

    async def test_the_taxonomy_is_read_before_the_search(self, filled: Memory) -> None:
        """A tag that arrives while a batch is searched may show in it, and is never promised by its version."""
        version = {"0": 1}
        given = tagger(filled, taxonomy=lambda: dict(version))
        arriving = Projection(encoder(), filled)

        class Meanwhile(Choking):
            async def encode(self, texts: Sequence[str]) -> Vectors:
                await arriving.apply([record(Tag(id="new", name="gravitational lensing"))])
                version["0"] = 2
                return await encoder().encode(texts)

        given = tagger(filled, Meanwhile(ValueError()), taxonomy=lambda: dict(version))
        (one,) = results(await given.tag([content("a", "Gravitational lensing")]))
        assert one.versions.taxonomy == {"0": 1}
        assert one.tags[0].id == "new"
        (later,) = results(await given.tag([content("a", "Gravitational lensing")]))
        assert later.versions.taxonomy == {"0": 2}

    async def test_the_time_of_the_content_comes_along(self, filled: Memory) -> None:
        timed = Content.model_validate_json(b'{"id": "a", "text": "Chess game", "time": "2026-01-31T09:30:00Z"}')
        (one,) = results(await tagger(filled).tag([timed]))
        assert one.time == timed.time


class TestDecisions:
    async def test_what_people_accepted_comes_first_and_what_they_rejected_never(
        self, filled: Memory, cutting: Slice
    ) -> None:
        given = tagger(filled, calibration=curve())
        content = cutting.contents[0]
        (before,) = results(await given.tag([content]))
        rejected = before.tags[0].id
        accepted = next(tag.id for tag in cutting.tags if tag.id not in {found.id for found in before.tags})
        decision = Exemplar(id=content.id, text=content.text, accepted=(accepted,), rejected=(rejected,))
        await Projection(encoder(), filled).apply([record(decision)])
        (after,) = results(await given.tag([content]))
        assert after.tags[0].id == accepted
        assert (after.tags[0].confidence, after.tags[0].stage) == (DECIDED, "people")
        assert after.tags[0].evidence.decided
        assert rejected not in {tag.id for tag in after.tags}
        assert all(tag.stage == "recall" and not tag.evidence.decided for tag in after.tags[1:])

    async def test_a_tag_has_its_names_by_language(self, filled: Memory) -> None:
        names = {"fi": "gravitaatiolinssi", "sv": "gravitationslins"}
        named = Tag(id="lens", name="gravitational lensing", names=names)
        await Projection(encoder(), filled).apply([record(named)])
        (one,) = results(await tagger(filled).tag([content("a", "Gravitational lensing")]))
        assert {tag.id: tag.names for tag in one.tags}["lens"] == names
        assert all(tag.names == {} for tag in one.tags if tag.id != "lens")

    async def test_a_contents_own_exemplar_does_not_vote(self, filled: Memory, cutting: Slice) -> None:
        title = "A title about nothing that is in memory at all"
        by_machine = Exemplar(id="own", source="machine", text=title, accepted=(cutting.tags[0].id,))
        await Projection(encoder(), filled).apply([record(by_machine)])
        given = tagger(filled)
        own, other = results(await given.tag([content("own", title), content("other", title)]))
        assert cutting.tags[0].id == other.tags[0].id
        assert "own" in {neighbour.id for neighbour in other.tags[0].evidence.neighbours}
        assert all("own" not in {neighbour.id for neighbour in tag.evidence.neighbours} for tag in own.tags)
        assert cutting.tags[0].id not in {tag.id for tag in own.tags[:1]}


class TestSettings:
    async def test_at_most_so_many_tags(self, filled: Memory, cutting: Slice) -> None:
        many = results(await tagger(filled, tags=10).tag(cutting.contents))
        few = results(await tagger(filled, tags=3).tag(cutting.contents))
        assert [one.tags[:3] for one in many] == [one.tags for one in few]

    async def test_tags_below_the_least_confidence_are_left_out(self, filled: Memory, cutting: Slice) -> None:
        everything = results(await tagger(filled, calibration=curve()).tag(cutting.contents))
        least = sorted(tag.confidence for one in everything for tag in one.tags)[100]
        some = results(await tagger(filled, calibration=curve(), least_confidence=least).tag(cutting.contents))
        assert [[tag for tag in one.tags if tag.confidence >= least] for one in everything] == [
            list(one.tags) for one in some
        ]

    async def test_confidence_is_a_probability_and_never_falls_with_the_score(
        self, filled: Memory, cutting: Slice
    ) -> None:
        for one in results(await tagger(filled, calibration=curve()).tag(cutting.contents)):
            confidences = [tag.confidence for tag in one.tags]
            assert all(0 < confidence < 1 for confidence in confidences)
            assert confidences == sorted(confidences, reverse=True)


async def test_no_text_is_too_strange(filled: Memory) -> None:
    """Each is tagged, or fails alone. The contract refuses those without visible text earlier."""
    texts = {
        **scripts(),
        "nul": "a\x00b",
        "nothing but nul": "\x00" * 100,
        "no space": "a" * TEXT_CHARS,
        "wide and no space": "経" * TEXT_CHARS,
        "blank but long": " " * 400_000 + "bees",
        "no word": "\u200d\ufeff\u2060",
        "private": "\ue000\U000f0000",
        "unassigned": "\u0378\U000e0fff",
        "no character": "\ufffe\uffff",
        "like a prompt": "[CLS] [SEP] [MASK] {0} %s ${HOME} ../../etc/passwd",
        "joined": "👩‍👩‍👧‍👦" * 1000,
    }
    assert len(texts) > 150
    given = [
        Content.model_construct(id=f"{number}-{name}"[:200], text=text)
        for number, (name, text) in enumerate(texts.items())
    ]
    found = results(await tagger(filled).tag(given))
    assert [one.id for one in found] == [one.id for one in given]


async def test_a_lone_surrogate_is_a_failure_and_its_neighbours_pass(filled: Memory) -> None:
    """The contract refuses it earlier; the tagger does not depend on that."""
    strange = Content.model_construct(id="s", title="", text="a\ud800b", time=None)
    first, second, third = await tagger(filled).tag([content("a", "Chess game"), strange, content("b", "Mail server")])
    assert isinstance(second, Failure)
    assert "lone surrogate" in str(second.error)
    assert len(results([first, third])) == 2
