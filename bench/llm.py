"""The worth of a judge of known quality beside the tagger on real titles, and the savings of the cascade.

    python bench/llm.py ../shared/data/yso-titles [--memory 20000] [--titles 2000] [--out bench/results/llm.json]

The candidates and their scores are the tagger's: recall from a memory of all tags and a random sample of
train.tsv[.xz], untrained. The judge is scripted: its log odds of right and of wrong tags are normally distributed, so
far apart that its AUC is as stated, and its stated odds are twice too extreme. It is fitted on titles of val.tsv and
measured on titles of test.tsv. So the figures show what the stage does with a judge of that quality, and nothing about
any model.
"""

import argparse
import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tagbus.stream import logistic, quality
from tagbus.stream.app import assemble, console, filling
from tagbus.stream.app.data.data_folder import DataFolder
from tagbus.stream.app.evaluation import content_of, tag_all
from tagbus.stream.config import Settings
from tagbus.stream.contract.events import Exemplar, TaggedContent
from tagbus.stream.contract.release import Fingerprint
from tagbus.stream.llm.worth import cascade, fusion
from tagbus.stream.llm.worth.fusion import WINDOW
from tagbus.stream.logistic import Flags, Floats, logit

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.llm.known_quality import Ranked, ScriptedJudge, auc

PLACES = 10
TARGET = 0.95
DRAWS = 1000
SAMPLE = 1000
JUDGES = [
    *((f"AUC {auc}", ScriptedJudge(auc)) for auc in (0.95, 0.8, 0.65, 0.5)),
    *((f"AUC {auc}, order bias", ScriptedJudge(auc, bias=1.0)) for auc in (0.95, 0.8, 0.65, 0.5)),
]
CHANGES = {
    "to chance": ScriptedJudge(0.5),
    "to order bias alone": ScriptedJudge(0.5, bias=4.0),
    "to the opposite": ScriptedJudge(0.2),
}
PATH = Fingerprint("bench", "recall+judge", {"judge": "scripted"})


def sample(items: list[Exemplar], count: int) -> list[Exemplar]:
    """A fixed random sample."""
    return [items[index] for index in np.random.default_rng(0).permutation(len(items))[:count]]


async def collect(data: DataFolder, memory: int, titles: int, cache: Path) -> dict[str, Ranked]:
    """Collect the candidates of titles of val.tsv and test.tsv."""
    settings = Settings()
    settings = settings.model_copy(update={"tagger": settings.tagger.model_copy(update={"tags": PLACES})})
    async with assemble.in_process(settings, cache) as stack:
        known = sample(list(data.exemplars("train")), memory)
        tags = list(data.tags())
        try:
            with console.bar("encoding memory", memory + len(tags)) as bar:
                await filling.fill(stack.projection(), {"tags": tags, "exemplars": known}, bar.advance)
        finally:
            await filling.save_memories(cache, stack.memories)
        found = {}
        for split in ("val", "test"):
            chosen = sample(list(data.exemplars(split)), titles)
            with console.bar(f"tagging {split}", len(chosen)) as bar:
                results = await tag_all(stack.uncalibrated(), [content_of(item) for item in chosen], bar.advance)
            found[split] = ranked(results, {item.id: frozenset(item.accepted) for item in chosen})
        return found


def ranked(results: list[TaggedContent], truth: dict[str, frozenset[str]]) -> Ranked:
    """Return candidates as arrays; one of each content, chosen at random, is shown first."""
    rng = np.random.default_rng(0)
    pairs = [
        (tag.score, tag.id in truth[one.id], number) for number, one in enumerate(results) for tag in one.tags[:PLACES]
    ]
    score, right, content = (np.array(column) for column in zip(*pairs, strict=True))
    first = np.zeros(len(pairs), np.bool_)
    starts = np.unique(content, return_index=True)[1]
    lengths = np.diff(np.append(starts, len(pairs)))
    first[starts + (rng.random(len(starts)) * lengths).astype(int)] = True
    return Ranked(score.astype(np.float64), right.astype(np.bool_), content.astype(np.int64), first)


@dataclass(frozen=True)
class Best:
    """The best candidate of each content: whether it is right, its number, its confidence."""

    right: Flags
    place: Floats
    confidence: Floats


def best(probability: Floats, confidence: Floats, one: Ranked) -> Best:
    """Return each content's best candidate; ties go to the earlier one."""
    starts = np.unique(one.content, return_index=True)[1]
    ends = np.append(starts[1:], len(one.content))
    place = np.array([start + int(probability[start:end].argmax()) for start, end in zip(starts, ends, strict=True)])
    return Best(one.right[place], place, confidence[place])


def row(name: str, judge: ScriptedJudge, fit_on: Ranked, test: Ranked) -> dict[str, object]:
    """Measure a judge's worth."""
    rng = np.random.default_rng(1)
    heard, heard_then = judge.hears(fit_on.right, fit_on.first, rng), judge.hears(test.right, test.first, rng)
    curve = fusion.fit(fit_on.judged(judge.says(heard)), PATH)
    fit = curve.judge
    assert fit is not None
    without = fusion.apply(fit, test.score, np.full(len(test.score), np.nan))
    fused = fusion.apply(fit, test.score, judge.says(heard_then)) if fit.weight else without
    confidence = curve.apply(fused)
    before, after = best(without, without, test), best(fused, confidence, test)
    published = after.confidence >= 0.5
    loss = float(logistic.losses(confidence, test.right).mean())
    return {
        "name": name,
        "judge_auc": judge.auc,
        "order_bias": judge.bias,
        "weight": fit.weight,
        "p_at_1": percent(after.right),
        "p_at_1_without": percent(before.right),
        "acc_at_1": percent(after.right[published]),
        "coverage_at_1": percent(published),
        "log_loss": round(loss, 4),
        "log_loss_fused": round(float(logistic.losses(fused, test.right).mean()), 4),
        "log_loss_knowing": round(knowing(judge, fit_on, heard, test, heard_then), 4),
        "auc_fused": round(auc(fused, test.right), 4),
        "auc_calibrated": round(auc(confidence, test.right), 4),
        "confidences_above_0.8": percent(confidence > 0.8),
        "confidences_above_0.8_of_the_best": percent(after.confidence > 0.8),
        "ece": round(quality.ece(confidence, test.right), 4),
    }


def percent(flags: Flags) -> float:
    return round(100 * float(flags.mean()), 2) if len(flags) else 0.0


def knowing(judge: ScriptedJudge, fit_on: Ranked, heard: Floats, test: Ranked, heard_then: Floats) -> float:
    """Return the log loss of a logistic fit on the judge's true distribution."""
    before = fusion.fit(fit_on.judged(judge.says(heard)), PATH).judge
    assert before is not None

    def columns(one: Ranked, made_of: Floats) -> Floats:
        ranker = logit(np.interp(one.score, before.before.scores, before.before.probabilities))
        return np.column_stack((ranker, judge.odds(made_of, PLACES)))

    found = logistic.fit(columns(fit_on, heard), fit_on.right)
    given = logistic.sigmoid(found[0] + columns(test, heard_then) @ found[1:])
    return float(logistic.losses(given, test.right).mean())


def forgotten(after: ScriptedJudge, one: Ranked) -> int | None:
    """Return the decisions until the weight is 0 after a judge of AUC 0.9 has changed; None: more than all."""
    rng = np.random.default_rng(2)
    half = len(one.right) // 2
    good, bad = ScriptedJudge(0.9), after
    says = np.where(
        np.arange(len(one.right)) < half,
        good.says(good.hears(one.right, one.first, rng)),
        bad.says(bad.hears(one.right, one.first, rng)),
    )
    pairs = one.judged(says)
    for more in range(0, len(pairs) - half, 250):
        fit = fusion.fit(pairs.where(np.arange(len(pairs)) < half + more).newest(WINDOW), PATH).judge
        assert fit is not None
        if not fit.weight:
            return more
    return None


def targets(judge: ScriptedJudge, fit_on: Ranked, test: Ranked) -> dict[str, float]:
    """Measure how often the cascade meets its target on the test titles, fitted on random samples of them, and the
    share it sends beside that of an oracle that knows all titles."""
    rng = np.random.default_rng(3)
    fit = fusion.fit(fit_on.judged(judge.says(judge.hears(fit_on.right, fit_on.first, rng))), PATH).judge
    assert fit is not None
    without = fusion.apply(fit, test.score, np.full(len(test.score), np.nan))
    fused = fusion.apply(fit, test.score, judge.says(judge.hears(test.right, test.first, rng)))
    changed = best(without, without, test).place != best(fused, fused, test).place
    starts = np.unique(test.content, return_index=True)[1]
    leads = np.array([cascade.lead(one) for one in np.split(without, starts[1:])])
    order = np.unique(leads)
    least = next(margin for margin in order if (changed & (leads >= margin)).mean() <= 1 - TARGET)
    met, sent = 0, []
    for _ in range(DRAWS):
        drawn = rng.choice(len(leads), SAMPLE, replace=False)
        margin = cascade.for_quality(leads[drawn], changed[drawn], TARGET).margin
        met += bool(1 - (changed & (leads >= margin)).mean() >= TARGET)
        sent.append(float((leads < margin).mean()))
    oracle = float((leads < least).mean())
    return {
        "cascade_targets_met_of_1000": met,
        "changed": round(float(changed.mean()), 4),
        "sent": round(float(np.mean(sent)), 4),
        "sent_by_oracle": round(oracle, 4),
        "sent_over_oracle": round(float(np.mean(sent)) / oracle, 3),
    }


def read(cache: Path) -> dict[str, Ranked]:
    """Read the candidates of an earlier run."""
    with np.load(cache, allow_pickle=False) as stored:
        return {
            split: Ranked(*(stored[f"{split}_{name}"] for name in ("score", "right", "content", "first")))
            for split in ("val", "test")
        }


def write(found: dict[str, Ranked], cache: Path) -> None:
    cache.parent.mkdir(parents=True, exist_ok=True)
    names = ("score", "right", "content", "first")
    np.savez(cache, **{f"{split}_{name}": getattr(one, name) for split, one in found.items() for name in names})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--memory", type=int, default=20_000)
    parser.add_argument("--titles", type=int, default=2000)
    parser.add_argument("--cache", type=Path, default=Path(".cache/llm"))
    parser.add_argument("--out", type=Path, default=Path("bench/results/llm.json"))
    given = parser.parse_args()
    place = given.cache / f"{given.memory}-{given.titles}.npz"
    if not place.exists():
        write(asyncio.run(collect(DataFolder(given.folder), given.memory, given.titles, given.cache)), place)
    found = read(place)
    rows = [row(name, judge, found["val"], found["test"]) for name, judge in JUDGES]
    report = {
        "what": __doc__.strip().splitlines()[0],
        "titles": given.titles,
        "memory": given.memory,
        "rows": rows,
        **targets(ScriptedJudge(0.8), found["val"], found["test"]),
        "decisions_until_weight_0": {name: forgotten(judge, found["test"]) for name, judge in CHANGES.items()},
    }
    # Keep the figures of bench/llm_ablations.py, llm_calls.py and llm_prefix.py.
    before = json.loads(given.out.read_text(encoding="utf-8")) if given.out.exists() else {}
    names = {one["name"] for one in rows}
    report["rows"] = rows + [one for one in before.get("rows", ()) if one["name"] not in names]
    given.out.write_text(json.dumps({**before, **report}, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
