"""What a choice of trainings is made by: the size of a corpus, and the speed of this machine."""

import asyncio
import importlib.util
import time
from collections.abc import Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Final

import torch
from pydantic import BaseModel, ConfigDict

from tagbus.models.data.corpus import Corpus, tagged
from tagbus.models.data.texts import text_of
from tagbus.stream.cores import MOUNTED, control_groups
from tagbus.stream.encoder.onnx import OnnxEncoder
from tagbus.stream.encoder.release import default_folder

PROC: Final = Path("/proc")
# Texts that are encoded to learn how fast that is.
SAMPLE: Final = 64


class Facts(BaseModel):
    """Numbers of tags, of training and validation contents with a tag, and of test contents; texts that the packaged
    encoder takes in a CPU second; whether label trees can be trained here; whether the processor has fast
    products in bfloat16 (AVX512-BF16 or AMX), and how many GB of memory are free."""

    model_config = ConfigDict(frozen=True)

    tags: int
    contents: int
    validation: int
    test: int
    texts_a_second: float
    omikuji: bool
    bfloat16: bool
    free_gb: float


def facts(corpus: Corpus) -> Facts:
    """Count the corpus, and encode some of its texts."""
    some = [text_of(item) for item in islice(corpus.exemplars("train"), SAMPLE)]
    return Facts(
        tags=len(corpus.tags()),
        contents=sum(1 for _ in tagged(corpus, "train")),
        validation=sum(1 for _ in tagged(corpus, "val")),
        test=sum(1 for _ in corpus.exemplars("test")),
        texts_a_second=round(asyncio.run(_speed(some)), 1) if some else 0.0,
        omikuji=importlib.util.find_spec("omikuji") is not None,
        bfloat16=_bfloat16(),
        free_gb=round(free_memory() / 1e9, 1),
    )


def _bfloat16() -> bool:
    """Whether PyTorch finds AVX512-BF16 or AMX; older ones do not say."""
    known: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))


def free_memory(proc: Path = PROC, mounted: Path = MOUNTED) -> int:
    """Bytes that this process may still take: of the machine's memory, and of its control groups' (version 1 or 2). 0
    where the system does not say."""
    free = [_value(proc / "meminfo", "MemAvailable:") * 1024]
    for version, group in control_groups("memory", proc / "self" / "cgroup", mounted):
        limit, used = ("memory.max", "anon") if version == 2 else ("memory.limit_in_bytes", "total_rss")
        with suppress(OSError, ValueError):  # without a limit
            # Caches of files, which count too, make room.
            free.append(int((group / limit).read_text(encoding="utf-8")) - _value(group / "memory.stat", used))
    return max(0, min(free))


def _value(path: Path, name: str) -> int:
    """The number after a name at the start of a line; 0 without such a line or file."""
    with suppress(OSError):
        for line in path.read_text(encoding="utf-8").splitlines():
            if (words := line.split())[:1] == [name]:
                return int(words[1])
    return 0


async def _speed(texts: list[str]) -> float:
    encoder = OnnxEncoder(default_folder(), 1)
    try:
        await encoder.encode(texts[:8])
        # Of a core, as all estimates are: by the clock a busy machine encoded 4 texts a second, and 181 a minute later,
        # and what was left out for that would have gained 9 points of nDCG@5.
        started = time.process_time()
        await encoder.encode(texts)
        return len(texts) / max(1e-6, time.process_time() - started)
    finally:
        await encoder.close()
