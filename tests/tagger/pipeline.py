"""A tagger over a memory, assembled stage by stage."""

from collections.abc import Sequence
from functools import cache

import numpy as np

from tagbus.stream.calibrate import Calibration, fit, uncalibrated
from tagbus.stream.config import RecallSettings, TaggerSettings
from tagbus.stream.contract.events import Content, TaggedContent
from tagbus.stream.contract.release import Fingerprint
from tagbus.stream.encoder.base import Encoder
from tagbus.stream.memory import Memory
from tagbus.stream.recall.graph import GraphRecall
from tagbus.stream.recall.lexical.literal import LiteralRecall
from tagbus.stream.tagger import Failure, Pipeline, Stage, Tagger
from tagbus.stream.tagger.calibrate import Calibrate
from tagbus.stream.tagger.encode import Encode
from tagbus.stream.tagger.prepare import Prepare
from tagbus.stream.tagger.rank import Fuse
from tagbus.stream.tagger.recall import Recall
from tagbus.stream.tagger.select import Select
from tagbus.stream.tagger.tagger import Taxonomy
from tests.index.parts import encoder


def tagger(
    over: Memory,
    using: Encoder | None = None,
    calibration: Calibration | None = None,
    taxonomy: Taxonomy = dict,
    literal: LiteralRecall | None = None,
    more: Sequence[Stage] = (),
    **chosen: object,
) -> Tagger:
    """Graph recall, and literal names if given, without a learnt ranker. A stage named `spare` is optional."""
    settings, release = TaggerSettings.model_validate(chosen), encoder().release
    graph = GraphRecall(over.tags, over.exemplars, release.recall, RecallSettings(), settings.neighbours)
    recallers = {} if literal is None else {"literal": [literal]}
    stages = [Prepare(), Encode(using or encoder()), Recall(graph, recallers), Fuse(graph), *more]
    select = Select(graph, {name: name for name in recallers}, settings.tags)

    def curve_of(path: str) -> Calibration:
        return calibration or uncalibrated(Fingerprint(release.name, path, {}))

    closing = [select, Calibrate(curve_of, settings.least_confidence)]
    return Tagger(Pipeline(release.name, {}, curve_of("recall").name, stages, closing, frozenset({"spare"})), taxonomy)


def results(found: Sequence[TaggedContent | Failure]) -> list[TaggedContent]:
    assert all(isinstance(one, TaggedContent) for one in found)
    return [one for one in found if isinstance(one, TaggedContent)]


def content(name: str, text: str) -> Content:
    return Content(id=name, text=text)


@cache
def curve() -> Calibration:
    scores = np.linspace(0, 1, 200)
    return fit(scores, np.arange(200) % 3 == 0, Fingerprint(encoder().release.name, "recall", {}), 20)
