"""Training connects to nothing and writes only to the given folders, whatever its libraries do by default."""

import json
from pathlib import Path

from tests.models.toy import toy_corpus
from tests.outside.place import Place, run


def test_no_training_writes_elsewhere_or_calls_home(tmp_path: Path) -> None:
    corpus = toy_corpus(tmp_path / "corpus")
    some = (corpus / "val.jsonl").read_text().splitlines()[:20]
    (corpus / "test.jsonl").write_text("".join(json.dumps(json.loads(line)) + "\n" for line in some))
    place = Place(tmp_path)

    codes = run(
        place,
        ["train", "labeltree", corpus, "--out", "trees", "--trees", "1", "--words", "1"],
        ["train", "heads", corpus, "--out", "heads", "--epochs", "1", "--words", "1"],
        ["evaluate-models", corpus, "--rows", "untrained", "--models", ".", "--cache", "cache", "--out", "models.json"],
    )

    assert codes == {"train labeltree": 0, "train heads": 0, "evaluate-models": 0}, place.told()
    place.check()
