"""Apache Kafka itself as a child process: one node, KRaft, on 127.0.0.1."""

import base64
import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tagbus.stream.errors import DependencyDown, UserError
from tagbus.stream.local.jars import available, default_cache, fetch, tail

__all__ = ["ApacheKafka", "available", "default_cache"]

_HOST = "127.0.0.1"
_STOP_S = 20.0
_TAKEN = "Address already in use"

# At INFO it writes megabytes.
_LOGGING = """Configuration:
  status: ERROR
  Appenders:
    Console:
      name: out
      PatternLayout:
        pattern: "%d{ISO8601} %p %c{1} %m%n"
  Loggers:
    Root:
      level: WARN
      AppenderRef:
        ref: out
"""

# What one node needs, and what lets tests wait for seconds where the defaults make them wait for minutes.
SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",  # 50, the default, make the first start slow
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "4",
    "auto.create.topics.enable": "false",
    "log.retention.ms": "-1",  # records with old timestamps must not vanish from under a test
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.session.timeout.ms": "6000",
    "group.consumer.min.heartbeat.interval.ms": "200",
    "group.consumer.heartbeat.interval.ms": "1000",
    # After a SIGKILL the controller refuses the same node until this has passed: with the 9 s of the default a
    # restart took 12 s, so it takes 5.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
}

# A broker here lives for minutes, so the JVM's second compiler never earns what it takes: with the first alone 300
# transactions cost 2.8 seconds of CPU instead of 5.1, and a start 2.3 s instead of 2.9.
JVM = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")

# Ends the broker and removes its folder when this process is gone, however it went: then the pipe closes, and read
# returns. It is told the pid on a line, and an empty line where there is none. PR_SET_PDEATHSIG would do so on Linux
# only, and would end the broker with the thread that started it.
_WATCHER = """
pid=
while read -r line; do pid=$line; done
tries=0
if [ -n "$pid" ]; then
  kill -KILL "$pid"
  while kill -0 "$pid" 2>/dev/null && [ $tries -lt 50 ]; do sleep 0.1; tries=$((tries + 1)); done
fi
rm -rf -- "$1"
"""


class ApacheKafka:
    """One broker; a context manager that starts it and stops it.

    `cache` is the folder of the jars (`default_cache()`), `settings` are added to the broker's own or replace them,
    `deadline_s` bounds each start. Its data and its log are in a temporary folder. When it is closed, and also when
    this process is killed, the broker ends and the folder goes. Ctrl-C in the terminal does not reach the broker; the
    context manager stops it.

    Entering raises UserError where it cannot run here, and DependencyDown with the end of the log where it does not
    start. Linux and macOS; `cpu_seconds` needs Linux.
    """

    def __init__(
        self, cache: Path | None = None, settings: Mapping[str, str] | None = None, deadline_s: float = 60.0
    ) -> None:
        self._cache = cache or default_cache()
        self._extra = dict(settings or {})
        self.deadline_s = deadline_s
        # Kafka's own form of a cluster's id: a UUID in URL-safe base64 without padding. StorageTool takes one that
        # starts with a dash for an option.
        self._cluster_id = "k" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[1:22]
        self.folder = Path()
        self._jars = Path()
        self._log_start = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None
        self.address = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The broker's process. Raises UserError where it does not run."""
        if self._process is None:
            raise UserError("this Apache Kafka is not running; start it first")
        return self._process.pid

    def cpu_seconds(self) -> float:
        """User and system time that the broker's process has used since its start, in seconds (proc(5), Linux only)."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError as error:
            raise UserError("the broker's CPU time is read from /proc, which is not here") from error
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def start(self) -> None:
        """Download where needed, format, start, and wait until it answers."""
        if self._watcher is not None:
            raise UserError("this Apache Kafka is started already; use restart")
        self._jars = fetch(self._cache)
        self.folder = Path(tempfile.mkdtemp(prefix="tagbus-kafka-"))
        try:
            self._watcher = subprocess.Popen(
                ["sh", "-c", _WATCHER, "sh", str(self.folder)], stdin=subprocess.PIPE, start_new_session=True
            )
            self._start_on_free_ports(tries=3)
        except BaseException:
            self.close()
            raise

    def restart(self) -> None:
        """Start it again on the same ports and data, after `kill` or `stop`; where it runs it is stopped first."""
        if self._watcher is None:
            raise UserError("this Apache Kafka was never started, or is closed")
        self.stop()
        self._launch()

    def stop(self) -> None:
        """SIGTERM, then SIGKILL after 20 s. The data stay until `close`."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._forget()

    def kill(self) -> None:
        """SIGKILL, as a machine that loses power."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._forget()

    def close(self) -> None:
        """Stop it and remove its folder. A second call does nothing."""
        self.stop()
        if self._watcher is not None and self._watcher.stdin is not None:
            self._watcher.stdin.close()
            self._watcher.wait()
            self._watcher = None
            shutil.rmtree(self.folder, ignore_errors=True)

    def log_tail(self, lines: int = 20) -> str:
        """The last lines that the broker wrote since it was last started, at most 8 kB of them."""
        try:
            text = (self.folder / "kafka.log").read_bytes()[self._log_start :]
        except OSError:
            return ""
        return tail(text.decode(errors="replace"), lines)

    def _start_on_free_ports(self, tries: int) -> None:
        (self.folder / "log4j2.yaml").write_text(_LOGGING)
        self._configure()
        self._format()
        for left in reversed(range(tries)):
            try:
                self._launch()
                return
            except DependencyDown as error:
                if _TAKEN not in str(error) or not left:
                    raise
                self._configure()

    def _configure(self) -> None:
        broker, controller = _free_ports(2)
        self.address = f"{_HOST}:{broker}"
        self._write(
            {
                "listeners": f"PLAINTEXT://{self.address},CONTROLLER://{_HOST}:{controller}",
                "advertised.listeners": f"PLAINTEXT://{self.address}",
                "controller.quorum.voters": f"1@{_HOST}:{controller}",
            }
        )

    def _write(self, ours: Mapping[str, str]) -> None:
        """The broker's settings; those of the caller come last and count."""
        folder = {"log.dirs": str(self.folder / "data")}
        lines = [f"{key}={value}\n" for key, value in {**SETTINGS, **folder, **ours, **self._extra}.items()]
        (self.folder / "server.properties").write_text("".join(lines))

    def _format(self) -> None:
        tool = ["kafka.tools.StorageTool", "format", "-t", self._cluster_id, "-c", "server.properties", *self._users()]
        try:
            done = subprocess.run(
                self._java(*tool), cwd=self.folder, capture_output=True, text=True, timeout=self.deadline_s, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise DependencyDown(f"Apache Kafka did not format its folder in {self.deadline_s:g} s") from error
        if done.returncode:
            raise DependencyDown(f"Apache Kafka cannot format its folder:\n{tail(done.stdout + done.stderr)}")

    def _users(self) -> list[str]:
        """Options of StorageTool that make users."""
        return []

    def _launch(self) -> None:
        with (self.folder / "kafka.log").open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                self._java("kafka.Kafka", "server.properties"),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._tell(str(self._process.pid))
        end = time.monotonic() + self.deadline_s
        while not self._answers():
            code = self._process.poll()
            if code is not None:
                self._forget()
                raise DependencyDown(f"Apache Kafka ended with code {code} as it started; its log:\n{self.log_tail()}")
            if time.monotonic() > end:
                self.kill()
                raise DependencyDown(f"Apache Kafka is silent after {self.deadline_s:g} s; its log:\n{self.log_tail()}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        """Whether this very cluster answers at the address, and not another that took the port."""
        host, _, port = self.address.partition(":")
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
            metadata = AdminClient({"bootstrap.servers": self.address, "log_level": 0}).list_topics(timeout=2)
        except (OSError, KafkaException):
            return False
        return bool(metadata.brokers) and metadata.cluster_id == self._cluster_id

    def _java(self, *arguments: str) -> list[str]:
        return ["java", *JVM, "-Dlog4j2.configurationFile=log4j2.yaml", "-cp", f"{self._jars}/*", *arguments]

    def _forget(self) -> None:
        self._process = None
        self._tell("")

    def _tell(self, pid: str) -> None:
        if self._watcher is not None and self._watcher.stdin is not None:
            with suppress(BrokenPipeError):  # somebody ended the watcher: the broker is still ours to stop
                self._watcher.stdin.write(f"{pid}\n".encode())
                self._watcher.stdin.flush()


def _free_ports(count: int) -> list[int]:
    """Ports that are free now, below those that the system gives to clients.

    A client that connects again and again to a closed port of that range ends up connected to itself, and keeps the
    port.
    """
    ports: list[int] = []
    while len(ports) < count:
        port = random.randint(20_000, 32_000)  # noqa: S311 no secret
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((_HOST, port))
            except OSError:
                continue
        if port not in ports:
            ports.append(port)
    return ports
