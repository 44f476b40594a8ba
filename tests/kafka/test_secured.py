"""The secured broker says what it needs. What it does is shown in tests/kafka/test_security.py and test_acls.py."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tagbus.stream.errors import DependencyDown, UserError
from tagbus.stream.local.apache import ApacheKafka
from tests.kafka.secured import Listener, SecuredKafka

pytestmark = pytest.mark.kafka


def test_without_openssl_it_says_so_and_leaves_nothing(
    apache: Callable[..., ApacheKafka], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for tool in ("java", "sh", "sleep", "rm", "mvn"):
        if found := shutil.which(tool):
            (tmp_path / tool).symlink_to(os.path.realpath(found) if tool == "java" else found)
    monkeypatch.setenv("PATH", str(tmp_path))
    broker = SecuredKafka({"worker": "hush"})

    with pytest.raises(UserError, match="there is no openssl on the path"), broker:
        pass

    assert not broker.folder.exists()


def test_what_openssl_does_not_take_is_told_in_its_own_words(apache: Callable[..., ApacheKafka]) -> None:
    broker = SecuredKafka({"worker": "hush"}, (Listener(host="no host at all\nDNS"),))

    with pytest.raises(DependencyDown, match="openssl x509 failed"), broker:
        pass

    assert not broker.folder.exists()
