"""tagbus.stream: the service. Content events come in on Kafka, scored and explained tags go out.

The public API for Python programs: `open_tagger` tags without Kafka. A name is imported on first access, so that
`import tagbus.stream.errors` imports only the errors.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tagbus.stream.app.assemble import open_tagger
    from tagbus.stream.config import Settings
    from tagbus.stream.contract.decision import Decision
    from tagbus.stream.contract.events import Content, Exemplar, Tag, TaggedContent
    from tagbus.stream.errors import (
        DependencyDown,
        Fatal,
        Poison,
        ReleaseMismatch,
        Retryable,
        TagbusError,
        Untaggable,
        UserError,
    )
    from tagbus.stream.feedback.showing import Display, show
    from tagbus.stream.tagger import Failure, Tagger
else:
    # The origin of each name; quick imports come first.
    _HOMES = ("errors", "contract.events", "contract.decision", "config", "tagger", "feedback.showing", "app.assemble")

    def __getattr__(name: str) -> object:
        """See PEP 562. Raises AttributeError for a name that is not public, so that submodules can be imported."""
        for home in _HOMES if name in __all__ else ():
            module = importlib.import_module(f"{__name__}.{home}")
            if hasattr(module, name):
                return getattr(module, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "Content",
    "Decision",
    "DependencyDown",
    "Display",
    "Exemplar",
    "Failure",
    "Fatal",
    "Poison",
    "ReleaseMismatch",
    "Retryable",
    "Settings",
    "Tag",
    "TagbusError",
    "TaggedContent",
    "Tagger",
    "Untaggable",
    "UserError",
    "open_tagger",
    "show",
]
