"""Whether drift raises an alert: titles through a running worker, its exported series through the chart's rules.

    python bench/drift.py [--parts shifted control] [--titles 4000] [--control 20000] [--data ../shared/data/yso-titles]

Two workers as `tagbus run` starts them, on Apache Kafka, with the defaults of `drift.*`. Each gets one content per
second of simulated time: whenever sixty more are published, tagged and read back, /metrics is scraped, as Prometheus
does once a minute. The worker may be up to a minute ahead.
The first worker gets titles (test.tsv) and then texts in German, whose language no event names; the second shuffled
titles (train.tsv.xz) only. The scraped series are the input of promtool's unit tests over the rules.

Writes bench/results/drift.json: minutes from the shift until TagbusDrift fires, and the highest index of each signal.
Exits with code 1 if it does not fire within half an hour, or fires before the shift or on the shuffled titles. Parts
that are not requested stay unchanged in the report.
"""

import argparse
import json
import math
import random
import sys
import tempfile
import urllib.request
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from paced import Load, worker_settings

from tagbus.stream.app import console
from tagbus.stream.app.data.data_folder import DataFolder
from tagbus.stream.cli.create import create_all
from tagbus.stream.cli.records.publish import send
from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import encode_record
from tagbus.stream.contract.events import Content
from tagbus.stream.kafka.writer import TopicWriter
from tagbus.stream.local.apache import ApacheKafka
from tagbus.stream.local.worker import LocalWorker
from tests.telemetry.drifting import A_MINUTE, WITHIN_MINUTES, Minutes, german

RESULTS = Path(__file__).parent / "results" / "drift.json"
# Titles of val.tsv in memory, with their tags.
EXEMPLARS = 1_000
# Titles of train.tsv from which the control is drawn.
POOL = 100_000


def remember(settings: Settings, data: DataFolder) -> None:
    """Publish the worker's memory: some titles with known tags, and these tags."""
    exemplars = list(islice(data.exemplars("val"), EXEMPLARS))
    used = {tag for one in exemplars for tag in one.accepted}
    tags = [tag for tag in data.tags() if tag.id in used]
    for topic, records in (
        (settings.topics.tags, map(encode_record, tags)),
        (settings.topics.exemplars, map(encode_record, exemplars)),
    ):
        with console.bar(topic, 1) as bar:
            send(TopicWriter(settings.kafka, topic), records, bar)


def through(settings: Settings, port: int, texts: Sequence[str]) -> Minutes:
    """Return the series of the worker that tags these texts, sixty a minute. It is never ahead by more than another
    minute."""
    found = Minutes()
    contents = [Content(id=f"c{number}", title=text) for number, text in enumerate(texts)]
    with Load(settings, contents) as load, console.bar(settings.topics.content, len(texts)) as bar:
        for minute in range(1, math.ceil(len(texts) / A_MINUTE) + 1):
            load.fill(2 * A_MINUTE, len(texts))
            while load.sent - load.waiting < min(minute * A_MINUTE, len(texts)):
                load.read()
            bar.to(load.sent - load.waiting)
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
                found.read(answer.read().decode())
    return found


def measured(broker: ApacheKafka, name: str, data: DataFolder, texts: Sequence[str], folder: Path) -> Minutes:
    """Return the series of a fresh worker."""
    base = Settings.model_construct()
    kafka = base.kafka.model_copy(update={"brokers": broker.address})
    topics = base.topics.model_copy(update={"partitions": 4})
    settings = worker_settings(base.model_copy(update={"kafka": kafka, "topics": topics}), name, folder)
    create_all(settings)
    remember(settings, data)
    # Contents of a simulated second arrive within milliseconds.
    quick = {"TAGBUS_DRIFT__CONTENTS_PER_SECOND": "1000000", "TAGBUS_BATCH__CONTENTS": str(A_MINUTE)}
    with LocalWorker(settings, quick) as worker:
        worker.wait_until_ready()
        found = through(settings, worker.port, texts)
        worker.stop()
    return found


def fired_after(minutes: Minutes, shift: int, folder: Path) -> int | None:
    """Return the minutes from the shift until the alert fires, None if it does not within the series."""
    after = range(len(minutes) - shift)
    return next((number for number in after if not minutes.wrong({shift + number: True}, folder)), None)


def rounded(minutes: Minutes, first: int = 0, last: int | None = None) -> dict[str, float]:
    return {signal: round(value, 3) for signal, value in minutes.highest(first, last).items()}


def shifted(broker: ApacheKafka, data: DataFolder, count: int, folder: Path) -> dict[str, object]:
    """Titles, then texts in German."""
    titles = [one.text for one in islice(data.exemplars("test"), count)]
    shift = len(titles) // A_MINUTE
    minutes = measured(broker, "shifted", data, [*titles, *german(WITHIN_MINUTES * A_MINUTE)], folder)
    return {
        "titles": len(titles),
        "fires_before_the_shift": bool(minutes.wrong({shift: False}, folder)),
        "fires_after_minutes": fired_after(minutes, shift, folder),
        "highest_before_the_shift": rounded(minutes, 0, shift),
        "highest_after_the_shift": rounded(minutes, shift),
    }


def control(broker: ApacheKafka, data: DataFolder, count: int, folder: Path) -> dict[str, object]:
    """Shuffled titles only."""
    pool = [one.text for one in islice(data.exemplars("train"), max(POOL, count))]
    minutes = measured(broker, "control", data, random.Random(1).sample(pool, count), folder)  # noqa: S311
    return {
        "shuffled_titles": count,
        "fires_over_shuffled_titles": bool(minutes.wrong({len(minutes) - 1: False}, folder)),
        "highest_over_shuffled_titles": rounded(minutes),
    }


PARTS = {"shifted": shifted, "control": control}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--titles", type=int, default=4_000)
    parser.add_argument("--control", type=int, default=20_000)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/yso-titles"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    data = DataFolder(asked.data)
    report = json.loads(asked.out.read_text(encoding="utf-8")) if asked.out.exists() else {}
    report["contents_a_minute"] = A_MINUTE
    with ApacheKafka() as broker, tempfile.TemporaryDirectory() as name:
        for part in asked.parts:
            measure = PARTS[part]
            report |= measure(broker, data, asked.titles if measure is shifted else asked.control, Path(name))
            asked.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report))
    late = "fires_after_minutes" in report and report["fires_after_minutes"] is None
    return int(late or any(report.get(f"fires_{when}") for when in ("before_the_shift", "over_shuffled_titles")))


if __name__ == "__main__":
    sys.exit(main())
