"""GUDN beside its own BERT: what each guide and each form of label reinforcement is worth.

    python -P bench/gudn.py synthetic             words of tag names occur in the texts; the lower layers of MiniLM
    python -P bench/gudn.py untrained             the same with random weights
    python -P bench/gudn.py short --from FOLDER   15,500 titles and 4,000 tags of a collection, as EURLex-4K has
    python -P bench/gudn.py long --from FOLDER    its texts of over 100 words

Rows as tables 6 and 7 of the paper (arXiv 2201.11582): BERT alone, with the link loss, with the feature loss, with
both; labels in order, in random order, once, and as a vector a tag; the variant of the public code; Bonsai. Each row is
trained with each of --seeds. The epoch is that of the best nDCG@5 on validation contents; the test contents are looked
at once.

Joins bench/results/gudn.json, with 95% intervals by bootstrap over the test contents, those of gains over BERT paired.
bench/results/raw/gudn.jsonl has a line a run: how many right tags each test content has among its first one and five.
A run that is there already is not repeated; --minutes begins no other after that time.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray

# -P and the root, not this folder: bench/triton.py would stand before the package that torch imports.
sys.path.append(str(Path(__file__).resolve().parent.parent))

from bench.gudn_cuts import Cut, Weights, synthetic, yso
from tagbus.models.baselines.base import Titles
from tagbus.models.baselines.compare import BASELINES
from tagbus.models.data.corpus import Corpus, open_corpus
from tagbus.models.data.splits import Split
from tagbus.models.data.texts import text_of
from tagbus.models.data.truth import Truth, numbers_of
from tagbus.models.gudn.plan import Plan
from tagbus.models.gudn.run import GOAL, ranked, rows_of, train
from tagbus.models.journal import JOURNAL, cost, lines
from tagbus.models.train.top_layers import K
from tagbus.stream import quality
from tagbus.stream.intervals import of_mean

RESULTS = Path(__file__).parent / "results" / "gudn.json"
BERT, LINK, FEATURE, GUIDED = "bert", "bert+link", "bert+feature", "both"
# What the paper's tables say of its own data, worst first.
ORDER = (BERT, LINK, FEATURE, GUIDED)
# Which guides a row has not, and what else it changes.
ROWS: Mapping[str, Mapping[str, object]] = {
    BERT: {"feature": 0.0, "link": 0.0},
    LINK: {"feature": 0.0},
    FEATURE: {"link": 0.0},
    GUIDED: {},
    "both, disordered": {"labels": "disordered"},
    "both, raw": {"labels": "raw"},
    "both, multi-hot": {"labels": "multi-hot"},
}
CODE: Mapping[str, Mapping[str, object]] = {
    f"code: {name}": {**row, "variant": "code", "labels": "raw"} for name, row in ROWS.items() if name in ORDER
}
# No network: label trees on the same texts, by the package omikuji.
BONSAI = "bonsai"
SYNTHETIC: Mapping[str, Weights] = {"synthetic": "pretrained", "untrained": "random"}
# Set on validation contents of a synthetic set with another seed. The feature loss is a mean over the width and the
# others are sums over the tags, so that with a weight of 1 it is next to nothing.
SMALL: Mapping[str, object] = {
    "tokens": 10,
    "epochs": 30,
    "batch": 16,
    "rate": 5e-4,
    "head_rate": 5e-3,
    "feature": 30.0,
}
# Set on the validation contents of the short cut, with one seed: P@1 after six epochs of BERT alone 16.4, with the link
# loss 18.9, with both and a feature weight of 1 17.6, of 3 17.9 (nDCG@5 20.7 and 20.6).
REAL: Mapping[str, object] = {"rate": 1e-4, "head_rate": 2e-3, "precision": "bfloat16"}
# The same for all rows of a cut.
BUDGET: Mapping[str, Mapping[str, object]] = {
    **dict.fromkeys(SYNTHETIC, SMALL),
    "short": {"tokens": 24, "epochs": 6, "batch": 64, **REAL},
    "long": {"tokens": 256, "epochs": 6, "batch": 32, **REAL},
}
EVERY = (*ROWS, *CODE, BONSAI)
Hits = NDArray[np.int64]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cut", choices=tuple(BUDGET))
    parser.add_argument("--from", dest="source", type=Path, help="labels.tsv, train.tsv.xz, val.tsv, test.tsv")
    parser.add_argument("--rows", nargs="*", choices=EVERY, default=EVERY)
    parser.add_argument("--seeds", type=int, nargs="*", default=(0, 1, 2))
    parser.add_argument("--most", type=int, help="training contents at most, which the row says")
    parser.add_argument("--minutes", type=float, default=600)
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


def cut_of(asked: argparse.Namespace, folder: Path, seed: int) -> Cut:
    if asked.cut in SYNTHETIC:
        return synthetic(folder, seed, SYNTHETIC[asked.cut])
    return yso(asked.cut, asked.source, folder, 2, asked.most)


def measured(cut: Cut, kind: str, row: str, seed: int, folder: Path) -> dict[str, object]:
    """Train a row with a seed, and look at the test contents once."""
    corpus = open_corpus(str(cut.folder))
    found, about = bonsai(corpus) if row == BONSAI else guided(corpus, cut, kind, row, seed, folder)
    numbers = {tag.id: number for number, tag in enumerate(corpus.tags())}
    known, held = (truth_of(corpus, split, numbers) for split in ("train", "test"))
    truth, counts = held.lists(), np.bincount(known.tags, minlength=len(numbers)).astype(np.int64)
    figures = quality.measure(found, truth, quality.propensities(counts, len(known)))
    right = quality.hits(found, truth)
    return {
        "cut": kind,
        "row": row,
        "seed": seed,
        "about": cut.about,
        **about,
        "test": {"p_at_3": figures.p_at_3, "ndcg_at_5": figures.ndcg_at_5, "r_at_10": figures.r_at_10},
        "tags": len(numbers),
        # One digit a test content.
        "first": "".join(str(int(one)) for one in right[:, 0]),
        "five": "".join(str(int(one)) for one in right[:, :5].sum(axis=1)),
    }


def truth_of(corpus: Corpus, split: Split, numbers: Mapping[str, int]) -> Truth:
    return Truth.of(right for item in corpus.exemplars(split) if (right := numbers_of(item, numbers)))


def guided(
    corpus: Corpus, cut: Cut, kind: str, row: str, seed: int, folder: Path
) -> tuple[quality.Ranked, dict[str, object]]:
    """The best tags of the test contents by a network, and what is said of its training."""
    changes = {**ROWS, **CODE}[row]
    plan = Plan.model_validate(
        {"corpus": kind, "base": str(cut.base), **BUDGET[kind], "seed": seed}
        | layers_read(str(changes.get("variant", "paper")), cut.layers)
        | dict(changes)
    )
    network, texts = train(corpus, plan, folder)
    evaluated = [line for line in lines(folder / JOURNAL) if GOAL in line]
    best = max(range(len(evaluated)), key=lambda place: float(str(evaluated[place][GOAL])))
    return ranked(network, rows_of(corpus, "test", plan, texts.ids)), {
        "plan": {name: getattr(plan, name) for name in ("variant", "labels", "feature", "link")},
        "epoch": best + 1,
        "val_ndcg_at_5": evaluated[best][GOAL],
        "cpu_seconds": cost(folder / JOURNAL).get("cpu_seconds"),
    }


def bonsai(corpus: Corpus) -> tuple[quality.Ranked, dict[str, object]]:
    """The same by label trees, which have no epochs; their clusters differ from run to run."""
    numbers = {tag.id: number for number, tag in enumerate(corpus.tags())}
    texts = [text_of(item) for item in corpus.exemplars("train")]
    trees = BASELINES[BONSAI](Path())
    started = time.process_time()
    trees.train(Titles(texts, truth_of(corpus, "train", numbers), len(numbers)))
    seconds = time.process_time() - started
    found = trees.predict([text_of(item) for item in corpus.exemplars("test")], K)
    return quality.Ranked(*found), {"plan": {}, "epoch": None, "cpu_seconds": round(seconds, 1)}


def layers_read(variant: str, layers: int) -> dict[str, object]:
    """Of an encoder's layers the share that the variant reads of six."""
    text, label = 4 * layers // 6, -(-5 * layers // 6)
    return {"text_layers": text if variant == "paper" else label, "label_layers": label}


def digits(text: object) -> Hits:
    return np.array(list(str(text)), np.int64)


def joined(runs: Sequence[Mapping[str, object]], field: str, scale: float) -> NDArray[np.float64]:
    """The figure of each test content, in percent: those of all seeds after each other where each has a set of its own,
    their mean where all have the same."""
    found = [digits(run[field]) for run in sorted(runs, key=lambda run: int(str(run["seed"])))]
    own = runs[0]["cut"] in SYNTHETIC
    return scale * (np.concatenate(found) if own else np.mean(found, axis=0))


def with_interval(values: NDArray[np.float64]) -> list[float]:
    low, high = of_mean(values)
    return [round(float(value), 2) for value in (values.mean(), low, high)]


def summary(kind: str, runs: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """The rows of a cut, and whether the order of the paper holds."""
    by_row = {row: [run for run in runs if run["row"] == row] for row in EVERY}
    rows = []
    for row, own in by_row.items():
        if not own:
            continue
        seeds = sorted(int(str(run["seed"])) for run in own)
        line: dict[str, object] = {"row": row, **dict(own[0]["plan"]), "seeds": seeds}  # type: ignore[call-overload]
        line |= {"p_at_1": with_interval(joined(own, "first", 100)), "p_at_5": with_interval(joined(own, "five", 20))}
        for name in ("p_at_3", "ndcg_at_5", "r_at_10"):
            line[name] = round(float(np.mean([float(dict(run["test"])[name]) for run in own])), 2)  # type: ignore[call-overload]
        line |= {"epochs_kept": [run["epoch"] for run in own], "cpu_seconds": [run["cpu_seconds"] for run in own]}
        alone = "code: bert" if row.startswith("code") else BERT
        beside = [run for run in by_row[alone] if run["seed"] in seeds]
        if row != alone and len(beside) == len(own):
            for name, field, scale in (("p_at_1", "first", 100), ("p_at_5", "five", 20)):
                gain = joined(own, field, scale) - joined(beside, field, scale)
                line[f"{name}_over_bert"] = with_interval(gain)
        rows.append(line)
    return {**dict(runs[0]["about"]), "budget": BUDGET[kind], "rows": rows, "order": orders(by_row)}  # type: ignore[call-overload]


def orders(by_row: Mapping[str, Sequence[Mapping[str, object]]]) -> dict[str, object]:
    """By variant: the rows by P@1, worst first, those of each seed, the steps of the paper's order with intervals, and
    whether all go up over all seeds, in each seed, and with their intervals."""
    found: dict[str, object] = {}
    for variant, prefix in (("paper", ""), ("code", "code: ")):
        first = {row: joined(by_row[prefix + row], "first", 100) for row in ORDER if by_row[prefix + row]}
        if len(first) < len(ORDER) or len({len(one) for one in first.values()}) > 1:
            continue
        seeds = sorted({int(str(run["seed"])) for run in by_row[prefix + BERT]})
        alone = [{row: first_of(by_row[prefix + row], seed) for row in ORDER} for seed in seeds]
        pairs = list(pairwise(ORDER))
        steps = {f"{one} < {other}": with_interval(first[other] - first[one]) for one, other in pairs}
        found[variant] = {
            "by_p_at_1": sorted(ORDER, key=lambda row: float(first[row].mean())),
            "seeds": [{row: round(100 * own[row], 2) for row in sorted(ORDER, key=own.__getitem__)} for own in alone],
            "steps": steps,
            "holds_in_each_seed": all(own[one] < own[other] for own in alone for one, other in pairs),
            "holds": all(step[0] > 0 for step in steps.values()),
            "holds_with_intervals": all(step[1] > 0 for step in steps.values()),
        }
    return found


def first_of(runs: Sequence[Mapping[str, object]], seed: int) -> float:
    """P@1 of a row in one seed."""
    return float(next(digits(run["first"]).mean() for run in runs if run["seed"] == seed))


def main() -> None:
    asked = arguments()
    if asked.cut not in SYNTHETIC and (asked.source is None or not asked.source.is_dir()):
        print(f"{asked.cut}: skipped, --from names no folder")
        return
    torch.set_num_threads(1)
    raw = asked.out.parent / "raw" / f"{asked.out.stem}.jsonl"
    raw.parent.mkdir(parents=True, exist_ok=True)
    ends = time.monotonic() + 60 * asked.minutes
    for seed in asked.seeds:
        with TemporaryDirectory() as spare:
            cut: Cut | None = None
            for row in asked.rows:
                done = {(run["cut"], run["row"], run["seed"]) for run in lines(raw)}
                if (asked.cut, row, seed) in done or time.monotonic() > ends:
                    continue
                cut = cut or cut_of(asked, Path(spare) / "cut", seed)
                run = measured(cut, asked.cut, row, seed, Path(spare) / row.replace(" ", "-"))
                with raw.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(run, separators=(",", ":")) + "\n")
                print(seed, row, run["epoch"], run["cpu_seconds"], digits(run["first"]).mean(), flush=True)
    report = json.loads(asked.out.read_text(encoding="utf-8")) if asked.out.exists() else {}
    own = [run for run in lines(raw) if run["cut"] == asked.cut]
    if own:
        report[asked.cut] = summary(asked.cut, own)
        asked.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
