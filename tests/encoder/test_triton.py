"""The encoder on Triton, without a server: how texts become requests, the cache, the golden texts.

Tests with a server are in tests/triton.
"""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagbus.stream.config import EncoderSettings
from tagbus.stream.encoder.balance import resolve
from tagbus.stream.encoder.cache import VectorCache
from tagbus.stream.encoder.client import Budget
from tagbus.stream.encoder.golden import COSINE, TEXTS, Golden, load_golden, make_golden
from tagbus.stream.encoder.onnx import OnnxEncoder
from tagbus.stream.encoder.open import open_encoder
from tagbus.stream.encoder.release import GOLDEN, TOKENIZER, default_folder, load_release
from tagbus.stream.encoder.tokens import BATCH_TOKENS, TextReader
from tagbus.stream.encoder.triton import LENGTHS, REQUEST_TEXTS, TritonEncoder, cut
from tagbus.stream.errors import DependencyDown, ReleaseMismatch, UserError

# The setting that addresses come from.
ADDRESS = "encoder.address"

RELEASE = load_release(default_folder())
SHIPPED = load_golden(default_folder(), RELEASE)


@given(sizes=st.lists(st.integers(2, 256), max_size=300))
def test_requests_hold_every_text_once_padded_to_the_least_length_that_fits(sizes: list[int]) -> None:
    requests = list(cut(sizes, LENGTHS))
    assert sorted(row for rows, _ in requests for row in rows) == list(range(len(sizes)))
    for rows, length in requests:
        assert length in LENGTHS
        shorter = max([0, *(one for one in LENGTHS if one < length)])
        assert all(shorter < sizes[row] <= length for row in rows)
        assert len(rows) <= REQUEST_TEXTS
        assert length * len(rows) <= BATCH_TOKENS
    assert len(requests) <= len(LENGTHS) + sum(sizes) / BATCH_TOKENS * 3


@given(answers=st.integers(0, 2000))
def test_a_twentieth_of_the_answers_may_be_repeated_and_one_to_begin_with(answers: int) -> None:
    budget, spent = Budget(), 0
    for _ in range(answers):
        spent += budget.spend()
        budget.earn()
    assert spent <= 1 + answers / 20


class TestCache:
    @given(texts=st.lists(st.sampled_from("abcdefgh"), max_size=60), most=st.integers(0, 5))
    def test_it_holds_the_texts_used_last_and_no_more(self, texts: list[str], most: int) -> None:
        cache = VectorCache(most)
        used: list[str] = []
        for text in texts:
            found = cache.get(text)
            assert (found is not None) == (text in used[max(0, len(used) - most) :])
            if found is None:
                cache.put(text, np.full(3, ord(text), np.float32))
            else:
                assert found[0] == ord(text)
            used = [*(one for one in used if one != text), text]
            assert len(cache) <= most

    def test_a_vector_is_kept_as_it_was(self) -> None:
        cache, vector = VectorCache(1), np.ones(3, np.float32)
        cache.put("Tea", vector)
        vector[:] = 0
        assert cache.get("Tea") is not None
        assert cache.get("Tea")[0] == 1  # type: ignore[index]


class TestGolden:
    async def test_the_shipped_vectors_are_those_of_the_shipped_model(self, encoder: OnnxEncoder) -> None:
        found = await encoder.encode(SHIPPED.texts)
        SHIPPED.check(found, "here")
        np.testing.assert_allclose(found, np.array(SHIPPED.vectors), atol=1e-5)

    def test_there_are_32_texts_of_every_length(self) -> None:
        lengths = [len(ids) for ids in TextReader(default_folder(), RELEASE).tokens(TEXTS)]
        assert len(set(TEXTS)) == 32
        assert SHIPPED.texts == TEXTS
        assert {length for _, length in cut(lengths, LENGTHS)} == set(LENGTHS)

    @pytest.mark.parametrize("row", [0, 17, 31])
    def test_a_vector_beyond_the_cosine_is_refused_with_place_and_text(self, row: int) -> None:
        found = np.array(SHIPPED.vectors, np.float32)
        aside = np.roll(found[row], 1)
        aside -= aside @ found[row] * found[row]
        aside /= np.linalg.norm(aside)
        turned = COSINE - 0.0005
        found[row] = turned * found[row] + np.sqrt(1 - turned**2) * aside
        with pytest.raises(ReleaseMismatch) as caught:
            SHIPPED.check(found, "10.0.0.7:8001")
        assert str(caught.value).startswith("10.0.0.7:8001 is not release minilm-l6-f16-1: golden text ")
        assert repr(TEXTS[row])[1:20] in str(caught.value)

    @pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
    def test_a_vector_that_is_none_is_refused(self, value: float) -> None:
        found = np.array(SHIPPED.vectors, np.float32)
        found[3] = value
        with pytest.raises(ReleaseMismatch, match="'sauna'"), np.errstate(invalid="ignore"):
            SHIPPED.check(found, "10.0.0.7:8001")

    def test_golden_texts_of_another_release_are_refused(self, folder: Path) -> None:
        (folder / GOLDEN).write_bytes(make_golden("another", np.array(SHIPPED.vectors, np.float32)))
        with pytest.raises(ReleaseMismatch, match=r"golden\.json holds vectors of release another, expected minilm"):
            load_golden(folder, RELEASE)

    def test_vectors_of_another_dimension_are_refused(self, folder: Path) -> None:
        (folder / GOLDEN).write_bytes(make_golden(RELEASE.name, np.array(SHIPPED.vectors, np.float32)[:, :8]))
        with pytest.raises(ReleaseMismatch, match="with 384 numbers"):
            load_golden(folder, RELEASE)

    @pytest.mark.parametrize("content", [None, b"{", b'{"release": "x", "texts": [], "vectors": []}'])
    def test_missing_or_broken_golden_texts_are_named(self, folder: Path, content: bytes | None) -> None:
        (folder / GOLDEN).unlink()
        if content is not None:
            (folder / GOLDEN).write_bytes(content)
        with pytest.raises(ReleaseMismatch, match=r"golden\.json: "):
            load_golden(folder, RELEASE)

    def test_they_survive_json(self) -> None:
        made = Golden.model_validate_json(make_golden(RELEASE.name, np.array(SHIPPED.vectors, np.float32)))
        assert made == SHIPPED


class TestAddress:
    async def test_each_address_of_a_name_is_a_server(self) -> None:
        assert await resolve("127.0.0.1:8001, localhost:8002,[::1]:8003", ADDRESS) == {
            "127.0.0.1:8001": "127.0.0.1",
            **dict.fromkeys(await resolve("localhost:8002", ADDRESS), "localhost"),
            "[::1]:8003": "::1",
        }

    @pytest.mark.parametrize("address", ["", "triton", "triton:", ":8001", "triton:http", "triton:99999", "a:1,,b:2"])
    async def test_another_form_is_refused(self, address: str) -> None:
        with pytest.raises(UserError, match=r"TAGBUS_ENCODER__ADDRESS=.*: expected host:port"):
            await resolve(address, ADDRESS)

    async def test_a_name_that_is_not_known_is_a_dependency_that_is_down(self) -> None:
        with pytest.raises(DependencyDown, match=r"TAGBUS_COMPONENTS__HEADS__ADDRESS: 'nowhere\.invalid'"):
            await resolve("nowhere.invalid:8001", "components.heads.address")


class TestOpen:
    async def test_the_process_is_the_default(self) -> None:
        encoder = await open_encoder(EncoderSettings(), default_folder())
        assert isinstance(encoder, OnnxEncoder)
        await encoder.close()

    async def test_without_its_client_it_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delitem(sys.modules, "tagbus.stream.encoder.triton")
        monkeypatch.delitem(sys.modules, "tagbus.stream.encoder.client")
        monkeypatch.delitem(sys.modules, "tagbus.stream.encoder.balance")
        monkeypatch.delitem(sys.modules, "tagbus.stream.encoder.endpoint")
        monkeypatch.setitem(sys.modules, "tritonclient.grpc", None)
        with pytest.raises(UserError, match=r"pip install 'tagbus\[triton\]'"):
            await open_encoder(EncoderSettings(kind="triton"), default_folder())

    async def test_a_changed_tokenizer_is_found_before_any_server_is_asked(self, folder: Path) -> None:
        (folder / TOKENIZER).write_bytes((folder / TOKENIZER).read_bytes() + b" ")
        with pytest.raises(ReleaseMismatch, match=TOKENIZER):
            await TritonEncoder.open(folder, EncoderSettings(kind="triton"))

    async def test_an_address_without_a_server_is_named(self) -> None:
        settings = EncoderSettings(kind="triton", address="127.0.0.1:1", deadline_seconds=1)
        with pytest.raises(
            DependencyDown, match=r"^TAGBUS_ENCODER__ADDRESS: no Triton at 127\.0\.0\.1:1: .*UNAVAILABLE"
        ):
            await TritonEncoder.open(default_folder(), settings)
