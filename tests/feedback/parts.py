"""Decisions for tests."""

from datetime import UTC, datetime, timedelta

from tagbus.stream.contract.decision import Decision, Mode

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def decision(number: int, who: str = "ann", mode: Mode = "review", **fields: object) -> Decision:
    """The decision `d<number>` on the content `a`, so many seconds after noon, with a title unless it has another."""
    given: dict[str, object] = {"id": "a", "title": "Bees", **fields}
    time = NOON + timedelta(seconds=number)
    return Decision.model_validate({"decision": f"d{number}", "who": who, "mode": mode, "time": time, **given})


def undo(number: int, *gone: int, **fields: object) -> Decision:
    """A decision that takes back others and says nothing else."""
    return decision(number, title="", supersedes=tuple(f"d{one}" for one in gone), **fields)
