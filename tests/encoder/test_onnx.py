"""The encoder: any texts to unit vectors, independent of the rest of the batch."""

import asyncio
import threading
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tagbus.stream.encoder.base import Encoder, Vectors
from tagbus.stream.encoder.onnx import OnnxEncoder
from tagbus.stream.encoder.release import default_folder
from tagbus.stream.encoder.tokens import Batch

pytestmark = pytest.mark.asyncio(loop_scope="session")

# The batch decides how long the padding is, and with it the order of the sums.
SAME = 1e-5

LONG = "Soil carbon, nitrogen and the growth of Scots pine on drained peatlands. " * 30
TEXTS = [
    "Fishing rights in the Baltic Sea",
    "",
    "Tea",
    LONG,
    "A history of fishing and of the rights to it on the coasts of the Baltic Sea, 1809-1917, with maps",
    "Saunas",
]

# One text for each script of living languages that Unicode encodes widely.
SCRIPTS = {
    "latin": "The quick brown fox",
    "greek": "Η γρήγορη αλεπού",
    "cyrillic": "Быстрая лиса",
    "armenian": "Արագ աղվեսը",
    "hebrew": "השועל המהיר",
    "arabic": "الثعلب السريع",
    "syriac": "ܬܥܠܐ ܩܠܝܠܐ",
    "thaana": "އަވަސް ހިޔަޅު",
    "nko": "ߒߞߏ ߞߊ߲",
    "devanagari": "तेज़ लोमड़ी",
    "bengali": "দ্রুত শিয়াল",
    "gurmukhi": "ਤੇਜ਼ ਲੂੰਬੜੀ",
    "gujarati": "ઝડપી શિયાળ",
    "oriya": "ଦ୍ରୁତ ଶିଆଳ",
    "tamil": "விரைவான நரி",
    "telugu": "వేగవంతమైన నక్క",
    "kannada": "ವೇಗದ ನರಿ",
    "malayalam": "വേഗതയേറിയ കുറുക്കൻ",
    "sinhala": "වේගවත් හිවලා",
    "thai": "สุนัขจิ้งจอกที่รวดเร็ว",
    "lao": "ໝາຈອກໄວ",
    "tibetan": "ཝ་མོ་མགྱོགས་པོ",
    "myanmar": "မြန်ဆန်သော မြေခွေး",
    "georgian": "სწრაფი მელა",
    "hangul": "빠른 여우",
    "ethiopic": "ፈጣኑ ቀበሮ",
    "cherokee": "ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ",
    "canadian syllabics": "ᐃᓄᒃᑎᑐᑦ",
    "khmer": "កញ្ជ្រោងរហ័ស",
    "mongolian": "ᠮᠣᠩᠭᠣᠯ",
    "hiragana": "すばやいきつね",
    "katakana": "スバヤイキツネ",
    "bopomofo": "ㄎㄨㄞˋ ㄏㄨˊ",
    "han": "敏捷的狐狸",
    "yi": "ꆈꌠꉙ",
    "tifinagh": "ⵜⴰⵎⴰⵣⵉⵖⵜ",
    "javanese": "ꦗꦮ",
    "vai": "ꕙꔤ",
    "adlam": "𞤀𞤣𞤤𞤢𞤥",
    "gothic": "𐌲𐌿𐍄𐌹𐍃𐌺",
    "cuneiform": "𒀭𒂗𒆤",
    "hieroglyphs": "𓂀𓃠",
    "emoji": "🦊🏃‍♀️🇫🇮",
}


def lengths(vectors: Vectors) -> NDArray[np.float64]:
    norms: NDArray[np.float64] = np.linalg.norm(vectors.astype(np.float64), axis=1)
    return norms


async def test_texts_become_unit_vectors(encoder: OnnxEncoder) -> None:
    as_declared: Encoder = encoder
    vectors = await as_declared.encode(TEXTS)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(TEXTS), encoder.release.dimension)
    np.testing.assert_allclose(lengths(vectors), 1, atol=1e-5)


async def test_no_texts_become_no_vectors(encoder: OnnxEncoder) -> None:
    assert (await encoder.encode([])).shape == (0, encoder.release.dimension)


async def test_like_texts_lie_close(encoder: OnnxEncoder) -> None:
    fishing, history, sauna = await encoder.encode([TEXTS[0], TEXTS[4], TEXTS[5]])
    assert fishing @ history > 0.6 > 0.3 > fishing @ sauna


async def test_a_vector_does_not_depend_on_its_batch(encoder: OnnxEncoder) -> None:
    together = await encoder.encode(TEXTS)
    alone = np.concatenate([await encoder.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=SAME)


async def test_the_size_of_a_batch_does_not_matter(encoder: OnnxEncoder) -> None:
    other = OnnxEncoder(default_folder(), threads=1, batch=2)
    try:
        np.testing.assert_allclose(await other.encode(TEXTS), await encoder.encode(TEXTS), atol=SAME)
    finally:
        await other.close()


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(len(TEXTS))))
async def test_texts_in_another_order_give_the_vectors_in_that_order(encoder: OnnxEncoder, order: list[int]) -> None:
    vectors = await encoder.encode(TEXTS)
    permuted = await encoder.encode([TEXTS[index] for index in order])
    np.testing.assert_allclose(permuted, vectors[order], atol=SAME)


async def test_concurrent_calls_do_not_mix(encoder: OnnxEncoder) -> None:
    expected = await encoder.encode(TEXTS)
    calls = [TEXTS[start:] + TEXTS[:start] for start in range(len(TEXTS))]
    found = await asyncio.gather(*(encoder.encode(call) for call in calls))
    for start, vectors in enumerate(found):
        np.testing.assert_allclose(vectors, np.roll(expected, -start, axis=0), atol=SAME)


async def test_a_cancelled_call_leaves_the_encoder_usable(encoder: OnnxEncoder) -> None:
    call = asyncio.create_task(encoder.encode(TEXTS * 20))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (await encoder.encode(["Tea"])).shape == (1, encoder.release.dimension)


@pytest.mark.parametrize("text", SCRIPTS.values(), ids=SCRIPTS.keys())
async def test_every_script_has_a_vector(encoder: OnnxEncoder, text: str) -> None:
    np.testing.assert_allclose(lengths(await encoder.encode([text])), 1, atol=1e-5)


@pytest.mark.parametrize(
    "text",
    ["x" * 1_000_000, " " * 1_000_000, "\n\t" * 500_000, "a " * 500_000, "é" * 1_000_000, "漢" * 1_000_000],
    ids=["no space", "blank", "lines", "words", "accents", "han"],
)
async def test_a_megabyte_has_a_vector(encoder: OnnxEncoder, text: str) -> None:
    np.testing.assert_allclose(lengths(await encoder.encode([text])), 1, atol=1e-5)


async def test_prose_is_read_to_the_last_token_that_the_model_takes(encoder: OnnxEncoder) -> None:
    """Given prose far beyond the cut, when it is cut by hand where tokens end, then nothing changes."""
    whole, short = await encoder.encode(["word " * 100_000, "word " * 254])
    np.testing.assert_allclose(whole, short, atol=SAME)


async def test_nul_is_passed_over(encoder: OnnxEncoder) -> None:
    with_nul, without = await encoder.encode(["\0Fishing\0 rights\0", "Fishing rights"])
    np.testing.assert_allclose(with_nul, without, atol=SAME)


async def test_marks_of_the_tokenizer_are_text(encoder: OnnxEncoder) -> None:
    """A content that writes [SEP] or [PAD] does not reach the tokens of that name."""
    marked, plain = await encoder.encode(["[SEP]", "[ sep ]"])
    np.testing.assert_allclose(marked, plain, atol=SAME)


@pytest.mark.parametrize("text", ["\ud800", "Fishing \udfff rights", "x" * 900_000 + "\ud83d", "\ude00\ud83d"])
async def test_a_lone_surrogate_is_refused_with_its_place(encoder: OnnxEncoder, text: str) -> None:
    place = next(index for index, character in enumerate(text) if "\ud800" <= character <= "\udfff")
    with pytest.raises(ValueError, match=f"text number 1 has a lone surrogate at character {place}: ") as caught:
        await encoder.encode(["Tea", text])
    assert len(str(caught.value)) < 200


async def test_a_short_call_overtakes_the_runs_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a call of many texts on one thread, when one text comes, then it is encoded after the run in progress."""
    one = OnnxEncoder(default_folder(), threads=1, batch=1)
    begun, go, order, run = threading.Event(), threading.Event(), list[int](), one._run

    def watched(batch: Batch, vectors: Vectors) -> None:
        begun.set()
        assert go.wait(120)
        order.append(len(vectors))
        run(batch, vectors)

    monkeypatch.setattr(one, "_run", watched)
    many = asyncio.create_task(one.encode(TEXTS * 2))
    assert await asyncio.to_thread(begun.wait, 120)
    short = asyncio.create_task(one.encode(["Tea"]))
    deadline = time.monotonic() + 120
    while len(one._turns._waiting) < 2:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)
    go.set()
    await asyncio.gather(many, short)
    assert order[:2] == [2 * len(TEXTS), 1]
    await one.close()
