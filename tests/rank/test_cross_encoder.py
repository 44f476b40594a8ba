"""The cross-encoder as the ranker uses it: the order of texts, the effect of batches, and refusals."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagbus.stream.encoder.release import MODEL, TOKENIZER
from tagbus.stream.encoder.tokens import BATCH_TOKENS
from tagbus.stream.encoder.triton import cut as requests
from tagbus.stream.errors import ReleaseMismatch, Untaggable, UserError
from tagbus.stream.rank.cross_encoder.model import MANIFEST, OnnxCrossEncoder
from tagbus.stream.rank.cross_encoder.pairs import Wording, cut, tag_text
from tagbus.stream.rank.cross_encoder.triton import LENGTHS, REQUEST
from tests.cross_encoders import write_cross_encoder

TOKENS = 32
TEXTS = st.lists(st.sampled_from(["fire", "soil", "zebra", "[SEP]", "森林", ""]), max_size=40).map(" ".join)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("cross_encoder")
    write_cross_encoder(place, TOKENS)
    return place


@pytest.fixture(scope="module")
def cross_encoder(folder: Path) -> Iterator[OnnxCrossEncoder]:
    made = OnnxCrossEncoder.load(folder, 2)
    yield made
    asyncio.run(made.close())


def test_it_reads_a_tag_and_a_content_and_tells_which_is_which(cross_encoder: OnnxCrossEncoder) -> None:
    pairs = [
        ("fire soil", "Fire, and more of it"),
        ("fire", "fire soil"),
        ("zebra", "fire"),
        ("", "fire"),
        ("fire", ""),
    ]

    assert cross_encoder.score(pairs).tolist() == [0.5, 1.0, 0.0, 0.0, 0.0]


def test_nothing_asked_is_nothing_answered(cross_encoder: OnnxCrossEncoder) -> None:
    assert cross_encoder.score([]).shape == (0,)


@settings(max_examples=30)
@given(pairs=st.lists(st.tuples(TEXTS, TEXTS), max_size=12))
def test_a_pair_gets_the_same_among_others_as_alone(
    cross_encoder: OnnxCrossEncoder, pairs: list[tuple[str, str]]
) -> None:
    together = cross_encoder.score(pairs)

    assert together.tolist() == [cross_encoder.score([pair]).item() for pair in pairs]


def test_many_pairs_are_read_in_parts(cross_encoder: OnnxCrossEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [("fire", "fire" if number % 3 else "soil " * (number % 40)) for number in range(500)]
    whole = cross_encoder.score(pairs)
    monkeypatch.setattr("tagbus.stream.rank.cross_encoder.model.CHUNK", 7)

    assert cross_encoder.score(pairs).tolist() == whole.tolist() == [float(number % 3 > 0) for number in range(500)]


def test_what_looks_like_the_end_of_a_segment_is_characters(cross_encoder: OnnxCrossEncoder) -> None:
    """Given "[SEP]" in a tag, its bracket, word and bracket are looked for in the content."""
    assert cross_encoder.score([("[SEP]", "a [SEP] b"), ("[SEP]", "sep")]).tolist() == [1.0, pytest.approx(1 / 3)]


def test_what_does_not_fit_is_cut_from_the_longer(cross_encoder: OnnxCrossEncoder) -> None:
    long = "soil " * 100_000
    pairs = [("fire", f"fire {long}"), ("fire", f"{long} fire"), (f"fire {long}", "fire soil"), (long, long)]

    assert cross_encoder.score(pairs).tolist() == [1.0, 0.0, 1.0, 1.0]


def test_runs_are_of_like_length_and_bounded() -> None:
    lengths = np.random.default_rng(0).integers(3, 512, 300).tolist()

    runs = list(cut(lengths))

    assert sorted(row for rows in runs for row in rows) == list(range(300))
    assert all(lengths[rows[0]] * len(rows) <= BATCH_TOKENS for rows in runs)
    ordered = [lengths[row] for rows in runs for row in rows]
    assert ordered == sorted(ordered, reverse=True)


@given(sizes=st.lists(st.integers(3, 96), max_size=300))
def test_requests_to_a_server_hold_every_pair_once_padded_to_the_least_length_that_fits(sizes: list[int]) -> None:
    found = list(requests(sizes, LENGTHS, REQUEST))

    assert sorted(row for rows, _ in found for row in rows) == list(range(len(sizes)))
    for rows, length in found:
        shorter = max([0, *(one for one in LENGTHS if one < length)])
        assert all(shorter < sizes[row] <= length for row in rows)
        assert len(rows) <= REQUEST.rows
        assert length * len(rows) <= REQUEST.tokens


def test_a_score_that_is_not_finite_is_the_fault_of_its_pair(cross_encoder: OnnxCrossEncoder) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cross_encoder, "_run", lambda tokens: np.full(len(tokens), np.nan, np.float32))
        with pytest.raises(Untaggable, match=r"'Soil' is wrong.*beside the tag 'soil' \(its score is not finite\)"):
            cross_encoder.score([("soil", "Soil")])


def test_a_pair_is_the_text_of_that_tag_and_of_that_content() -> None:
    payloads = {"a": {"name": "bees", "aliases": ["apiculture", "honey"]}, "b": {"name": "law", "aliases": []}}
    wording = Wording(["first", "second"], ["b", "x", "a"], payloads)  # type: ignore[arg-type]

    found = wording.pairs(np.array([0, 1, 1]), np.array([2, 2, 0]))

    assert found == [("bees\napiculture, honey", "first"), ("bees\napiculture, honey", "second"), ("law", "second")]
    assert tag_text(" law ", []) == "law"


def change(folder: Path, **fields: object) -> None:
    path = folder / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize(
    ("break_", "error", "words"),
    [
        (lambda folder: (folder / MANIFEST).unlink(), UserError, MANIFEST),
        (lambda folder: (folder / MODEL).unlink(), UserError, MODEL),
        (lambda folder: (folder / TOKENIZER).unlink(), UserError, "tagbus train cross-encoder"),
        (lambda folder: change(folder, max_tokens=100_000), UserError, "max_tokens: 100000"),
        (lambda folder: change(folder, tag_template="{name}"), UserError, "tag_template: '{name}'"),
        (lambda folder: change(folder, name="../x"), UserError, "name"),
        (lambda folder: change(folder, model_sha256="0" * 64), ReleaseMismatch, MODEL),
        (lambda folder: change(folder, tokenizer_sha256="0" * 64), ReleaseMismatch, TOKENIZER),
    ],
)
def test_a_broken_folder_is_a_clear_error(
    tmp_path: Path, break_: Callable[[Path], object], error: type[Exception], words: str
) -> None:
    write_cross_encoder(tmp_path)
    break_(tmp_path)

    with pytest.raises(error, match=words):
        OnnxCrossEncoder.load(tmp_path)
