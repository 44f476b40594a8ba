"""The commands of training: they are listed without torch, and an error says what to install."""

import subprocess
import sys
from importlib.metadata import entry_points

import pytest
import typer

from tagbus.models.commands import LazyCommand, evaluate, export, train
from tagbus.stream.errors import UserError


def test_the_commands_are_listed_without_torch() -> None:
    code = (
        "import sys; from tagbus.models.commands import train, export, evaluate; "
        "train.get_help(train.make_context('train', [], resilient_parsing=True)); "
        "heavy = {'torch', 'lightgbm', 'transformers', 'datasets'} & set(sys.modules); sys.exit(str(heavy or '') or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_few_runs_need_is_not_imported_by_all() -> None:
    """sentence-transformers loads triton, whose bindings then end `train auto` with a page about leaks."""
    code = (
        "import sys; import tagbus.models.auto.command; "
        "sys.exit(' '.join({'sentence_transformers', 'triton'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_command_is_an_entry_point() -> None:
    found = {entry.name: entry.load() for entry in entry_points(group="tagbus.commands")}
    assert set(found) == {"train", "export", "evaluate-models"}
    names = {"auto", "biencoder", "whole", "heads", "labeltree", "gudn", "cross-encoder", "sft", "ranker"}
    assert set(found["train"].commands) == names


def test_every_command_imports_its_module_and_shows_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (*train.commands.values(), export, evaluate):
        with pytest.raises(typer.Exit):
            command.make_context(command.name, ["--help"])
        assert "--out" in capsys.readouterr().out


def test_without_the_extra_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "tagbus.models.train.losses", raising=False)
    with pytest.raises(UserError, match=r"^losses needs torch, which is not installed: pip install 'tagbus\[train\]'$"):
        LazyCommand("losses", "tagbus.models.train.losses", "").make_context("losses", [])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("0", "--rate 0: expected a learning rate above 0"),
        ("-1", "--rate -1: expected a learning rate above 0"),
        ("nan", "--rate nan: expected a finite number"),
        ("inf", "--rate inf: expected a finite number"),
    ],
)
def test_a_rate_that_trains_nothing_is_a_users_mistake(given: str, words: str) -> None:
    with pytest.raises(UserError, match=f"^{words}$"):
        train.commands["sft"].make_context("sft", ["topic", "--model", "m", "--out", "o", "--rate", given])


@pytest.mark.parametrize("given", ["-5", "99999999999999999999"])
def test_a_seed_that_no_generator_takes_is_a_users_mistake(given: str) -> None:
    with pytest.raises(UserError, match=f"^--seed {given}: expected 0 to 2147483647$"):
        train.commands["gudn"].make_context("gudn", ["folder", "--out", "o", "--seed", given])
