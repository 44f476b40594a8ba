"""A toy encoder and a toy corpus: small enough to train in a second, with a known best answer."""

import json
import shutil
from pathlib import Path

import torch
from transformers import BertConfig, BertModel

from tagbus.models.export.bert import weights_folder

# Each topic has its own words; contents consist of the words of their topics, and no tag name is among them.
WORDS = {
    "beverages": ["tea", "coffee", "milk", "juice", "water"],
    "animals": ["dog", "cat", "horse", "cow", "sheep"],
    "vehicles": ["car", "bus", "train", "boat", "bicycle"],
    "buildings": ["house", "church", "castle", "bridge", "tower"],
    "music": ["song", "guitar", "piano", "choir", "opera"],
    "sports": ["football", "tennis", "hockey", "swimming", "skiing"],
}


def toy_encoder(folder: Path, width: int = 32) -> Path:
    """A BERT with two layers and random weights, in the format of the packaged one."""
    torch.manual_seed(0)
    shutil.copytree(weights_folder(), folder, ignore=shutil.ignore_patterns("model.safetensors"))
    known = {"hidden_size": width, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = BertConfig(vocab_size=30522, max_position_embeddings=64, layer_norm_eps=1e-12, **known)
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    pooling = folder / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps({**json.loads(pooling.read_text()), "word_embedding_dimension": width}))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 64, "do_lower_case": false}')
    return folder


def toy_corpus(folder: Path) -> Path:
    """Contents of three words of one topic, or of two topics, with the topics as tags, as JSON lines."""
    folder.mkdir(parents=True, exist_ok=True)
    topics = list(WORDS)
    write(folder / "tags.jsonl", [{"id": topic, "name": topic} for topic in topics])
    rows = []
    for number in range(160):
        one, other = topics[number % 6], topics[number // 6 % 6]
        words = [WORDS[one][number % 5], WORDS[other][number // 5 % 5], WORDS[one][number // 30 % 5]]
        rows.append({"id": f"c{number}", "text": " ".join(words), "accepted": sorted({one, other})})
    write(folder / "train.jsonl", rows[:130])
    write(folder / "val.jsonl", rows[130:])
    return folder


def write(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def journal(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
