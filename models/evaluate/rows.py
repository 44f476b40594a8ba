"""The rows of `tagbus evaluate-models`: name, description and settings, one per line."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

# Placeholder for the folder of trained models in settings.
MODELS: Final = "{models}"

LITERAL: Final = {"TAGBUS_COMPONENTS__LITERAL__ENABLED": "true"}
HEADS: Final = {"TAGBUS_COMPONENTS__HEADS__FOLDER": f"{MODELS}/heads"}
FUSED: Final = LITERAL | HEADS
# No instances: contents are compared with tag texts only.
NAMED: Final = {"TAGBUS_RECALL__C2C2T": "false"}
HNSW: Final = {"TAGBUS_MEMORY__KIND": "hnsw"}
TREES: Final = {"TAGBUS_COMPONENTS__LABELTREE__FOLDER": f"{MODELS}/labeltree"}
# The encoder trained by `train biencoder --recipe top-layers`.
SECOND_ENCODER: Final = {"TAGBUS_COMPONENTS__SECOND_ENCODER__FOLDER": f"{MODELS}/encoder"}
FULL: Final = SECOND_ENCODER | TREES | FUSED
# int8 encoders, HNSW neighbours, and components trained with them.
EIGHT: Final = {"TAGBUS_ENCODER__FOLDER": f"{MODELS}/int8/encoder"}
LIGHT: Final = EIGHT | HNSW | LITERAL | {"TAGBUS_COMPONENTS__HEADS__FOLDER": f"{MODELS}/int8/heads"}
# Encoders of six and three layers, trained whole on a GPU, in int8, and their tag vectors.
WHOLE: Final = {
    "TAGBUS_ENCODER__FOLDER": f"{MODELS}/whole/l6",
    "TAGBUS_COMPONENTS__TAGVECTORS__FOLDER": f"{MODELS}/whole/l6",
}
SMALL: Final = dict.fromkeys(WHOLE, f"{MODELS}/whole/l3")
# Neither instances nor tag texts: components only.
VECTORS: Final = NAMED | {"TAGBUS_RECALL__C2T": "false"}
BESIDE: Final = {"TAGBUS_COMPONENTS__SECOND_ENCODER__FOLDER": f"{MODELS}/int8/second_encoder"}
# An encoder of two layers, trained whole on a CPU, in int8; HNSW over the first 192 numbers of its vectors.
TWO: Final = {
    "TAGBUS_ENCODER__FOLDER": f"{MODELS}/fast/encoder",
    "TAGBUS_MEMORY__KIND": "hnsw",
    "TAGBUS_MEMORY__INDEX_DIMENSIONS": "192",
    "TAGBUS_MEMORY__INDEX_VISITED": "64",
}
FAST: Final = (
    TWO
    | LITERAL
    | {"TAGBUS_COMPONENTS__TAGVECTORS__FOLDER": f"{MODELS}/fast/encoder", "TAGBUS_RECALL__C2T_TRAINED": "false"}
)
# The same with six layers, alone or as the second encoder.
SIX: Final = {
    "TAGBUS_ENCODER__FOLDER": f"{MODELS}/six/encoder",
    "TAGBUS_COMPONENTS__TAGVECTORS__FOLDER": f"{MODELS}/six/encoder",
    "TAGBUS_RECALL__C2T_TRAINED": "false",
}
BESIDE_SIX: Final = {"TAGBUS_COMPONENTS__SECOND_ENCODER__FOLDER": f"{MODELS}/six/encoder"}


@dataclass(frozen=True, slots=True)
class Row:
    """One system. `settings` are the environment variables that configure it."""

    name: str
    what: str
    settings: Mapping[str, str] = field(default_factory=dict)


def _ranked(ranker: str) -> dict[str, str]:
    """With a ranker trained for the same components."""
    return {"TAGBUS_COMPONENTS__RANKER__FOLDER": f"{MODELS}/{ranker}"}


def _encoder(folder: str) -> dict[str, str]:
    """With this encoder for the whole memory."""
    return {"TAGBUS_ENCODER__FOLDER": f"{MODELS}/{folder}"}


# Predictions of `python -m tagbus.models.baselines NAME`.
BASELINES: Final = (
    Row("tfidf-neighbours", "TF-IDF, votes of the 100 nearest titles"),
    Row("parabel", "Omikuji Parabel on TF-IDF"),
    Row("bonsai", "Omikuji Bonsai on TF-IDF"),
    Row("xr-linear", "PECOS XR-Linear on TF-IDF"),
    Row("annif-bonsai", "Annif 1.4 with its Omikuji backend, Bonsai"),
)

# End to end through the tagger.
OURS: Final = (
    Row("untrained", "packaged encoder, memory of all titles and tags"),
    Row("untrained-literal", "with literal names, fused", LITERAL),
    Row("heads-only", "classifier heads and graph recall, fused", HEADS),
    Row("fusion", "heads, literal names and graph recall, fused: without ranker", FUSED),
    Row("ranker", "heads, literal names and graph recall, ranked", FUSED | _ranked("ranker")),
    Row("ranker-val", "the ranker trained on the validation contents alone", FUSED | _ranked("ranker-val")),
    Row("no-tags", "untrained, instances only", {"TAGBUS_RECALL__C2T": "false"}),
    Row("lambda-0.2", "untrained, lambda 0.2", {"TAGBUS_RECALL__LAMBDA": "0.2"}),
    Row("lambda-0.5", "untrained, lambda 0.5", {"TAGBUS_RECALL__LAMBDA": "0.5"}),
    Row("lambda-0.8", "untrained, lambda 0.8", {"TAGBUS_RECALL__LAMBDA": "0.8"}),
    Row("untrained-hnsw", "untrained, neighbours by HNSW", HNSW),
    Row("untrained-int8", "untrained, the encoder in int8", EIGHT),
    Row("encoder", "trained encoder alone", _encoder("encoder")),
    Row("no-instances", "untrained, tags only", NAMED),
    Row("short", "an encoder trained on 10,000 titles for an epoch, tags only", NAMED | _encoder("ablations/short")),
    Row("no-masking", "short, false negatives of a batch not masked", NAMED | _encoder("ablations/no-masking")),
    Row("no-hard-negatives", "short, neither mined nor clustered", NAMED | _encoder("ablations/no-hard-negatives")),
    Row("no-second-encoder", "full without the second encoder", FUSED | TREES | _ranked("full-no-second-encoder")),
    Row(
        "full",
        "heads, label trees, literal names, graph recall, the trained encoder as second encoder, ranked",
        FULL | _ranked("full"),
    ),
    Row("no-heads", "full without heads", SECOND_ENCODER | TREES | LITERAL | _ranked("full-no-heads")),
    Row("no-labeltree", "full without label trees", SECOND_ENCODER | FUSED | _ranked("full-no-labeltree")),
    Row("no-literal", "full without literal names", SECOND_ENCODER | TREES | HEADS | _ranked("full-no-literal")),
    Row("no-ranker", "full, all ranks fused instead", FULL),
    Row(
        "full-cross-encoder",
        "full, with a cross-encoder's score of the best 24",
        FULL | {"TAGBUS_COMPONENTS__CROSS_ENCODER__FOLDER": f"{MODELS}/cross_encoder"} | _ranked("full-cross-encoder"),
    ),
    Row(
        "tagvectors",
        "encoder of six layers, trained whole on a GPU, in int8: its tag vectors alone, no contents in memory",
        WHOLE | VECTORS,
    ),
    Row("tagvectors-small", "tagvectors with three layers", SMALL | VECTORS),
    Row(
        "tagvectors-ranked",
        "tagvectors with tag texts and literal names, ranked; no contents in memory",
        WHOLE | NAMED | LITERAL | _ranked("whole/ranked"),
    ),
    Row(
        "tagvectors-small-ranked",
        "tagvectors-ranked with three layers",
        SMALL | NAMED | LITERAL | _ranked("whole/small-ranked"),
    ),
    Row("light", "in int8 with HNSW: heads, literal names, graph recall, ranked", LIGHT | _ranked("int8/light")),
    Row(
        "light-small",
        "light, heads of 50,000 of the 204,253 terms: 31 MB instead of 91",
        LIGHT | {"TAGBUS_COMPONENTS__HEADS__FOLDER": f"{MODELS}/int8/heads-small"} | _ranked("int8/light-small"),
    ),
    Row("light-trees", "light with label trees", LIGHT | TREES | _ranked("int8/light-trees")),
    Row("two-layers", "encoder of two layers, trained whole on a CPU, in int8 with HNSW over 192 numbers: alone", TWO),
    Row(
        "fast",
        "two-layers, its tag vectors and literal names, ranked with `named` and `terms`: 20 candidates, 20 neighbours",
        FAST | _ranked("fast/ranker"),
    ),
    Row("full-int8", "light with label trees and the second encoder", LIGHT | TREES | BESIDE | _ranked("int8/full")),
    Row(
        "six-layers",
        "encoder of six layers, trained whole on a CPU, in int8 with HNSW: its tag vectors and literal names, ranked "
        "with `named` and `terms`",
        SIX | HNSW | LITERAL | _ranked("six/ranker"),
    ),
    Row("six-trees", "six-layers with label trees", SIX | HNSW | LITERAL | TREES | _ranked("six/trees")),
    Row(
        "full-six",
        "full-int8 with this encoder of six layers as the second encoder, ranked with `named` and `terms`",
        LIGHT | TREES | BESIDE_SIX | _ranked("six/full"),
    ),
)

# For new tags: trained on a corpus without them.
NEW: Final = (
    Row("untrained", "packaged encoder"),
    Row("untrained-literal", "with literal names, fused", LITERAL),
    Row(
        "full",
        "heads, label trees, literal names, graph recall, the trained encoder as second encoder, ranked",
        LITERAL
        | SECOND_ENCODER
        | {
            "TAGBUS_COMPONENTS__HEADS__FOLDER": f"{MODELS}/new/heads",
            "TAGBUS_COMPONENTS__LABELTREE__FOLDER": f"{MODELS}/new/labeltree",
        }
        | _ranked("new/full"),
    ),
    Row("fast", "encoder of two layers, its tag vectors and literal names, ranked", FAST | _ranked("new/fast")),
    Row(
        "six-layers",
        "encoder of six layers, its tag vectors and literal names, ranked",
        SIX | HNSW | LITERAL | _ranked("new/six"),
    ),
    Row(
        "tagvectors-ranked",
        "tag vectors of the encoder trained whole, tag texts and literal names, ranked; no contents in memory",
        WHOLE
        | {"TAGBUS_COMPONENTS__TAGVECTORS__FOLDER": f"{MODELS}/new/whole"}
        | NAMED
        | LITERAL
        | _ranked("new/tagvectors"),
    ),
    Row(
        "ranker",
        "heads, literal names and graph recall, ranked",
        LITERAL | {"TAGBUS_COMPONENTS__HEADS__FOLDER": f"{MODELS}/new/heads"} | _ranked("new/ranker"),
    ),
)
