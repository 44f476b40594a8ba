"""The figures that a plan is computed from, each with its source.

A measured figure names a file of bench/results and the value in it; a test keeps the two equal. The others are marked
as assumptions: measure them if they matter to you.
"""

from dataclasses import dataclass
from typing import Final

# Prefix of an assumption's `source`.
ASSUMED: Final = "assumption"


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure, its unit and where it comes from."""

    value: float
    unit: str
    source: str


FIGURES: Final = {
    "encode_16": Figure(2.26, "CPU ms a text of 16 tokens", "triton.json: in process, batch 64, cpu_seconds_per_1000"),
    "encode_128": Figure(
        19.9, "CPU ms a text of 128 tokens", "triton.json: in process, batch 64, 128 tokens, cpu_seconds_per_1000"
    ),
    "neighbours": Figure(0.974, "CPU ms a content", "models-speed.json: light, neighbours, 328,152 exemplars"),
    "tags": Figure(0.391, "CPU ms a content", "models-speed.json: light, tags by similarity, 24,813 tags"),
    "rest": Figure(1.208, "CPU ms a content", "models-speed.json: light, rest"),
    "bus": Figure(0.0151, "CPU ms a content", "bus.json: tagbus, exactly_once, no work, cpu_seconds_per_10000"),
    "threads": Figure(
        1,
        "thread at a time runs `rest` and `bus`",
        f"{ASSUMED}: the interpreter's lock; no worker was measured on more than two cores",
    ),
    "broker": Figure(0.0025, "CPU ms a content", "bus.json: tagbus, exactly_once, broker_cpu_seconds_per_10000"),
    "calls": Figure(1, "calls a content at the judge", f"{ASSUMED}: a decision API, which takes one"),
    "utilisation": Figure(
        0.6, "of a worker's cores at the peak", f"{ASSUMED}: the rest is for bursts and a lost worker"
    ),
    "characters_a_token": Figure(4.5, "characters", f"{ASSUMED}: English; other languages have fewer"),
    "most_tokens": Figure(256, "tokens of a text are read", "triton_repo/encoder/1/release.json: max_tokens"),
    "dimension": Figure(384, "numbers a vector", "triton_repo/encoder/1/release.json: dimension"),
    "edges": Figure(
        32, "edges of a point in the index, of 4 bytes each", "memory.hnsw_m = 16, both ways at the bottom"
    ),
    "payload": Figure(500, "bytes of a point besides its vector", f"{ASSUMED}: names, scopes, decisions"),
    "memory_overhead": Figure(1.5, "times what points take", f"{ASSUMED}: Qdrant's own rule of thumb for its index"),
    "points_a_shard": Figure(20e6, "points a shard at most", f"{ASSUMED}: builds of an index stay below an hour"),
    "content_overhead": Figure(300, "bytes of a content besides its text", f"{ASSUMED}: id, times, scopes, headers"),
    "result_bytes": Figure(2500, "bytes of a result", f"{ASSUMED}: ten tags with their evidence"),
    "compression": Figure(1.0, "of the bytes go over the wire", f"{ASSUMED}: none; zstd would take a third"),
    "gpu_tokens": Figure(
        640_000,
        "tokens a second and GPU",
        f"{ASSUMED}: a tenth of PyTorch's six layers on an H100; Triton was not measured",
    ),
    "tokens_in": Figure(1200, "tokens of a prompt", f"{ASSUMED}: a title, three exemplars, ten candidates"),
    "tokens_out": Figure(20, "tokens of an answer", f"{ASSUMED}: ten decisions"),
    "price_in": Figure(0.15, "USD a million tokens of prompts", f"{ASSUMED}: a small hosted model; budget.price_in"),
    "price_out": Figure(0.6, "USD a million tokens of answers", f"{ASSUMED}: as above; budget.price_out"),
    "start_seconds": Figure(
        60, "seconds from a new worker to its first commit", f"{ASSUMED}: the bound of the start test"
    ),
}
