"""Apache Kafka as a child process: exactly once, across a crash, and never left behind."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from tagbus.stream.errors import DependencyDown, UserError
from tagbus.stream.local import jars
from tagbus.stream.local.apache import ApacheKafka, available
from tests.support import consume_all, create_topics, produce, unique, wait_until

pytestmark = pytest.mark.kafka
Make = Callable[..., ApacheKafka]


@pytest.fixture(scope="module")
def broker(apache: Make) -> Iterator[ApacheKafka]:
    with apache() as broker:
        yield broker
        pid = broker.pid
    assert gone(pid)
    assert not broker.folder.exists()


def transactional(address: str) -> Producer:
    producer = Producer({"bootstrap.servers": address, "transactional.id": unique("t")})
    producer.init_transactions(30)
    return producer


def values(address: str, topic: str, isolation: str = "read_committed") -> list[bytes | None]:
    return [message.value() for message in consume_all(address, topic, isolation)]


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_read_committed_sees_what_was_committed_and_nothing_else(broker: ApacheKafka) -> None:
    topic = unique("tagged")
    create_topics(broker.address, {topic: 1})
    producer = transactional(broker.address)
    for value, end in [(b"aborted", producer.abort_transaction), (b"committed", producer.commit_transaction)]:
        producer.begin_transaction()
        producer.produce(topic, value)
        producer.flush(30)
        end(30)

    assert values(broker.address, topic) == [b"committed"]
    assert values(broker.address, topic, "read_uncommitted") == [b"aborted", b"committed"]


def test_the_ports_and_the_data_outlive_a_kill(broker: ApacheKafka) -> None:
    topic, address, before = unique("content"), broker.address, broker.pid
    create_topics(address, {topic: 2})
    produce(address, topic, [(b"%d" % n, b"%d" % n, []) for n in range(100)])

    broker.kill()
    assert gone(before)
    broker.restart()

    assert broker.address == address
    assert broker.pid != before
    assert sorted(int(value or b"") for value in values(address, topic)) == list(range(100))


def test_it_counts_the_cpu_seconds_of_the_broker(broker: ApacheKafka) -> None:
    before = broker.cpu_seconds()
    topic = unique("content")
    create_topics(broker.address, {topic: 1})

    def worked() -> float:
        produce(broker.address, topic, [(None, bytes(1000), [])] * 1000)
        return broker.cpu_seconds() - before

    assert 0 < wait_until(worked, 120, "CPU time of the broker") < 1000


def test_a_start_that_fails_is_told_and_can_be_tried_again(
    broker: ApacheKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.stop()
    with pytest.raises(UserError, match="not running"):
        _ = broker.pid

    host, _, port = broker.address.partition(":")
    with socket.create_server((host, int(port))), pytest.raises(DependencyDown, match="Address already in use"):
        broker.restart()
    with monkeypatch.context() as patch:
        patch.setattr(broker, "deadline_s", 0.2)
        with pytest.raises(DependencyDown, match=r"is not up after 0\.2 s"):
            broker.restart()

    broker.restart()
    assert not gone(broker.pid)


def test_a_folder_that_cannot_be_written_is_told_and_nothing_is_left(apache: Make, tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("no folder")
    broker = apache(settings={"log.dirs": str(in_the_way / "data")})

    with pytest.raises(DependencyDown, match="cannot format its folder") as told, broker:
        pass

    assert str(in_the_way) in str(told.value)
    assert not broker.folder.exists()


def test_a_machine_too_slow_to_format_in_time_is_told(apache: Make) -> None:
    with pytest.raises(DependencyDown, match=r"did not format its folder within 0\.01 s"), apache(deadline_s=0.01):
        pass


def test_a_setting_that_the_broker_refuses_is_told_with_the_end_of_the_log(apache: Make) -> None:
    with (
        pytest.raises(DependencyDown, match="not_a_class"),
        apache(settings={"authorizer.class.name": "not_a_class"}),
    ):
        pass


def test_it_ends_with_the_process_that_started_it(apache: Make) -> None:
    script = (
        "import threading\n"
        "from tagbus.stream.local.apache import ApacheKafka\n"
        "broker = ApacheKafka()\n"
        "starter = threading.Thread(target=broker.start)\n"
        "starter.start(); starter.join()\n"
        "print(broker.pid, broker.folder, flush=True)\n"
        "input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid, folder = parent.stdout.readline().split()
        assert not gone(int(pid))

        parent.send_signal(signal.SIGKILL)
        parent.wait(120)

        wait_until(lambda: gone(int(pid)), 120, "the end of the broker")
        wait_until(lambda: not Path(folder).exists(), 120, "the end of its folder")


def executable(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize(
    ("java", "reason"),
    [
        (None, "java is not on the path"),
        ("echo 'openjdk version \"1.8.0_392\"' >&2", "java is 8; Apache Kafka needs 17"),
        ("echo 'openjdk version \"16.0.2\" 2021-07-20' >&2", "java is 16; Apache Kafka needs 17"),
        ("echo nonsense >&2", "of an unknown version"),
        ("echo 'openjdk version \"21-ea\"' >&2", "jars, is not on the path"),
    ],
)
def test_it_says_why_it_cannot_run_here(
    java: str | None, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if java is not None:
        executable(tmp_path, "java", java)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert reason in (available(tmp_path / "cache") or "")
    with pytest.raises(UserError, match=reason), ApacheKafka(cache=tmp_path / "cache"):
        pass


def test_processes_that_download_at_once_share_one_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executable(tmp_path, "java", "echo 'openjdk version \"17.0.1\"' >&2")
    executable(
        tmp_path,
        "mvn",
        f"echo run >> {tmp_path}/runs; for a in $@; do case $a in -DoutputDirectory=*) libs=${{a#*=}};; esac; done\n"
        "mkdir $libs; sleep 0.2; echo jar > $libs/kafka.jar",
    )
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    cache = tmp_path / "cache"
    (cache / "download-stale").mkdir(parents=True)
    script = f"from pathlib import Path; from tagbus.stream.local.jars import fetch; print(fetch(Path({str(cache)!r})))"

    processes = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    folders = {process.communicate(timeout=60)[0].strip() for process in processes}

    assert [process.returncode for process in processes] == [0, 0, 0]
    assert [path.name for path in Path(*folders).iterdir()] == ["kafka.jar"]
    assert (tmp_path / "runs").read_text() == "run\n"
    assert {path.name for path in cache.iterdir()} == {"lock", Path(*folders).name}


def test_a_download_that_fails_leaves_nothing_and_is_told_in_mvns_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executable(tmp_path, "java", "echo 'openjdk version \"17.0.1\"' >&2")
    executable(tmp_path, "mvn", "echo '[ERROR] no route'; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    with pytest.raises(DependencyDown, match="no route"):
        jars.fetch(tmp_path / "cache")

    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["lock"]


def test_a_download_that_hangs_ends_at_its_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executable(tmp_path, "java", "echo 'openjdk version \"17.0.1\"' >&2")
    executable(tmp_path, "mvn", "sleep 300")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(jars, "DOWNLOAD_S", 0.3)

    start = time.monotonic()
    with pytest.raises(DependencyDown, match=r"within 0\.3 s"):
        jars.fetch(tmp_path / "cache")

    assert time.monotonic() - start < 60


def test_the_cache_is_the_users_unless_it_is_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert jars.default_cache() == Path("/somewhere/tagbus/kafka")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert jars.default_cache() == Path.home() / ".cache/tagbus/kafka"
