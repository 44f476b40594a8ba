"""plan.json: the options of a training run. A run resumes only with the same plan."""

from pathlib import Path

from pydantic import BaseModel

from tagbus.stream.errors import UserError

PLAN = "plan.json"


def begin(to: Path, plan: BaseModel) -> None:
    """Write the plan, or check it if the folder has one. Raises UserError if the folder's run has another plan."""
    to.mkdir(parents=True, exist_ok=True)
    path, text = to / PLAN, plan.model_dump_json(indent=2) + "\n"
    if not path.exists():
        # At once: half a plan would be that of another run.
        part = to / f".{PLAN}.part"
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    elif path.read_text(encoding="utf-8") != text:
        raise UserError(f"{path} is of another run: use another --out, or the same options to resume it")
