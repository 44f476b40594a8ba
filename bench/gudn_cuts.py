"""What bench/gudn.py trains on: a synthetic set with a tiny BERT of random weights, and two cuts of YSO titles."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor

from tagbus.models.data.corpus import open_corpus
from tagbus.models.export.bert import weights_folder
from tagbus.models.train.whole.model import Trained, chosen, save
from tagbus.stream.contract.events import Exemplar, Tag

# The tiny BERT.
LAYERS = 2
WIDTH = 64
HEADS = 4
INNER = 128
PLACES = 16
# The synthetic set: a tag has a name of two words that other tags have too, a text 12 words. Each word of a name is
# in the texts of its tag with a probability of 0.7; a tenth of the other words are of names, the rest say nothing.
TAGS = 40
NAME_WORDS = 30
NOISE_WORDS = 100
LENGTH = 12
SAID = 0.7
STRAY = 0.1
SIZES = {"train": 600, "val": 200, "test": 1_000}

# EURLex-4K's shape.
SHORT = {"train": 15_500, "test": 3_800, "val": 1_000}
SHORT_TAGS = 4_000
SHORT_WORDS = 32
LONG_WORDS = 100


@dataclass(frozen=True, slots=True)
class Cut:
    """Training and test contents in a folder, the BERT that is fine-tuned, and what a row must say of both."""

    folder: Path
    base: Path
    about: dict[str, object]


def synthetic(folder: Path, seed: int) -> Cut:
    """Another set and another BERT with each seed."""
    random = np.random.default_rng(seed)
    names = [" ".join(f"n{word}" for word in pair) for pair in _pairs(random)]
    folder.mkdir(parents=True)
    _write(folder / "tags.jsonl", ({"id": f"t{number}", "name": name} for number, name in enumerate(names)))
    # Long-tailed: tag k is drawn with a probability of 1 / (k + 5).
    share = 1 / (np.arange(TAGS) + 5)
    for split, size in SIZES.items():
        rows = (_content(random, names, share / share.sum()) for _ in range(size))
        _write(folder / f"{split}.jsonl", ({"id": f"{split}{number}", **row} for number, row in enumerate(rows)))
    base = _tiny(folder / "base", seed)
    encoder = f"BERT of {LAYERS} layers, width {WIDTH}, random weights: not pretrained"
    data = f"synthetic: {TAGS} tags, texts of {LENGTH} words, another set with each seed"
    return Cut(folder, base, {"data": data, "contents": SIZES, "encoder": encoder})


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
    return Cut(folder, folder / "base", {"data": f"{source.name}: {what[kind]}", "contents": sizes, "encoder": encoder})


def _pairs(random: np.random.Generator) -> list[tuple[int, int]]:
    """Different pairs of words, so that no word says a tag alone."""
    found: dict[tuple[int, int], None] = {}
    while len(found) < TAGS:
        one, other = sorted(random.choice(NAME_WORDS, 2, replace=False).tolist())
        found[one, other] = None
    return list(found)


def _content(random: np.random.Generator, names: Sequence[str], share: np.ndarray) -> dict[str, object]:
    tags = random.choice(TAGS, int(random.integers(1, 4)), replace=False, p=share).tolist()
    words = [word for tag in tags for word in names[tag].split() if random.random() < SAID]
    while len(words) < LENGTH:
        stray = random.random() < STRAY
        words.append(f"n{random.integers(NAME_WORDS)}" if stray else f"w{random.integers(NOISE_WORDS)}")
    return {"text": " ".join(random.permutation(words)), "accepted": [f"t{tag}" for tag in tags]}


def _tiny(folder: Path, seed: int) -> Path:
    """A BERT in Hugging Face's format: normal weights of 0.02, as BERT starts."""
    folder.mkdir()
    words = [*(f"n{word}" for word in range(NAME_WORDS)), *(f"w{word}" for word in range(NOISE_WORDS))]
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=ends)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"model_type": "bert", "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "hidden_size": WIDTH}
    config |= {"layer_norm_eps": 1e-12, "max_position_embeddings": PLACES}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(_weights(len(vocabulary), torch.Generator().manual_seed(seed)), folder / "model.safetensors")
    return folder


def _weights(words: int, random: torch.Generator) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}

    def dense(name: str, of: int, to: int) -> None:
        found[f"{name}.weight"] = 0.02 * torch.randn(to, of, generator=random)
        found[f"{name}.bias"] = torch.zeros(to)

    def norm(name: str) -> None:
        found[f"{name}.LayerNorm.weight"], found[f"{name}.LayerNorm.bias"] = torch.ones(WIDTH), torch.zeros(WIDTH)

    for name, count in (("word", words), ("position", PLACES), ("token_type", 2)):
        found[f"embeddings.{name}_embeddings.weight"] = 0.02 * torch.randn(count, WIDTH, generator=random)
    norm("embeddings")
    for layer in range(LAYERS):
        of = f"encoder.layer.{layer}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            dense(f"{of}.attention.{part}", WIDTH, WIDTH)
        norm(f"{of}.attention.output")
        dense(f"{of}.intermediate.dense", WIDTH, INNER)
        dense(f"{of}.output.dense", INNER, WIDTH)
        norm(f"{of}.output")
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
