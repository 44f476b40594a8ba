"""The commands of the extra `train`: the entry points of the group `tagbus.commands`.

    tagbus train auto|biencoder|whole|heads|labeltree|gudn|cross-encoder|sft|ranker
    tagbus export
    tagbus evaluate-models

Modules are imported when their command runs: `tagbus --help` needs no torch.
"""

import importlib
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

from tagbus.stream.errors import UserError

if TYPE_CHECKING:
    from typer._click import Context

INSTALL: Final = "pip install 'tagbus[train]'"
# A step's own seed is the run's times a million, in 64 bits.
MOST_SEED: Final = 2**31 - 1


class LazyCommand(TyperCommand):
    """A command that imports its module, and the function `command` in it, only when it runs."""

    def __init__(self, name: str, module: str, help: str) -> None:
        super().__init__(name, callback=None, help=help)
        self.module = module

    def make_context(
        self, info_name: str | None, args: list[str], parent: "Context | None" = None, **extra: Any
    ) -> "Context":
        """Return the context of the imported command. Raises UserError if the extra is not installed."""
        try:
            module = importlib.import_module(self.module)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.startswith("tagbus."):
                raise
            raise UserError(f"{self.name} needs {error.name}, which is not installed: {INSTALL}") from None
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        app.command(name=self.name)(module.command)
        context = typer.main.get_command(app).make_context(info_name, args, parent, **extra)
        _require_numbers(context.params)
        return context


def _require_numbers(given: Mapping[str, object]) -> None:
    """Raises UserError for an option of all commands that no training can use: typer's limits let nan pass."""
    for name, value in given.items():
        option = f"--{name.replace('_', '-')}"
        if name == "seed" and isinstance(value, int) and not 0 <= value <= MOST_SEED:
            raise UserError(f"{option} {value}: expected 0 to {MOST_SEED}")
        if not isinstance(value, float):
            continue
        if not math.isfinite(value):
            raise UserError(f"{option} {value}: expected a finite number")
        if name.endswith("rate") and value <= 0:
            raise UserError(f"{option} {value:g}: expected a learning rate above 0")


train = TyperGroup(
    name="train",
    help="Train the tagger's models: encoder, classifier heads, label trees, cross-encoder, ranker.",
    no_args_is_help=True,
    commands={
        name: LazyCommand(name, f"tagbus.models.{module}", text)
        for name, module, text in (
            ("auto", "auto.command", "Choose and train what fits a corpus and a time: a release."),
            (
                "biencoder",
                "train.biencoder",
                "Train the encoder to place contents near their tags and near contents that share them.",
            ),
            (
                "whole",
                "train.whole.command",
                "Train all layers of an encoder, and of smaller ones cut from it, against all tags.",
            ),
            ("heads", "train.heads", "Train a classifier over all known tags."),
            ("labeltree", "train.labeltree", "Train label trees over bags of words."),
            ("gudn", "gudn.command", "Train a classifier over all known tags, guided by their names."),
            (
                "cross-encoder",
                "train.cross_encoder",
                "Train the cross-encoder that scores a tag and a content together.",
            ),
            ("sft", "train.sft.run", "Train an adapter for the judge on people's decisions."),
            ("ranker", "rank.ranker", "Train the ranker over the candidates of all recallers."),
        )
    },
)
export = LazyCommand(
    "export", "tagbus.models.export.encoder", "Export a trained encoder as ONNX: a complete version folder."
)
evaluate = LazyCommand(
    "evaluate-models", "tagbus.models.evaluate.table", "Compare trained models and baselines in one table."
)
