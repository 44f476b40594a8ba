"""One run: the corpus as it is now, a choice, its trainings, a selection, a release and what it is worth.

The plan is kept, and so is what was finished: the same call goes on where it was stopped, and ends with the same
release. The release appears as a whole, when everything is trained and measured; until then it lies in a hidden folder
next to it, which is left there for its logs.
"""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import torch
from pydantic import BaseModel, ConfigDict

from tagbus.models.auto import corpus as corpora
from tagbus.models.auto.choice import Choice, choose, explained
from tagbus.models.auto.corpus import RunCorpus
from tagbus.models.auto.facts import Facts, facts
from tagbus.models.auto.selection import Goal, Selection, select
from tagbus.models.auto.steps import gather, last_steps, steps, trained
from tagbus.models.auto.verdict import Verdict, evaluated
from tagbus.models.data.corpus import Corpus
from tagbus.models.evaluate.recipe import take
from tagbus.models.train.plan import PLAN
from tagbus.stream.app import console
from tagbus.stream.contract.release import ACTIVE, NAME
from tagbus.stream.errors import UserError, shorten
from tagbus.stream.rank import trees

REPORT: Final = "auto.json"
SELECTION: Final = "selection.json"
# In the folder of a run whose release is out, and not yet proposed or in force.
PENDING: Final = "pending.json"


class Asked(BaseModel):
    """What was asked for: another run has other options."""

    model_config = ConfigDict(frozen=True)

    corpus: str
    minutes: float
    gpu: bool = False
    single: bool = False
    since: str | None = None

    @property
    def goal(self) -> Goal:
        """What a part has to gain."""
        return "p_at_1" if self.single else "ndcg_at_5"


class Plan(BaseModel):
    """What was asked for, what it was decided by, and the decision."""

    model_config = ConfigDict(frozen=True)

    asked: Asked
    since: datetime | None
    facts: Facts
    choice: Choice


class Report(BaseModel):
    """auto.json: the plan, what was selected by what gain, and what the release is worth."""

    model_config = ConfigDict(frozen=True)

    plan: Plan
    selection: Selection
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Run:
    """A run that leaves the release `to`."""

    to: Path
    asked: Asked
    # The time of --since as it is now; a resumed run keeps its own.
    since: datetime | None = None

    def __post_init__(self) -> None:
        """Raises UserError for a name that no release has, for one that is there, and for a GPU that is not."""
        if not re.fullmatch(NAME, self.to.name) or self.to.name == ACTIVE:
            raise UserError(
                f"--out: {shorten(self.to.name)} is no release's name: small letters, digits, '.', '_' and '-'"
            )
        if self.to.exists() and not (self.work / PENDING).exists():
            raise UserError(f"--out: {self.to} is there already, and a release never changes: name another one")
        self.begun()
        if self.asked.gpu and not torch.cuda.is_available():
            raise UserError("--gpu: torch finds no CUDA device here; without it everything is trained on the CPU")

    @property
    def work(self) -> Path:
        """The folder of what is half made."""
        return self.to.parent / f".{self.to.name}.training"

    @property
    def taken(self) -> RunCorpus:
        """The corpus of the run."""
        return RunCorpus(self.work)

    @property
    def made(self) -> Path:
        """The release before it is let out."""
        return self.work / "release"

    def train(self, open_corpus: Callable[[], Corpus]) -> Report:
        """Everything but the last step. Raises UserError as the trainings do, and for a run of other options."""
        plan = self._plan(open_corpus)
        for line in explained(plan.choice, plan.facts, plan.asked.minutes):
            console.say(line)
        take(steps(plan.choice, self.to.name, self.work), self.work)
        selection = self._selected()
        for line in selection.lines():
            console.say(line)
        if trees.NAME in selection.parts and not self.asked.single:
            # With --single the cut is found on the validation contents, so that no part may know them.
            take(last_steps(plan.choice, self.to.name, self.work), self.work)
        found = trained(self.work, self.to.name)
        gather(found, selection.parts, self.made)
        judging = evaluated(self.taken, found, selection.parts, self.asked.goal, single=self.asked.single)
        report = Report(plan=plan, selection=selection, verdict=asyncio.run(judging))
        for line in report.verdict.lines():
            console.say(line)
        write(self.made / REPORT, report)
        return report

    def release(self) -> None:
        """Let the release out."""
        self.made.rename(self.to)

    def begun(self) -> Plan | None:
        """The plan of the run that was begun here. Raises UserError where it is of other options."""
        path = self.work / PLAN
        if not path.exists():
            return None
        plan = Plan.model_validate_json(path.read_bytes())
        if plan.asked != self.asked:
            was = ", ".join(f"{name} {value}" for name, value in plan.asked.model_dump().items())
            raise UserError(f"{path} is of another run ({was}): give the same to resume it, or another --out")
        return plan

    def _plan(self, open_corpus: Callable[[], Corpus]) -> Plan:
        """The plan of the run that was begun here, or a new one with the corpus as it is now."""
        if (plan := self.begun()) is not None:
            console.say(f"resumed, with the corpus as it was when {self.work} was begun; delete that to begin anew")
            return plan
        corpus = open_corpus()
        known = facts(corpus)
        if not known.contents:
            raise UserError(f"{self.asked.corpus} has no training contents: there is nothing to train on")
        choice = choose(known, self.asked.minutes, gpu=self.asked.gpu)
        corpora.take(corpus, self.work, ranker_learns=choice.ranked == "validation")
        plan = Plan(asked=self.asked, since=self.since, facts=known, choice=choice)
        write(self.work / PLAN, plan)
        return plan

    def _selected(self) -> Selection:
        """The selection, which is made once: afterwards parts may learn from what it was made by."""
        path = self.work / SELECTION
        if path.exists():
            return Selection.model_validate_json(path.read_bytes())
        found = asyncio.run(select(self.taken, trained(self.work, self.to.name), self.asked.goal))
        write(path, found)
        return found


def write(path: Path, about: BaseModel) -> None:
    """Replace a file as a whole."""
    part = path.with_suffix(".part")
    part.write_text(about.model_dump_json(indent=2) + "\n", encoding="utf-8")
    part.replace(path)
