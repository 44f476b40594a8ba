"""Effects of a stage on one content without its neighbours, and literal names as the first recaller beside recall."""

from collections.abc import Sequence

import pytest

from tagbus.stream.calibrate import Calibration
from tagbus.stream.contract.events import Degraded, Exemplar, Tag, TaggedContent
from tagbus.stream.errors import DependencyDown, FieldError, Untaggable
from tagbus.stream.index.apply import Projection
from tagbus.stream.memory import Memory
from tagbus.stream.recall.lexical.literal import LiteralRecall
from tagbus.stream.tagger import Delayed, Explained, Failure, Work
from tagbus.stream.tagger.calibrate import Calibrate
from tests.cli.harness import Slice
from tests.index.parts import encoder, record, tombstone
from tests.tagger.pipeline import content, results, tagger


class TestLiteral:
    """A recaller beside graph recall appears in the path of each result."""

    async def test_a_tag_whose_name_occurs_in_a_content_is_a_candidate(self, filled: Memory, cutting: Slice) -> None:
        version = {"0": 1}
        given = tagger(filled, literal=LiteralRecall(filled.tags), taxonomy=lambda: dict(version))
        # The facet in parentheses tells names apart and is not looked for.
        named = next(tag for tag in cutting.tags if tag.name.count("(") == 1 and tag.name.count(" ") > 1)
        said = named.name.partition(" (")[0]
        (one,) = results(await given.tag([content("a", f"{said} and 百 more")]))
        found = {tag.id: tag for tag in one.tags}
        assert found[named.id].evidence.matched == {"literal": named.name}
        assert found[named.id].stage == "fusion"
        assert one.path == ("prepare", "encode", "recall", "literal", "rank", "select", "calibrate")

    async def test_a_tag_is_found_and_lost_literally_with_the_taxonomy(self, filled: Memory) -> None:
        version = {"0": 1}
        literal = LiteralRecall(filled.tags)
        given = tagger(filled, literal=literal, taxonomy=lambda: dict(version))
        text = "A study of zymurgy and nothing else"
        await given.tag([content("a", text)])
        projection = Projection(encoder(), filled, listeners={"tags": [literal.change]})
        await projection.apply([record(Tag(id="new", name="brewing", aliases=("zymurgy",)))])
        version["0"] = 2
        (one,) = results(await given.tag([content("a", text)]))
        assert {tag.id: tag.evidence.matched for tag in one.tags}["new"] == {"literal": "zymurgy"}
        assert one.versions.taxonomy == version

        await projection.apply([tombstone("tags", "new")])
        version["0"] = 3
        (one,) = results(await given.tag([content("a", text)]))
        assert "new" not in {tag.id for tag in one.tags}

    async def test_after_a_thousand_updates_of_one_tag_the_last_is_in_force(self, filled: Memory) -> None:
        """Neither memory nor the names grow, and nothing of earlier versions is left."""
        literal = LiteralRecall(filled.tags)
        given = tagger(filled, literal=literal)
        await given.tag([content("a", "zymurgy")])
        count = await filled.tags.count()
        projection = Projection(encoder(), filled, listeners={"tags": [literal.change]})
        updates = [Tag(id="new", name="brewing", aliases=(f"zymurgy{n}",)) for n in range(1_000)]
        for start in range(0, len(updates), 100):
            await projection.apply([record(tag) for tag in updates[start : start + 100]])
            # Listeners get them one at a time.
            for tag in updates[start : start + 100]:
                await literal.change({tag.id: {"name": tag.name, "aliases": list(tag.aliases)}})

        last, first = results(await given.tag([content("b", "zymurgy999"), content("c", "zymurgy0 or zymurgy998")]))

        assert {tag.id: tag.evidence.matched for tag in last.tags}["new"] == {"literal": "zymurgy999"}
        assert "literal" not in {tag.id: tag.evidence.matched for tag in first.tags}.get("new", {})
        assert await filled.tags.count() == count + 1

    async def test_after_its_tombstone_no_result_has_a_tag_that_a_thousand_exemplars_carry(
        self, filled: Memory
    ) -> None:
        literal = LiteralRecall(filled.tags)
        given = tagger(filled, literal=literal)
        projection = Projection(encoder(), filled, listeners={"tags": [literal.change]})
        text = "Zymurgy, the study of brewing"
        many = [Exemplar(id=f"x{n}", title=text, accepted=("new",)) for n in range(1_000)]
        mine = Exemplar(id="mine", title="Mine", accepted=("new",))
        await projection.apply([record(Tag(id="new", name="zymurgy")), *map(record, many), record(mine)])
        contents = [content("a", text), content("x1", text), content("mine", "Mine")]
        assert all("new" in {tag.id for tag in one.tags} for one in results(await given.tag(contents)))

        await projection.apply([tombstone("tags", "new")])

        assert all("new" not in {tag.id for tag in one.tags} for one in results(await given.tag(contents)))


class Picky:
    """A stage that fails, skips and delays single contents by their ids, and records its input."""

    name = "picky"

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def run(self, works: Sequence[Work]) -> None:
        for work in works:
            self.seen.append(work.content.id)
            match work.content.id:
                case "fails":
                    work.fail(Untaggable(self.name, (FieldError("text", "'...'", "another text"),)))
                case "skips":
                    work.skip(self.name, "too_long")
                case "waits" if self.seen.count("waits") < 3:
                    work.delay(0.01, "busy")


class Spare:
    """An optional stage whose service is down."""

    name = "spare"

    async def run(self, works: Sequence[Work]) -> None:
        raise DependencyDown("the spare is away")


class Halfway(Spare):
    """An optional stage whose service goes down after the first content."""

    async def run(self, works: Sequence[Work]) -> None:
        works[0].candidates, works[0].ranking, works[0].names = (), None, {}
        works[0].path.append("half")
        works[1].fail(Untaggable(self.name, (FieldError("text", "'...'", "another text"),)))
        await super().run(works)


class TestStages:
    """A stage can fail, skip or delay one content without its neighbours, and a caller can stop early."""

    async def test_one_content_fails_skips_or_waits_alone(self, filled: Memory) -> None:
        ids = ["fine", "fails", "skips", "waits"]
        given = tagger(filled, more=[Picky()])
        fine, fails, skips, waits = await given.tag([content(one, "Chess game") for one in ids])
        assert isinstance(fine, TaggedContent)
        assert fine.path == ("prepare", "encode", "recall", "rank", "picky", "select", "calibrate")
        assert isinstance(fails, Failure)
        assert fails.error.stage == "picky"
        assert isinstance(skips, TaggedContent)
        assert skips.degraded == (Degraded(stage="picky", reason="too_long"),)
        assert "picky" not in skips.path
        assert skips.tags == fine.tags
        assert waits == Delayed("waits", 0.01, "busy")

    async def test_a_delayed_content_is_tagged_again_alone(self, filled: Memory) -> None:
        picky = Picky()
        found = await tagger(filled, more=[picky]).explain_all(
            [content("fine", "Chess game"), content("waits", "Chess game")]
        )
        assert [type(one) for one in found] == [Explained, Explained]
        assert picky.seen == ["fine", "waits", "waits", "waits"]

    async def test_an_optional_stage_that_is_down_is_skipped_for_all(self, filled: Memory) -> None:
        (one,) = results(await tagger(filled, more=[Spare()]).tag([content("a", "Chess game")]))
        assert one.degraded == (Degraded(stage="spare", reason="DependencyDown"),)
        assert one.path == ("prepare", "encode", "recall", "rank", "select", "calibrate")
        assert one.tags

    async def test_what_an_optional_stage_did_before_it_was_down_does_not_count(self, filled: Memory) -> None:
        asked = [content("a", "Chess game"), content("b", "Chess game")]
        without = results(await tagger(filled).tag(asked))
        found = results(await tagger(filled, more=[Halfway()]).tag(asked))
        assert [(one.tags, one.path) for one in found] == [(one.tags, one.path) for one in without]
        assert [one.degraded for one in found] == [(Degraded(stage="spare", reason="DependencyDown"),)] * 2

    async def test_a_caller_stops_before_a_later_stage(self, filled: Memory) -> None:
        picky = Picky()
        given = tagger(filled, more=[picky])
        (one,) = results(await given.tag([content("a", "Chess game")], until="rank"))
        assert picky.seen == []
        assert one.path == ("prepare", "encode", "recall", "rank", "select", "calibrate")
        assert one.tags == results(await given.tag([content("a", "Chess game")]))[0].tags
        (early,) = results(await given.tag([content("a", "Chess game")], until="encode"))
        assert early.tags == ()

    @pytest.mark.parametrize("last", ["select", "calibrate"])
    async def test_the_closing_stages_name_the_whole_pipeline(self, filled: Memory, last: str) -> None:
        """They run however early a caller stops, so no stage follows them."""
        given = tagger(filled, more=[Picky()])
        asked = [content("a", "Chess game")]
        assert await given.tag(asked, until=last) == await given.tag(asked)

    async def test_an_unknown_stage_is_named(self, filled: Memory) -> None:
        with pytest.raises(
            ValueError,
            match="there is no stage 'judge', expected one of prepare, encode, recall, rank, select, calibrate",
        ):
            await tagger(filled).tag([content("a", "Chess game")], until="judge")

    async def test_the_curve_of_the_path_that_was_taken_counts(self, filled: Memory) -> None:
        asked: list[str] = []
        given = tagger(filled, more=[Picky()])
        calibrated = given._pipeline.closing[1]
        assert isinstance(calibrated, Calibrate)
        curve_of = calibrated._curves

        def noted(path: str) -> Calibration:
            asked.append(path)
            return curve_of(path)

        calibrated._curves = noted
        await given.tag([content("fine", "Chess game"), content("skips", "Chess game")])
        assert asked == ["recall+picky", "recall"]
