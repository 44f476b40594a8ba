"""How `tagbus views` ends: a user's mistake names its setting, and no failure is taken for another."""

from contextlib import ExitStack
from pathlib import Path

import pytest
from aiokafka.errors import KafkaConnectionError, MessageSizeTooLargeError
from faust.exceptions import ProducerSendError

from tagbus.stream.config import Settings, ViewsSettings
from tagbus.stream.errors import DependencyDown, Fatal, UserError
from tagbus.stream.views.service import ViewsService, _failure


def folder_of(path: Path | None) -> Path:
    with ExitStack() as stack:
        return ViewsService(Settings(views=ViewsSettings(folder=path)))._folder(stack)


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/nothing", "/proc"])
def test_a_folder_that_takes_no_files_is_the_users_mistake(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="expected a writable folder") as raised:
        folder_of(tmp_path / place)
    assert str(raised.value).startswith(f"TAGBUS_VIEWS__FOLDER={tmp_path / place}: ")


def test_a_folder_is_made(tmp_path: Path) -> None:
    made = folder_of(tmp_path / "new" / "one")
    assert made.is_dir()
    assert not list(made.iterdir())


@pytest.mark.parametrize(
    "error",
    [
        # The brokers' own answer, and what the producer refuses before it asks them.
        MessageSizeTooLargeError(),
        ProducerSendError("Error while sending: MessageSizeTooLargeError('The message is 1465376 bytes')"),
    ],
)
def test_a_record_that_is_too_large_is_told_with_the_settings_that_make_it_smaller(error: Exception) -> None:
    found = _failure(error)
    assert type(found) is Fatal
    for words in ("views.contents", "views.together", "max.message.bytes"):
        assert words in str(found)


def test_brokers_that_do_not_answer_are_a_dependency() -> None:
    assert isinstance(_failure(KafkaConnectionError("no broker")), DependencyDown)
