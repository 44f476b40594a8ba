"""Drift as a worker exports it, a read a simulated minute, and whether the alert fires on it; titles in German."""

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from tests.prometheus.promtool import check

# One content a second: the rate that an alert within half an hour needs, by the operator's page.
A_MINUTE: Final = 60
WITHIN_MINUTES: Final = 30
FIRING: Final = 'ALERTS{alertname="TagbusDrift",alertstate="firing"}'

_KINDS: Final = (
    "Einführung in die Geschichte von",
    "Wörterbuch der Begriffe über",
    "Untersuchungen zur Bedeutung von",
    "Handbuch für den Umgang mit",
    "Der Einfluss der Landwirtschaft auf",
    "Neue Erkenntnisse aus der Forschung über",
    "Beiträge zum Verständnis von",
    "Eine vergleichende Studie zu",
    "Grundlagen und Anwendungen von",
    "Gesammelte Aufsätze über",
    "Das Verhältnis zwischen Staat und",
    "Gesetzliche Vorschriften zum Schutz von",
)
_THINGS: Final = (
    "Brücken und Straßen",
    "Kinderbüchern und Märchen",
    "Wäldern, Flüssen und Seen",
    "Gewerkschaften und Arbeitgebern",
    "Krankenhäusern und Ärzten",
    "Volksliedern und Tänzen",
    "Zeitungen und Zeitschriften",
    "Bienenvölkern und Imkern",
    "Schulen, Lehrern und Prüfungen",
    "Kirchen und Klöstern",
    "Maschinen und Werkzeugen",
    "Bauern, Knechten und Mägden",
    "Seefahrern und Entdeckern",
    "Möbeln und Häusern aus Holz",
    "Steuern, Zöllen und Abgaben",
)
_WHERE: Final = (
    "im achtzehnten Jahrhundert",
    "an der finnischen Küste",
    "zwischen den beiden Weltkriegen",
    "in den nordischen Ländern",
    "aus heutiger Sicht",
    "während der Besatzungszeit",
    "am Beispiel der Hansestädte",
    "nach dem Zusammenbruch des Reiches",
    "mit zahlreichen Abbildungen und Karten",
    "unter besonderer Berücksichtigung der Jugend",
)


def german(count: int, seed: int = 1) -> list[str]:
    """Titles in German, of words that no other title has; some repeat."""
    chance = random.Random(seed)  # noqa: S311
    return [f"{chance.choice(_KINDS)} {chance.choice(_THINGS)} {chance.choice(_WHERE)}" for _ in range(count)]


class Minutes:
    """The series of drift, as Prometheus has them after a scrape a minute."""

    def __init__(self) -> None:
        self._values: dict[str, list[str]] = defaultdict(list)

    def read(self, exposition: str) -> None:
        """A scrape of /metrics."""
        for family in text_string_to_metric_families(exposition):
            if family.name == "tagbus_drift_psi":
                for sample in family.samples:
                    self._values[str(sample.labels["signal"])].append(str(sample.value))

    def __len__(self) -> int:
        return max(map(len, self._values.values()), default=0)

    def highest(self, first: int = 0, last: int | None = None) -> Mapping[str, float]:
        """The highest index of each signal from a minute to another."""
        return {signal: max(map(float, values[first:last])) for signal, values in self._values.items()}

    def wrong(self, expected: Mapping[int, bool], folder: Path) -> str:
        """promtool's complaints if the alert did not fire up to a minute as expected; empty if it did."""
        series = [
            {"series": f'tagbus_drift_psi{{namespace="a",signal="{signal}"}}', "values": " ".join(values)}
            for signal, values in self._values.items()
        ]
        asked = [_asked(minute, fired) for minute, fired in expected.items()]
        return check({"tests": [{"interval": "1m", "input_series": series, "promql_expr_test": asked}]}, folder)


def _asked(minute: int, fired: bool) -> dict[str, object]:  # noqa: FBT001 - what is expected
    samples: Sequence[Mapping[str, object]] = [{"labels": "{}", "value": 1}] if fired else []
    expression = f"count(count_over_time({FIRING}[30d])) > bool 0"
    return {"expr": expression, "eval_time": f"{minute}m", "exp_samples": samples}
