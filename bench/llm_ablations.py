"""Ablations of the stage `judge` through the real tagger: the worth and the cost of each part.

    python bench/llm_ablations.py scripted|decider|local [--calibration 605] [--contents 600] [--candidates 10]
        [--rows all "without both"] [--adapter FILE.gguf] [--out bench/results/llm.json]

The contents are the packages of the example data. Every second exemplar is in memory; the texts of the others, without
their tags, are the knowledge. Each row asks about all calibration contents, fits weight, calibration and cascade to
them, and then tags the contents as a worker does: shares, calls and tokens are taken from its results. `scripted` is a
real HTTP server whose judge has an AUC of 0.95 and reads only names (a token: four bytes of a request); `decider` is
sparrow-decider, `local` SmolLM2 on llama.cpp. Rows are stored by name beside those of bench/llm.py in its file;
raw/llm-JUDGE.jsonl has one line per content.
"""

import argparse
import asyncio
import hashlib
import json
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from tagbus.stream import calibrate, quality
from tagbus.stream.app import assemble, console, filling
from tagbus.stream.app.assemble import Plan, TaggingStack
from tagbus.stream.app.data.examples import example
from tagbus.stream.app.evaluation import content_of, fit_to, tag_all, undecided
from tagbus.stream.app.judge.fitting import pairs_of
from tagbus.stream.app.places import files
from tagbus.stream.calibrate import Calibration
from tagbus.stream.config import BudgetSettings, CascadeSettings, KnowledgeSettings, LlmSettings, Settings
from tagbus.stream.contract.events import Exemplar, Knowledge, TaggedContent
from tagbus.stream.contract.release import JudgeFit
from tagbus.stream.encoder.base import Encoder, Vectors
from tagbus.stream.encoder.release import Release
from tagbus.stream.intervals import of_mean
from tagbus.stream.llm.component import NAME
from tagbus.stream.llm.prompts.fence import fenced
from tagbus.stream.llm.prompts.prompt import NAME as NAME_CHARS
from tagbus.stream.llm.prompts.prompt import TITLE
from tagbus.stream.llm.worth.fusion import SAME
from tagbus.stream.local.judges import DeciderServer, LlamaServer
from tagbus.stream.memory.kinds import KNOWLEDGE
from tests.llm.known_quality import ScriptedJudge, auc
from tests.llm.scripted import Request, Say, Script, routed, serving

PLAN: Final = Plan(reads=frozenset({KNOWLEDGE.name}))
TARGET: Final = 0.95
JUDGE: Final = ScriptedJudge(0.95)
Json = dict[str, object]


@dataclass(frozen=True)
class Variant:
    """The parts left out. `quality` of the cascade; None: all contents are sent."""

    exemplars: int = 3
    segments: int = 3
    quality: float | None = TARGET
    judged: bool = True
    calibrated: bool = True


ROWS: Final[Mapping[str, Variant]] = {
    "all": Variant(),
    "without exemplars": Variant(exemplars=0),
    "without knowledge": Variant(segments=0),
    "without both": Variant(exemplars=0, segments=0),
    "without judge": Variant(judged=False),
    "without calibration": Variant(calibrated=False, quality=None),
    "without cascade": Variant(quality=None),
    # It is trained on prompts without exemplars and knowledge.
    "adapter": Variant(exemplars=0, segments=0),
}


@dataclass(frozen=True)
class Data:
    """Contents with the tags that people gave them."""

    calibration: Sequence[Exemplar]
    contents: Sequence[Exemplar]

    @property
    def truth(self) -> Mapping[str, frozenset[str]]:
        return {one.id: frozenset(one.accepted) for one in (*self.calibration, *self.contents)}


class Kept:
    """An encoder that encodes each text once."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._kept: dict[str, Vectors] = {}

    @property
    def release(self) -> Release:
        return self._encoder.release

    async def encode(self, texts: Sequence[str]) -> Vectors:
        new = list(dict.fromkeys(text for text in texts if text not in self._kept))
        if new:
            self._kept.update(zip(new, await self._encoder.encode(new), strict=True))
        if not texts:
            return await self._encoder.encode(texts)
        return np.stack([self._kept[text] for text in texts])

    async def close(self) -> None:
        await self._encoder.close()


def corpus(calibration: int, contents: int) -> Data:
    answers = {item["id"]: item["accepted"] for item in map(json.loads, example("answers.jsonl").open("rb"))}
    known = files.all_of(example("content.jsonl"), files.content_of)
    test = [
        Exemplar(id=one.id, title=one.title, text=one.text, source="people", accepted=tuple(answers[one.id]))
        for one in known
    ]
    return Data(files.all_of(example("calibration.jsonl"), files.exemplar_of)[:calibration], test[:contents])


def scripted(data: Data) -> Script:
    """Serve the judge of known quality. It recognises a content by its title and a tag by its name."""
    names = {one.id: fenced(one.name, NAME_CHARS) for one in files.all_of(example("tags.jsonl"), files.tag_of)}
    right = {
        fenced(one.title, TITLE): {names[tag] for tag in one.accepted} for one in (*data.calibration, *data.contents)
    }

    def noul(title: str, question: str) -> float:
        name = question.partition('"')[2].partition('"')[0]
        seed = int.from_bytes(hashlib.blake2b(f"{title}\n{name}".encode(), digest_size=8).digest())
        # The probe's question.
        is_right = name in right[title] if title in right else name == "Cats"
        heard = JUDGE.hears(np.array([is_right]), np.array([False]), np.random.default_rng(seed))
        return float(JUDGE.says(heard)[0]) if title in right else (0.95 if is_right else 0.05)

    def answer(request: Request) -> Say:
        title = request.body["state"].rpartition("\ntitle: ")[2].partition("\n")[0]
        answers = {
            name: {"type": "noul", "noul": noul(title, one["instructions"])}
            for name, one in request.body["questions"].items()
        }
        usage = {"input_tokens": len(request.raw) // 4, "output_tokens": 0}
        return Say({"model": "scripted", "answers": answers, "usage": usage})

    return routed(systemone=answer)


@contextmanager
def judge(name: str, data: Data, adapter: Path | None, candidates: int) -> Iterator[LlmSettings]:
    """Run a server; yield the settings to ask it."""
    common = {"candidates": candidates, "watch_seconds": 0.0, "deadline_seconds": 600.0}
    match name:
        case "scripted":
            with serving(scripted(data)) as server:
                yield LlmSettings(url=server.url, model="scripted", backend="decision_api", **common)
        case "decider":
            with DeciderServer() as decider:
                yield LlmSettings(url=decider.url, **common)
        case _:
            with LlamaServer(lora=adapter) as llama:
                # One slot keeps the prefix that the next question continues.
                yield LlmSettings(url=llama.url, profile="llama.cpp", backend="yesno", in_flight=1, **common)


def of_variant(settings: Settings, llm: LlmSettings, variant: Variant) -> Settings:
    return settings.model_copy(
        update={
            "llm": llm.model_copy(update={"exemplars": variant.exemplars}) if variant.judged else LlmSettings(),
            "knowledge": KnowledgeSettings(segments=variant.segments),
            "cascade": CascadeSettings(quality=variant.quality),
        }
    )


def taken_at_its_word(stack: TaggingStack) -> Calibration:
    """Return a calibration that uses raw scores and stated probabilities, with the same weight."""
    fit = JudgeFit(before=SAME, said=SAME, offset=0.0, slope=1.0, weight=1.0, pairs=0, loss_without=0.0, loss_with=0.0)
    return calibrate.with_judge(calibrate.uncalibrated(stack.fingerprint()), fit)


async def row(stack: TaggingStack, variant: Variant, data: Data) -> tuple[Json, list[TaggedContent]]:
    """Return the figures of a stack, and its results."""
    asked = await undecided(stack, data.calibration)
    curve = fit_to(stack, asked, data.calibration) if variant.calibrated else taken_at_its_word(stack)
    with console.bar("tagging", len(data.contents)) as bar:
        results = await tag_all(stack.tagger([curve]), [content_of(one) for one in data.contents], bar.advance)
    truth = data.truth
    found: Json = {}
    if variant.judged:
        pairs = pairs_of(asked, truth)
        known = np.isfinite(pairs.judge)
        found["judge_auc"] = round(auc(pairs.judge[known], pairs.right[known]), 4)
        found["weight"] = curve.judge.weight if curve.judge else 0.0
        # Contents that a slow or unavailable server did not judge are left out of the fit.
        found["share_unanswered"] = round(1 - len(np.unique(pairs.content[known])) / len(np.unique(pairs.content)), 4)
        found["tokens_per_asked_content"] = round(taken(asked)[1] / len(asked), 1)
    right, confidence = firsts(results, truth)
    published = confidence >= 0.5
    calls, tokens = taken(results)
    every = [(tag.confidence, tag.id in truth[one.id]) for one in results for tag in one.tags]
    of_tags = np.array(every, np.float64)
    return {
        **found,
        "p_at_1": percent(right),
        "acc_at_1": percent(right[published]),
        "coverage_at_1": percent(published),
        "share_to_llm": round(sum(one.usage is not None for one in results) / len(results), 4),
        "calls_per_content": round(calls / len(results), 3),
        "tokens_per_content": round(tokens / len(results), 1),
        "ece": round(quality.ece(of_tags[:, 0], of_tags[:, 1].astype(np.bool_)), 4),
    }, results


def taken(results: Sequence[TaggedContent]) -> tuple[int, int]:
    """Return the calls, and tokens in and out."""
    used = [one.usage for one in results if one.usage is not None]
    return sum(one.calls for one in used), sum(one.tokens_in + one.tokens_out for one in used)


def firsts(results: Sequence[TaggedContent], truth: Mapping[str, frozenset[str]]) -> tuple[np.ndarray, np.ndarray]:
    """Return whether the best tag of each content is right, and its confidence."""
    right = [bool(one.tags) and one.tags[0].id in truth[one.id] for one in results]
    confidence = [one.tags[0].confidence if one.tags else 0.0 for one in results]
    return np.array(right, np.bool_), np.array(confidence, np.float64)


def percent(flags: np.ndarray) -> float:
    return round(100 * float(flags.mean()), 2) if len(flags) else 0.0


def raw(name: str, results: Sequence[TaggedContent], truth: Mapping[str, frozenset[str]]) -> Iterator[str]:
    """Yield one line per content: its best tag, whether it is right, the judge's answer, and the cost of asking."""
    for one in results:
        best = one.tags[0] if one.tags else None
        line = {
            "row": name,
            "id": one.id,
            "best": best.id if best else None,
            "right": best is not None and best.id in truth[one.id],
            "confidence": round(best.confidence, 4) if best else None,
            "judge": round(best.evidence.scores[NAME], 4) if best and NAME in best.evidence.scores else None,
            "tokens": one.usage.tokens_in + one.usage.tokens_out if one.usage else 0,
        }
        yield json.dumps(line, separators=(",", ":")) + "\n"


async def measure(
    name: str, llm: LlmSettings, wanted: Sequence[str], data: Data, memory_of: int, cache: Path
) -> AsyncIterator[tuple[Json, list[str]]]:
    """Yield each row with its raw lines when it is done."""
    exemplars = files.all_of(example("exemplars.jsonl"), files.exemplar_of)[:memory_of]
    memory = {
        "tags": files.all_of(example("tags.jsonl"), files.tag_of),
        "exemplars": exemplars[::2],
        "knowledge": [
            Knowledge(id=one.id, kind="package", title=one.title, text=one.text or one.title) for one in exemplars[1::2]
        ],
    }
    settings = Settings(budget=BudgetSettings(price_in=0.0, cache=0))
    async with assemble.in_process(of_variant(settings, llm, Variant()), cache, PLAN) as opened:
        with console.bar("encoding memory", sum(map(len, memory.values()))) as bar:
            await filling.fill(opened.projection(), memory, bar.advance)
        await filling.save_memories(cache, opened.memories)
        stack = replace(opened, encoder=Kept(opened.encoder))
        before = None
        # Rows without a judge come first: the others are compared with them.
        for row_name in ("without judge", *(one for one in wanted if one != "without judge")):
            variant = ROWS[row_name]
            async with assemble.over(stack, of_variant(settings, llm, variant), PLAN) as own:
                found, results = await row(own, variant, data)
            right = firsts(results, data.truth)[0]
            before = right if before is None else before
            gain = 100.0 * (right.astype(np.float64) - before)
            ends = [float(end) for end in of_mean(gain)]
            figures: Json = {
                "name": f"{name}, {row_name}",
                "data": "examples",
                "memory": len(memory["exemplars"]),
                "calibration": len(data.calibration),
                "contents": len(data.contents),
                "candidates": llm.candidates,
                **found,
                "p_at_1_without": percent(before),
                "p_at_1_gain": [round(one, 2) for one in (float(gain.mean()), *ends)],
            }
            yield figures, list(raw(row_name, results, data.truth))


def keep(new: Json, lines: Sequence[str], out: Path, judge_name: str) -> None:
    """Store a row, replacing an earlier one of its name."""
    report = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {"rows": []}
    report["rows"] = [one for one in report["rows"] if one["name"] != new["name"]] + [new]
    out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    place = out.parent / "raw" / f"llm-{judge_name}.jsonl"
    place.parent.mkdir(exist_ok=True)
    before = place.read_text(encoding="utf-8").splitlines(keepends=True) if place.exists() else []
    name = json.loads(lines[0])["row"]
    kept = [line for line in before if json.loads(line)["row"] != name]
    place.write_text("".join([*kept, *lines]), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("judge", choices=("scripted", "decider", "local"))
    parser.add_argument("--memory", type=int, default=2964, help="exemplars of which half are in memory")
    parser.add_argument("--calibration", type=int, default=605)
    parser.add_argument("--contents", type=int, default=600)
    parser.add_argument("--candidates", type=int, default=10)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=[one for one in ROWS if one != "adapter"])
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--cache", type=Path, default=Path(".cache/llm-ablations"))
    parser.add_argument("--out", type=Path, default=Path("bench/results/llm.json"))
    given = parser.parse_args()
    data = corpus(given.calibration, given.contents)

    async def run(llm: LlmSettings) -> None:
        async for row_, lines in measure(given.judge, llm, given.rows, data, given.memory, given.cache):
            console.say(json.dumps(row_))
            keep(row_, lines, given.out, given.judge)

    with judge(given.judge, data, given.adapter, given.candidates) as llm:
        asyncio.run(run(llm))


if __name__ == "__main__":
    main()
