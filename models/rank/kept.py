"""The ranker's training set of a fold in a file, so that an interrupted run does not collect it again."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Final

import numpy as np

from tagbus.models.rank.candidates import Candidates, TrainingSet
from tagbus.stream.rank.trees import Over

FILE: Final = "candidates.npz"
PARTS: Final = ("plain", "masked")


def save(folder: Path, training_set: TrainingSet, over: Over) -> None:
    """Write both into `folder`, atomically."""
    arrays = {
        f"{part}_{field.name}": getattr(getattr(training_set, part), field.name)
        for part in PARTS
        for field in fields(Candidates)
    }
    lengths = np.array([len(tags) for tags in training_set.truth], np.int64)
    arrays |= {
        "truth": np.concatenate([np.zeros(0, np.int64), *training_set.truth]),
        "lengths": lengths,
        "propensity": training_set.propensity,
        "over": np.array(
            json.dumps({"release": over.release, "lists": over.lists, "components": dict(over.components)})
        ),
    }
    part = folder / f".{FILE}.part"
    with part.open("wb") as file:
        np.savez(file, **arrays)
    part.replace(folder / FILE)


def load(folder: Path) -> tuple[TrainingSet, Over] | None:
    """What an earlier run left in `folder`; None where it left nothing."""
    if not (folder / FILE).exists():
        return None
    with np.load(folder / FILE, allow_pickle=False) as found:
        plain, masked = (Candidates(*(found[f"{part}_{field.name}"] for field in fields(Candidates))) for part in PARTS)
        truth = np.split(found["truth"], np.cumsum(found["lengths"])[:-1])
        about = json.loads(str(found["over"]))
        training_set = TrainingSet(plain, masked, truth, found["propensity"])
    return training_set, Over(about["release"], tuple(about["lists"]), about["components"])
