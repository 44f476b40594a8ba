"""A language model of two narrow layers with SmolLM2's tokenizer, as GGUF; and decisions of people to train it on."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader, GGUFValueType, GGUFWriter

from tagbus.stream.contract.codec import encode
from tagbus.stream.contract.decision import Decision
from tagbus.stream.contract.events import Tag
from tagbus.stream.errors import UserError
from tagbus.stream.local.judges import smollm2

WIDTH, HEADS, INNER, LAYERS = 64, 2, 128, 2
# Of SmolLM2's tokens: those before the first merge, and how many merges are kept. All of them take 10 s to read.
PLAIN, MERGES = 252, 1000
TAGS = [Tag(id="animals", name="Animals", description="dogs and cats"), Tag(id="cars", name="Cars")]
TITLES = {"animals": "Dogs, cats and horses", "cars": "Engines, wheels and brakes"}
START = datetime(2026, 11, 1, tzinfo=UTC)


def tiny_gguf(folder: Path) -> Path:
    """The file; skips the test where SmolLM2 is not installed."""
    try:
        reader = GGUFReader(smollm2())
    except UserError as error:
        pytest.skip(str(error))
    file = folder / "tiny.gguf"
    writer = GGUFWriter(file, "llama")
    vocabulary = _vocabulary(reader, writer)
    writer.add_block_count(LAYERS)
    writer.add_context_length(2048)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(vocabulary)
    random = np.random.default_rng(0)

    def matrix(rows: int, columns: int) -> np.ndarray:
        return random.normal(scale=columns**-0.5, size=(rows, columns)).astype(np.float32)

    writer.add_tensor("token_embd.weight", matrix(vocabulary, WIDTH))
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    for layer in range(LAYERS):
        place = f"blk.{layer}"
        writer.add_tensor(f"{place}.attn_norm.weight", np.ones(WIDTH, np.float32))
        writer.add_tensor(f"{place}.ffn_norm.weight", np.ones(WIDTH, np.float32))
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            writer.add_tensor(f"{place}.{name}.weight", matrix(WIDTH, WIDTH))
        for name in ("ffn_gate", "ffn_up"):
            writer.add_tensor(f"{place}.{name}.weight", matrix(INNER, WIDTH))
        writer.add_tensor(f"{place}.ffn_down.weight", matrix(WIDTH, INNER))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _vocabulary(reader: GGUFReader, writer: GGUFWriter) -> int:
    """Write a part of the tokenizer in which yes and no are a token each; how many tokens it has."""
    for name, field in reader.fields.items():
        if name.startswith("tokenizer.") and field.types[0] != GGUFValueType.ARRAY:
            writer.add_key_value(name, field.contents(), field.types[0])
    fields = {name: reader.fields[f"tokenizer.ggml.{name}"] for name in ("tokens", "token_type", "merges")}
    tokens = [fields["tokens"].contents(place) for place in range(PLAIN)]
    kinds = [fields["token_type"].contents(place) for place in range(PLAIN)]
    merges = [fields["merges"].contents(place) for place in range(MERGES)]
    merges += [one for one in ("Y es", "N o") if one not in merges]
    for merge in merges:
        tokens.append(merge.replace(" ", ""))
        kinds.append(1)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    return len(tokens)


def decision(number: int, **given: object) -> Decision:
    """A content about one tag, which is accepted, and the other one rejected."""
    about, other = ("animals", "cars") if number % 2 else ("cars", "animals")
    fields = {
        "id": f"c{number}", "decision": f"d{number}", "who": "ann", "time": START + timedelta(minutes=number),
        "mode": "review", "accepted": (about,), "rejected": (other,), "title": f"{TITLES[about]} {number}",
    }  # fmt: skip
    return Decision.model_validate({**fields, **given})


def feedback_file(folder: Path, count: int) -> Path:
    file = folder / "feedback.jsonl"
    file.write_bytes(b"".join(encode(decision(number)) + b"\n" for number in range(count)))
    return file


def tags_file(folder: Path) -> Path:
    file = folder / "tags.jsonl"
    file.write_bytes(b"".join(encode(tag) + b"\n" for tag in TAGS))
    return file
