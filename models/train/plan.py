"""plan.json: the options of a training run. A run resumes only with the same plan."""

from pathlib import Path

from pydantic import BaseModel

from tagbus.stream.errors import UserError

PLAN = "plan.json"


def begin(to: Path, plan: BaseModel) -> None:
    """Write the plan, if the folder has none. Raises UserError if the folder's run has another plan."""
    require_same(to, plan)
    to.mkdir(parents=True, exist_ok=True)
    if not (to / PLAN).exists():
        # At once: half a plan would be that of another run.
        part = to / f".{PLAN}.part"
        part.write_text(_text(plan), encoding="utf-8")
        part.replace(to / PLAN)


def require_same(to: Path, plan: BaseModel) -> None:
    """Raises UserError if the folder's run has another plan. A training that may still refuse an option asks this
    first, and begins later: the mended option would be that of another run."""
    path = to / PLAN
    if path.exists() and path.read_text(encoding="utf-8") != _text(plan):
        raise UserError(f"{path} is of another run: use another --out, or the same options to resume it")


def _text(plan: BaseModel) -> str:
    return plan.model_dump_json(indent=2) + "\n"
