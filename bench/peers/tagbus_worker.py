"""The tagbus worker with a tagger that does nothing, or sleeps."""

import asyncio
import logging
import signal
from collections.abc import Sequence

from spec import BATCH, Spec

from tagbus.stream.app.releases.collection import settle
from tagbus.stream.bus.process.tag_processor import TagProcessor
from tagbus.stream.bus.worker import Worker
from tagbus.stream.config import BatchSettings, KafkaSettings, Settings, TopicSettings
from tagbus.stream.contract.events import Content, Evidence, ScoredTag, TaggedContent, Versions
from tagbus.stream.tagger import Failure

VERSIONS = Versions(release="trivial", calibration="none", taxonomy={})
TAG = ScoredTag(id="t1", name="Tag", score=0.5, confidence=0.9, stage="recall", evidence=Evidence(similarity=0.5))


class Trivial:
    """Gives every content the same tag after the configured work time."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec

    def versions(self) -> Versions:
        return VERSIONS

    async def tag(self, contents: Sequence[Content], until: str | None = None) -> list[TaggedContent | Failure]:
        if self._spec.work_ms:
            await asyncio.sleep(self._spec.work_seconds(len(contents)))
        return [
            TaggedContent(id=content.id, tags=(TAG,), versions=VERSIONS, path=("trivial",), time=content.time)
            for content in contents
        ]


async def gate() -> None:
    """The start gate of `tagbus run`, without a memory to wait for."""
    settle()


def main() -> None:
    logging.basicConfig(level=logging.WARNING)
    spec = Spec.from_argv()
    settings = Settings(
        kafka=KafkaSettings(
            brokers=spec.brokers,
            group=spec.group,
            transactional_id=spec.group,
            instance=spec.instance,
            delivery=spec.guarantee,
        ),
        topics=TopicSettings(content=spec.content, tagged=spec.tagged, versions=spec.versions),
        batch=BatchSettings(contents=BATCH),
    )
    worker = Worker(settings, TagProcessor(settings, Trivial(spec)), gate)
    signal.signal(signal.SIGTERM, lambda *_: worker.stop())
    worker.run()


if __name__ == "__main__":
    main()
