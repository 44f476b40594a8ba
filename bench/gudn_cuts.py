"""What bench/gudn.py trains on: a synthetic set of real words for a small BERT, and two cuts of YSO titles."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor

from tagbus.models.data.corpus import open_corpus
from tagbus.models.export.bert import WEIGHTS, weights_folder
from tagbus.models.train.whole.model import CONFIG, LAYER, Trained, chosen, save
from tagbus.stream.contract.events import Exemplar, Tag
from tagbus.stream.encoder.release import TOKENIZER

# The small BERT of the synthetic set: the lower layers of MiniLM's six, with the words of the set alone.
LAYERS = 2
# The synthetic set: a tag has a name of two words that other tags have too. Each word of a name is in the texts of its
# tag with a probability of 0.7; a tenth of the other words are of names, the rest say nothing.
TAGS = 40
NAME_WORDS = 30
NOISE_WORDS = 200
LENGTH = 8
SAID = 0.7
STRAY = 0.1
SIZES = {"train": 100, "val": 100, "test": 1_000}
# The words are drawn from the commonest of MiniLM's vocabulary, without the shortest: those say little.
COMMONEST = 4_000
SHORTEST = 5

# EURLex-4K's shape.
SHORT = {"train": 15_500, "test": 3_800, "val": 1_000}
SHORT_TAGS = 4_000
SHORT_WORDS = 32
LONG_WORDS = 100

Weights = Literal["pretrained", "random"]
WORDS = "embeddings.word_embeddings.weight"
ENDS = ("[CLS]", "[SEP]")


@dataclass(frozen=True, slots=True)
class Cut:
    """Training and test contents in a folder, the BERT that is fine-tuned, its layers, and what a row says of both."""

    folder: Path
    base: Path
    layers: int
    about: dict[str, object]


def synthetic(folder: Path, seed: int, weights: Weights) -> Cut:
    """Another set with each seed, and a BERT with MiniLM's weights or with random ones."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    words = random.permutation(_words())[: NAME_WORDS + NOISE_WORDS].tolist()
    pairs = _pairs(random)
    names = ({"id": f"t{number}", "name": f"{words[one]} {words[other]}"} for number, (one, other) in enumerate(pairs))
    _write(folder / "tags.jsonl", names)
    # Long-tailed: tag k is drawn with a probability of 1 / (k + 5).
    share = 1 / (np.arange(TAGS) + 5)
    for split, size in SIZES.items():
        rows = (_content(random, words, pairs, share / share.sum()) for _ in range(size))
        _write(folder / f"{split}.jsonl", ({"id": f"{split}{number}", **row} for number, row in enumerate(rows)))
    base = _small(folder / "base", words, weights, seed)
    form = f"the lower {LAYERS} layers of all-MiniLM-L6-v2's six"
    encoder = form if weights == "pretrained" else f"{form}, with random weights: not pretrained"
    data = f"synthetic: {TAGS} tags, texts of {LENGTH} words, another set with each seed"
    return Cut(folder, base, LAYERS, {"data": data, "contents": SIZES, "encoder": encoder})


def yso(kind: str, source: Path, folder: Path, layers: int, most: int | None) -> Cut:
    """The short or the long cut, with a MiniLM of so many of its six layers."""
    folder.mkdir(parents=True)
    corpus = open_corpus(str(source))
    used = Counter(tag for item in corpus.exemplars("train") for tag in item.accepted)
    known = {tag for tag, _ in used.most_common(SHORT_TAGS)} if kind == "short" else set(used)
    sizes: dict[str, int] = {}
    for split in ("train", "val", "test"):
        limit = SHORT[split] if kind == "short" else None
        items = list(islice(_fitting(corpus.exemplars(split), kind, known), limit))
        items = items[:most] if split == "train" else items
        sizes[split] = len(items)
        _write(folder / f"{split}.jsonl", map(_line, items))
    _write(folder / "tags.jsonl", ({"id": tag.id, "name": tag.name} for tag in _of(corpus.tags(), known)))
    base, bert = weights_folder(), 6
    kept = chosen(bert, layers)
    save(Trained(base, kept, 384, 1), ["none"], base, kept, folder / "base")
    encoder = f"all-MiniLM-L6-v2, layers {', '.join(map(str, kept))} of its six"
    what = {
        "short": f"at most {SHORT_WORDS} words, {SHORT_TAGS} most frequent tags",
        "long": f"over {LONG_WORDS} words",
    }
    return Cut(
        folder, folder / "base", layers, {"data": f"{source.name}: {what[kind]}", "contents": sizes, "encoder": encoder}
    )


def _words() -> list[str]:
    """Common English words that MiniLM reads as one token each, commonest first."""
    numbers = _vocabulary()
    known = sorted(numbers, key=lambda word: numbers[word])
    return [word for word in known if word.isascii() and word.isalpha() and len(word) >= SHORTEST][:COMMONEST]


def _vocabulary() -> dict[str, int]:
    return Tokenizer.from_file(str(weights_folder() / TOKENIZER)).get_vocab()


def _pairs(random: np.random.Generator) -> list[tuple[int, int]]:
    """Different pairs of words, so that no word says a tag alone."""
    found: dict[tuple[int, int], None] = {}
    while len(found) < TAGS:
        one, other = sorted(random.choice(NAME_WORDS, 2, replace=False).tolist())
        found[one, other] = None
    return list(found)


def _content(
    random: np.random.Generator, words: Sequence[str], pairs: Sequence[tuple[int, int]], share: np.ndarray
) -> dict[str, object]:
    tags = random.choice(TAGS, int(random.integers(1, 4)), replace=False, p=share).tolist()
    said = [word for tag in tags for word in pairs[tag] if random.random() < SAID]
    while len(said) < LENGTH:
        stray = random.random() < STRAY
        said.append(int(random.integers(NAME_WORDS) if stray else NAME_WORDS + random.integers(NOISE_WORDS)))
    text = " ".join(words[word] for word in random.permutation(said))
    return {"text": text, "accepted": [f"t{tag}" for tag in tags]}


def _small(folder: Path, words: Sequence[str], weights: Weights, seed: int) -> Path:
    """A BERT in Hugging Face's format that knows these words alone."""
    folder.mkdir()
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", *ENDS, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [(name, vocabulary[name]) for name in ENDS]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=ends)
    tokenizer.save(str(folder / TOKENIZER))
    config = json.loads((weights_folder() / CONFIG).read_text(encoding="utf-8"))
    (folder / CONFIG).write_text(json.dumps({**config, "num_hidden_layers": LAYERS}), encoding="utf-8")
    known = _vocabulary()
    save_file(_weights([known[word] for word in vocabulary], weights, seed), folder / WEIGHTS)
    return folder


def _weights(rows: Sequence[int], weights: Weights, seed: int) -> dict[str, Tensor]:
    """MiniLM's, of these words and the lower layers; random ones are normal, deviation 0.02, as BERT starts."""
    random = torch.Generator().manual_seed(seed)
    found = {}
    for name, weight in sorted(load_file(weights_folder() / WEIGHTS).items()):
        if not weight.is_floating_point() or (name.startswith(LAYER) and int(name.split(".")[2]) >= LAYERS):
            continue
        own = weight[rows] if name == WORDS else weight
        if weights == "random" and "LayerNorm" not in name:
            own = torch.zeros_like(own) if name.endswith("bias") else 0.02 * torch.randn(own.shape, generator=random)
        elif weights == "random":
            own = torch.ones_like(own) if name.endswith("weight") else torch.zeros_like(own)
        found[name] = own.contiguous()
    return found


def _fitting(items: Iterable[Exemplar], kind: str, known: set[str]) -> Iterator[Exemplar]:
    for item in items:
        words = len(item.text.split()) + len(item.title.split())
        right = tuple(tag for tag in item.accepted if tag in known)
        if right and (words <= SHORT_WORDS if kind == "short" else words > LONG_WORDS):
            yield item.model_copy(update={"accepted": right})


def _of(tags: Iterable[Tag], known: set[str]) -> Iterator[Tag]:
    return (tag for tag in tags if tag.id in known)


def _line(item: Exemplar) -> dict[str, object]:
    return {"id": item.id, "title": item.title, "text": item.text, "accepted": list(item.accepted)}


def _write(path: Path, rows: Iterable[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
