"""Hidden states of the frozen lower layers for every text, cached on disk in bfloat16 and read in every epoch.

A folder holds states.bin (bfloat16 [tokens of all texts, width], 768 bytes per token at width 384), starts.npy (int64
[texts + 1]: the first token of each text), tags.npy and pairs.npy (the right tags), and key.json, which identifies the
inputs and is written last.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tagbus.models.data.texts import tokenizer
from tagbus.models.data.truth import Truth
from tagbus.models.export.bert import Bert
from tagbus.stream.app.places.files import chunks

KEY: Final = "key.json"
# Texts are sorted by length within a chunk; 4,096 titles are 60 MB of states.
CHUNK: Final = 4096
BATCH: Final = 128

# A text and its right tag numbers.
Row = tuple[str, Sequence[int]]


@dataclass(frozen=True, slots=True)
class HiddenStates:
    """Hidden states of texts, and the right tags of each."""

    states: NDArray[np.int16]
    starts: NDArray[np.int64]
    truth: Truth

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each text, int64 [n]."""
        return np.diff(self.starts)

    def batch(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """States bfloat16 [len(rows), longest, width] and mask float32 [len(rows), longest] of a batch."""
        lengths = self.lengths[rows]
        states = np.zeros((len(rows), int(lengths.max()), self.states.shape[1]), np.int16)
        for place, row in enumerate(rows):
            states[place, : lengths[place]] = self.states[self.starts[row] : self.starts[row + 1]]
        mask = np.arange(states.shape[1]) < lengths[:, None]
        return torch.from_numpy(states).view(torch.bfloat16), torch.from_numpy(mask.astype(np.float32))


class StateReader:
    """Tokenises texts as the service does, and runs the lower layers on them."""

    def __init__(self, folder: Path, bert: Bert, layers: int, tokens: int) -> None:
        """`layers`: frozen layers; `tokens`: maximum length of a text."""
        self._bert = bert.eval()
        self._layers = layers
        self._tokenizer = tokenizer(folder, tokens)

    @torch.inference_mode()
    def read(self, texts: Sequence[str]) -> list[NDArray[np.int16]]:
        """The states of each text, bfloat16 bits as int16 [tokens, width]."""
        ids = [torch.tensor(one.ids) for one in self._tokenizer.encode_batch_fast(list(texts))]
        order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
        found: dict[int, NDArray[np.int16]] = {}
        device = next(self._bert.buffers()).device
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            padded = torch.nn.utils.rnn.pad_sequence([ids[row] for row in rows], batch_first=True).to(device)
            lengths = torch.tensor([len(ids[row]) for row in rows])
            mask = (torch.arange(padded.shape[1]) < lengths[:, None]).float().to(device)
            with torch.autocast(device.type, torch.bfloat16):
                states = self._bert.run(self._bert.embed(padded), mask, 0, self._layers)
            bits = states.bfloat16().cpu().view(torch.int16).numpy()
            found.update({row: bits[place, : len(ids[row])] for place, row in enumerate(rows)})
        return [found[row] for row in range(len(ids))]


def cached(
    folder: Path, key: Mapping[str, str | int], rows: Iterable[Row], reader: StateReader, advance: Callable[[int], None]
) -> HiddenStates:
    """The states of these texts, read from the folder if it has them under this key, else computed into it."""
    expected = json.dumps(dict(key), sort_keys=True)
    if not (folder / KEY).exists() or (folder / KEY).read_text(encoding="utf-8") != expected:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / KEY).unlink(missing_ok=True)
        _write(folder, rows, reader, advance)
        (folder / KEY).write_text(expected, encoding="utf-8")
    starts = np.load(folder / "starts.npy", allow_pickle=False)
    if len(starts) == 1:
        # An empty file cannot be mapped.
        return HiddenStates(np.zeros((0, 0), np.int16), starts, Truth.of(()))
    width = (folder / "states.bin").stat().st_size // 2 // int(starts[-1])
    states = np.memmap(folder / "states.bin", np.int16, "r", shape=(int(starts[-1]), width))
    pairs, tags = (np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("pairs", "tags"))
    return HiddenStates(states, starts, Truth(pairs, tags))


def _write(folder: Path, rows: Iterable[Row], reader: StateReader, advance: Callable[[int], None]) -> None:
    lengths: list[int] = []

    def right() -> Iterator[Sequence[int]]:
        with (folder / "states.bin").open("wb") as file:
            for chunk in chunks(rows, CHUNK):
                for states in reader.read([text for text, _ in chunk]):
                    file.write(states.tobytes())
                    lengths.append(len(states))
                advance(len(chunk))
                yield from (tags for _, tags in chunk)

    truth = Truth.of(right())
    np.save(folder / "starts.npy", np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
    np.save(folder / "pairs.npy", truth.starts)
    np.save(folder / "tags.npy", truth.tags)
