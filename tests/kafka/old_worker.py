"""A worker as it was at version 1.0.0 of the contract, as a process: contents have no version, so none is published,
and dead letters do not count replays. Arguments as of tests/bus/worker_process.py."""

import os
import sys
from typing import Any

from pydantic import model_validator

from tagbus.stream.contract import codec
from tagbus.stream.contract.cloudevents import Envelope
from tagbus.stream.contract.events import Content

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from tests.bus import worker_process


class OldContent(Content):
    """A content whose model has no `version`: an unknown field, which is passed over."""

    @model_validator(mode="before")
    @classmethod
    def _unknown(cls, given: Any) -> Any:
        return {name: value for name, value in given.items() if name != "version"} if isinstance(given, dict) else given


if __name__ == "__main__":
    codec._CONTENT = codec._Topic(OldContent, Envelope[OldContent], lambda event: event.id, keyless=True)
    del codec.DEAD_LETTER_HEADERS["replays"]
    os.environ["TAGBUS_TRIAGE__VERSIONS"] = "0"
    sys.exit(worker_process.main())
