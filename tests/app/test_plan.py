"""`tagbus plan`: its figures equal the measured ones, and its arithmetic is correct."""

import importlib.util
import json
import math
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tagbus.stream.app.capacity.figures import ASSUMED, FIGURES
from tagbus.stream.app.capacity.plan import Load, cpu_ms, plan, sensitivity, value

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "bench" / "results"
MILLION = Load(1e6)


def result(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text())


def row(file: str, **keys: object) -> Any:
    (found,) = [one for one in result(file)["rows"] if all(one.get(key) == value for key, value in keys.items())]
    return found


def test_measured_figures_are_those_of_the_results() -> None:
    bus = row("bus", name="tagbus", guarantee="exactly_once", work_ms=0.0)
    light = row("models-speed", row="light")["cpu_ms_a_content"]
    release = json.loads((ROOT / "triton_repo/encoder/1/release.json").read_text())
    measured = {
        "encode_16": row("triton", name="in process", batch=64, tokens=16)["cpu_seconds_per_1000"],
        "encode_128": row("triton", name="in process", batch=64, tokens=128)["cpu_seconds_per_1000"],
        "neighbours": light["neighbours"],
        "tags": light["tags by similarity"],
        "rest": light["rest"],
        "bus": bus["cpu_seconds_per_10000"] / 10,
        "broker": bus["broker_cpu_seconds_per_10000"] / 10,
        "dimension": release["dimension"],
        "most_tokens": release["max_tokens"],
    }
    assert {name: FIGURES[name].value for name in measured} == pytest.approx(measured)
    # What is left says that it is assumed, or names a setting.
    left = {name for name, one in FIGURES.items() if not one.source.startswith(ASSUMED)} - measured.keys()
    assert left == {"edges"}


def test_every_figure_has_a_unit_and_a_source() -> None:
    assert all(one.unit and one.source for one in FIGURES.values())


def test_the_plan_is_the_arithmetic_of_its_figures() -> None:
    load = Load(86_400_000, peak=2, characters=576, tags=24_813, exemplars=328_152, cores=10)
    found = plan(load)
    assert (found.mean_rate, found.peak_rate) == (1000, 2000)
    assert cpu_ms(load) == pytest.approx(19.9 + 0.974 + 0.391 + 1.208 + 0.0151)
    assert found.rate_a_worker == pytest.approx(0.6 * 10_000 / cpu_ms(load))
    assert found.workers == math.ceil(2000 / found.rate_a_worker)
    assert found.partitions >= 2 * found.workers
    assert found.partitions % 12 == 0
    assert plan(replace(load, contents_a_day=1)).workers == 2


def test_more_of_anything_never_takes_less() -> None:
    base = plan(MILLION)
    for name, some in sensitivity(MILLION):
        half, double = some["half"], some["double"]
        for key in ("workers", "partitions", "memory_bytes", "cost_a_day", "broker_in"):
            assert getattr(half, key) <= getattr(base, key) <= getattr(double, key), (name, key)


def test_a_backlog_that_no_worker_is_left_for_is_never_caught_up() -> None:
    found = plan(MILLION)
    whole = found.workers * found.rate_a_worker / 0.6
    assert found.catch_up_seconds(1000, whole) == math.inf
    assert found.catch_up_seconds(1000, whole - 10) == pytest.approx(100)


def test_gpus_take_the_encoding_off_the_workers() -> None:
    load = replace(MILLION, contents_a_day=1e9)
    with_, without = plan(replace(load, gpu=True)), plan(load)
    assert with_.cpu_ms < without.cpu_ms
    assert with_.gpus > 0
    assert without.gpus == 0


@pytest.fixture(scope="module")
def scale() -> ModuleType:
    spec = importlib.util.spec_from_file_location("scale", ROOT / "bench" / "scale.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_simulated_day_has_the_loads_mean_and_peak(scale: ModuleType) -> None:
    load = Load(1e8, peak=2.5)
    found = scale.arrivals(load)
    found[scale.BURST_AT : scale.BURST_AT + scale.BURST_SECONDS] /= scale.BURST
    assert found.sum() == pytest.approx(1e8)
    assert found.max() * 86_400 / found.sum() == pytest.approx(2.5, rel=0.001)


def test_the_plans_time_to_catch_up_is_above_the_simulated_one_and_not_twice_as_long() -> None:
    for one in result("scale")["rows"]:
        burst = one["burst_with_the_plans_workers"]
        assert burst["seconds"] <= burst["plan_seconds"] <= 2 * burst["seconds"] + 1
        assert one["workers_most"] <= one["plan"]["partitions"]


def test_more_cores_or_a_gpu_gain_nothing_beyond_what_one_thread_runs() -> None:
    load = Load(1e9, characters=100)
    serial = 1000 * value("threads") / (value("rest") + value("bus")) * value("utilisation")
    assert plan(replace(load, cores=2)).rate_a_worker < serial
    assert plan(replace(load, cores=256)).rate_a_worker == pytest.approx(serial)
    assert plan(replace(load, gpu=True)).rate_a_worker == pytest.approx(serial)
