"""Metrics of published contents."""

import asyncio

from prometheus_client import REGISTRY

from tagbus.stream.bus.process.observed import DriftWatch, path_of
from tagbus.stream.bus.process.tag_processor import TagProcessor
from tagbus.stream.config import DriftSettings
from tagbus.stream.contract.events import Content, Degraded
from tests.bus.harness import event
from tests.bus.process.test_tag_processor import QUICK, batch
from tests.bus.taggers import Trivial, tagged


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"tagbus_{name}", labels) or 0.0


def test_results_count_when_they_are_published_and_not_before() -> None:
    processor, given = TagProcessor(QUICK, Trivial()), batch([event("a"), event("b")])
    before = sample("confidence_count"), sample("tags_a_content_sum")
    outcomes = asyncio.run(processor.process(given, lambda _: None))
    assert (sample("confidence_count"), sample("tags_a_content_sum")) == before
    processor.published(given, outcomes)
    assert (sample("confidence_count"), sample("tags_a_content_sum")) == (before[0] + 2, before[1] + 2)


def test_the_path_of_a_result_is_one_of_few() -> None:
    result = tagged(Content(id="a", title="Bees"))
    assert path_of(result) == "tagged"
    assert path_of(result.model_copy(update={"path": ("recall", "judge")})) == "judged"
    skipped = (Degraded(stage="judge", reason="budget"),)
    assert path_of(result.model_copy(update={"path": ("recall", "judge"), "degraded": skipped})) == "degraded"


def test_a_missing_language_is_told_by_the_script_and_installation_tests_do_not_count() -> None:
    watch = DriftWatch(DriftSettings(reference=200, window=100, contents_per_second=1e9))

    def look(name: str, title: str, count: int) -> None:
        for start in range(0, count, 50):
            contents = [Content(id=f"{name}{start + number}", title=title) for number in range(50)]
            watch.look(contents, [tagged(content) for content in contents])

    look("a", "Bees in the city", 400)
    look("tagbus-helm-test-", "Пчёлы в городе", 400)
    assert sample("drift_psi", signal="language") < 0.1
    look("b", "Пчёлы в городе", 200)
    assert sample("drift_psi", signal="language") > 1
