"""Topics with two tags, and a folder with a second release."""

from pathlib import Path

import pytest

from tagbus.stream.contract.codec import encode_record
from tests.app.releases.parts import SECOND, TAGS
from tests.conftest import Broker
from tests.releases import Bus, make_release
from tests.support import produce


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of releases; it holds one beside the shipped one."""
    return make_release(tmp_path_factory.mktemp("releases"), SECOND).parent


@pytest.fixture
def bus(kafka: Broker, folder: Path) -> Bus:
    made = Bus.made(kafka.address)
    produce(made.address, made.names["tags"], [(one.key, one.value, []) for one in map(encode_record, TAGS)])
    return made
