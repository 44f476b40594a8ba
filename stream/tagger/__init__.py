"""The tagger: a list of stages over one `Work` per content; contents in, tags or failures out."""

from tagbus.stream.tagger.calibrate import DECIDED
from tagbus.stream.tagger.tagger import Explained, Features, Pipeline, Tagger, Taxonomy
from tagbus.stream.tagger.work import Delayed, Failure, Outcome, Stage, Work

__all__ = [
    "DECIDED",
    "Delayed",
    "Explained",
    "Failure",
    "Features",
    "Outcome",
    "Pipeline",
    "Stage",
    "Tagger",
    "Taxonomy",
    "Work",
]
