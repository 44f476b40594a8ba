"""A worker of the stream with its encoder on Triton: the server dies and comes back, and no content is lost."""

import os
import signal
import urllib.error
import urllib.request
from pathlib import Path

from tritonclient.grpc import InferenceServerClient

from tagbus.stream.config import EncoderSettings, Settings
from tagbus.stream.contract.codec import decode_tagged
from tagbus.stream.kafka.message import record_of
from tagbus.stream.local.mock import MockCluster
from tagbus.stream.local.triton import TritonServer
from tagbus.stream.local.worker import LocalWorker
from tests.support import consume_all, produce, wait_until
from tests.triton.conftest import Start
from tests.triton.harness import model_pids

COUNT = 300
# Short waits, so that the test is short.
WAITS = {"TAGBUS_ENCODER__DEADLINE_SECONDS": "4", "TAGBUS_RETRY__CAP_SECONDS": "1"}


def settings(kafka: MockCluster, triton: TritonServer) -> Settings:
    base = Settings.model_construct()
    return Settings.model_construct(
        kafka=base.kafka.model_copy(
            update={"brokers": kafka.address, "delivery": "at_least_once", "instance": "triton"}
        ),
        encoder=EncoderSettings(kind="triton", address=triton.address),
    )


def ready(worker: LocalWorker) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{worker.port}/readyz", timeout=20) as answer:
            return bool(answer.status == 200)
    except urllib.error.URLError:
        return False


def contents(name: str) -> list[tuple[bytes, bytes, list[tuple[str, bytes]]]]:
    return [
        (
            b"%s-%d" % (name.encode(), one),
            b'{"id": "%s-%d", "title": "Beekeeping, volume %d"}' % (name.encode(), one, one),
            [],
        )
        for one in range(COUNT)
    ]


def tagged(kafka: MockCluster) -> set[str]:
    messages = consume_all(kafka.address, "tagged", "read_uncommitted")
    return {decode_tagged(record_of(message)).id for message in messages}  # type: ignore[union-attr]


def test_a_worker_outlives_its_server_and_says_when_it_is_not_ready(
    mock_kafka: MockCluster, repository: Path, start: Start
) -> None:
    server = start(repository)
    chosen = settings(mock_kafka, server)
    for _, name in chosen.topics:
        if isinstance(name, str):
            mock_kafka.topic(name, 2)
    produce(mock_kafka.address, "tags", [(b"p1", b'{"id": "p1", "name": "beekeeping"}', [])])
    with LocalWorker(chosen, WAITS) as worker:
        worker.wait_until_ready()

        # Killed while contents are in flight.
        produce(mock_kafka.address, "content", contents("first"))
        server.kill()
        wait_until(lambda: not ready(worker), 120, "the worker to say that it is not ready")
        server.restart()
        wait_until(lambda: len(tagged(mock_kafka)) == COUNT, 120, "all results")

        # A server that calls itself ready and has no process behind its model.
        wait_until(lambda: ready(worker), 120, "the worker to be ready again")
        for pid in model_pids(server.pid, "encoder"):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not ready(worker), 120, "the worker to notice that nothing is embedded")
        with InferenceServerClient(server.address) as client:
            assert client.is_model_ready("encoder", "1")
            client.unload_model("encoder")
            client.load_model("encoder")
        produce(mock_kafka.address, "content", contents("second"))
        wait_until(lambda: len(tagged(mock_kafka)) == 2 * COUNT, 120, "all results")
        worker.stop()
    assert tagged(mock_kafka) == {f"{name}-{one}" for name in ("first", "second") for one in range(COUNT)}
