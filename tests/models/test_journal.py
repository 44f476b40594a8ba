"""The log of a training run, and the cost computed from it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tagbus.models.journal import JOURNAL, Journal, cost, lines


def test_a_line_says_what_it_took_so_far(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run" / JOURNAL)
    journal.write({"loss": 1.5}, pairs=2000)
    journal.marked(cross_encoder="r").write({"trees": 50})

    first, second = lines(tmp_path / "run" / JOURNAL)
    assert first["loss"] == 1.5
    assert first["pairs"] == 2000
    assert first["cpu_seconds_per_1000_pairs"] == pytest.approx(float(str(first["cpu_seconds"])) / 2, abs=0.1)
    assert float(str(first["peak_mb"])) > 1
    assert {"cross_encoder": "r", "trees": 50}.items() <= second.items()
    assert "pairs" not in second


def test_a_run_that_went_on_took_all_of_its_stretches(tmp_path: Path) -> None:
    """Given a resumed run, the second part with the larger peak, and a truncated line."""
    log = tmp_path / JOURNAL
    told = [
        {"cpu_seconds": 10.0, "peak_mb": 900.0},
        {"cpu_seconds": 30.0, "peak_mb": 910.0, "cpu_seconds_per_1000_pairs": 3.0},
        {"cpu_seconds": 5.0, "peak_mb": 950.0},
        {"cpu_seconds": 12.5, "peak_mb": 940.0, "cpu_seconds_per_1000_pairs": 2.5},
    ]
    log.write_text("".join(json.dumps(line) + "\n" for line in told) + '{"cpu_sec')

    assert cost(log) == {"cpu_seconds": 42.5, "peak_mb": 950.0, "cpu_seconds_per_1000_pairs": 2.5}


def test_one_run_at_a_time_writes_into_a_folder(tmp_path: Path) -> None:
    """In this process several logs may; another process is refused until all are gone."""
    code = (
        f"from pathlib import Path; from tagbus.models.journal import Journal; Journal(Path({str(tmp_path)!r}) / 'x')"
    )

    def other() -> "subprocess.CompletedProcess[str]":
        return subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)

    logs = [Journal(tmp_path / JOURNAL), Journal(tmp_path / JOURNAL)]
    assert f"UserError: {tmp_path}: another run writes into it" in other().stderr
    logs.pop()
    assert other().returncode == 1
    logs.pop()
    assert other().returncode == 0


def test_nothing_trained_took_nothing(tmp_path: Path) -> None:
    assert cost(tmp_path / JOURNAL) == {}
