"""Five titles with their tags."""

from tagbus.models.baselines.base import Titles
from tagbus.models.data.truth import Truth

TEXTS = ("red fish", "red fish swims", "blue bird", "blue bird flies", "old stone")
TITLES = Titles(TEXTS, Truth.of([[0], [0, 1], [2], [2, 3], [4]]), 5)
