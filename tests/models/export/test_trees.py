"""Trees as ONNX: the same scores as LightGBM's, for missing values and for values at a threshold."""

import lightgbm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tagbus.models.export.trees import to_onnx
from tagbus.stream.onnx_runtime import InferenceSession
from tagbus.stream.rank.trees import INPUT

COLUMNS = 4
Floats = NDArray[np.float32]


def features(seed: int, rows: int = 600) -> Floats:
    """Columns: with NaN, without, of few values, and mostly 0."""
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(rows, COLUMNS)).astype(np.float32)
    table[rng.random(rows) < 0.3, 0] = np.nan
    table[:, 2] = np.round(table[:, 2] * 2) / 7
    table[rng.random(rows) < 0.7, 3] = 0
    return table


def trained(table: Floats, objective: str, seed: int) -> lightgbm.Booster:
    rng = np.random.default_rng(seed)
    right = (np.nan_to_num(table) @ np.array([1, -1, 2, 1]) + rng.normal(size=len(table)) > 0).astype(np.int64)
    group = [len(table) // 10] * 10 if objective == "lambdarank" else None
    parameters = {"objective": objective, "num_leaves": 7, "min_data_in_leaf": 5, "verbose": -1, "num_threads": 1}
    return lightgbm.train(parameters, lightgbm.Dataset(table, right, group=group), 8)


def run(model: bytes, table: Floats) -> Floats:
    session = InferenceSession(model, providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {INPUT: table})
    return np.asarray(scores[:, 0], np.float32)


ORDER, CHANCE = (trained(features(0), objective, 1) for objective in ("lambdarank", "binary"))
BOTH = to_onnx([(ORDER, 0.5), (CHANCE, 0.25)], COLUMNS)


def expected(table: Floats) -> NDArray[np.float64]:
    return np.asarray(0.5 * ORDER.predict(table, raw_score=True) + 0.25 * CHANCE.predict(table, raw_score=True))


values = st.one_of(
    st.floats(-3, 3, width=32), st.just(float("nan")), st.just(0.0), st.integers(-9, 9).map(lambda n: n / 7)
)


@settings(max_examples=30)
@given(rows=st.lists(st.lists(values, min_size=COLUMNS, max_size=COLUMNS), min_size=1, max_size=20))
def test_it_scores_as_lightgbm_does_with_nan_in_any_column(rows: list[list[float]]) -> None:
    table = np.array(rows, np.float32)

    assert run(BOTH, table) == pytest.approx(expected(table), abs=1e-5)


def test_a_number_next_to_a_threshold_goes_the_same_way() -> None:
    splits = [
        (node["split_feature"], node["threshold"])
        for booster in (ORDER, CHANCE)
        for tree in booster.dump_model()["tree_info"]
        for node in nodes(tree["tree_structure"])
    ]
    table = features(5, 3 * len(splits))
    for number, (column, threshold) in enumerate(splits):
        near = np.float32(threshold)
        table[3 * number : 3 * number + 3, column] = (
            np.nextafter(near, -np.float32(np.inf)),
            near,
            np.nextafter(near, np.float32(np.inf)),
        )

    assert run(BOTH, table) == pytest.approx(expected(table), abs=1e-5)


@pytest.mark.filterwarnings("error")
def test_what_is_missing_is_parted_from_all_the_rest() -> None:
    table = features(7)
    right = np.isnan(table[:, 0]).astype(np.int64)
    parameters = {"objective": "binary", "min_data_in_leaf": 5, "verbose": -1, "num_threads": 1}
    booster = lightgbm.train(parameters, lightgbm.Dataset(table, right), 3)
    largest = max(
        node["threshold"] for tree in booster.dump_model()["tree_info"] for node in nodes(tree["tree_structure"])
    )
    table[:2, 0] = np.finfo(np.float32).max, np.finfo(np.float32).min

    found = run(to_onnx([(booster, 1.0)], COLUMNS), table)

    assert largest > float(np.finfo(np.float32).max)
    assert found == pytest.approx(booster.predict(table, raw_score=True), abs=1e-5)


def nodes(node: dict) -> list[dict]:  # type: ignore[type-arg]
    if "left_child" not in node:
        return []
    return [node, *nodes(node["left_child"]), *nodes(node["right_child"])]


def test_a_tree_that_learnt_nothing_is_a_constant() -> None:
    table = np.zeros((50, COLUMNS), np.float32)
    parameters = {"objective": "binary", "verbose": -1, "num_threads": 1}
    booster = lightgbm.train(parameters, lightgbm.Dataset(table, np.arange(50) % 2), 2)

    assert run(to_onnx([(booster, 1.0)], COLUMNS), table) == pytest.approx(booster.predict(table, raw_score=True))
