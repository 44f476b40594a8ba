"""A second release for rollout and rollback: the one in force under another name."""

import json
from pathlib import Path
from typing import Final

import numpy as np

from tagbus.stream.encoder.golden import load_golden, make_golden
from tagbus.stream.encoder.release import GOLDEN, MODEL, RELEASE, TOKENIZER, load_release, sha256

TWIN: Final = "tagbus-acceptance-twin"


def twin(folder: Path, to: Path, name: str = TWIN) -> Path:
    """`to`/`name` with the release of `folder` under that name; its files are linked."""
    release, made = load_release(folder), to / name
    made.mkdir(parents=True)
    for file in (MODEL, TOKENIZER):
        (made / file).symlink_to((folder / file).resolve())
    golden = make_golden(name, np.array(load_golden(folder, release).vectors, np.float32))
    (made / GOLDEN).write_bytes(golden)
    about = release.model_dump(by_alias=True) | {"name": name, "golden_sha256": sha256(golden)}
    (made / RELEASE).write_text(json.dumps(about), encoding="utf-8")
    return made
