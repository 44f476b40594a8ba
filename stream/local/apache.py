"""Apache Kafka as a child process: one KRaft node on 127.0.0.1."""

import base64
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path

from confluent_kafka import KafkaException

from tagbus.stream.config import KafkaSettings
from tagbus.stream.errors import DependencyDown
from tagbus.stream.kafka import clients
from tagbus.stream.local.child import HOST, Child, free_ports, reachable, tail
from tagbus.stream.local.jars import available, default_cache, fetch

__all__ = ["ApacheKafka", "available", "default_cache"]

# At INFO it logs megabytes.
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

# Settings of a single node, and timeouts of seconds instead of minutes for tests.
SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",  # the default of 50 makes the first start slow
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "4",
    "auto.create.topics.enable": "false",
    "log.retention.ms": "-1",  # records with old timestamps must not be deleted during a test
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.session.timeout.ms": "6000",
    "group.consumer.min.heartbeat.interval.ms": "200",
    "group.consumer.heartbeat.interval.ms": "1000",
    # After a SIGKILL the controller rejects the same node until this has passed: with the default of 9 s a restart took
    # 12 s, so it takes 5.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
}

# A broker here lives for minutes, so the JVM's second compiler does not pay off: with the first alone 300 transactions
# cost 2.8 seconds of CPU instead of 5.1, and a start 2.3 s instead of 2.9.
JVM = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")


class ApacheKafka(Child):
    """One broker; a context manager that starts and stops it.

    `cache` is the folder of the jars (`default_cache()`), `settings` extend or override the broker's, `deadline_s`
    bounds each start. Data and log are in a temporary folder, removed on exit.

    Entering raises UserError if it cannot run here, and DependencyDown with the end of the log if it does not start.
    Linux and macOS; `cpu_seconds` needs Linux.
    """

    name = "Apache Kafka"

    def __init__(
        self, cache: Path | None = None, settings: Mapping[str, str] | None = None, deadline_s: float = 300.0
    ) -> None:
        super().__init__(deadline_s)
        self._cache = cache or default_cache()
        self._extra = dict(settings or {})
        # Kafka's format of a cluster id: a UUID in URL-safe base64 without padding. StorageTool mistakes one that
        # starts with a dash for an option.
        self._cluster_id = "k" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[1:22]
        self._jars = Path()

    def _install(self) -> None:
        self._jars = fetch(self._cache)

    def _place(self) -> None:
        broker, controller = free_ports(2)
        self.address = f"{HOST}:{broker}"
        self._write(
            {
                "listeners": f"PLAINTEXT://{self.address},CONTROLLER://{HOST}:{controller}",
                "advertised.listeners": f"PLAINTEXT://{self.address}",
                "controller.quorum.voters": f"1@{HOST}:{controller}",
            }
        )

    def _write(self, ours: Mapping[str, str]) -> None:
        """Write the broker's settings; the caller's come last and take precedence."""
        folder = {"log.dirs": str(self.folder / "data")}
        lines = [f"{key}={value}\n" for key, value in {**SETTINGS, **folder, **ours, **self._extra}.items()]
        (self.folder / "server.properties").write_text("".join(lines), encoding="utf-8")

    def _prepare(self) -> None:
        (self.folder / "log4j2.yaml").write_text(_LOGGING, encoding="utf-8")
        tool = ["kafka.tools.StorageTool", "format", "-t", self._cluster_id, "-c", "server.properties", *self._users()]
        try:
            done = subprocess.run(
                self._java(*tool),
                cwd=self.folder,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=self.deadline_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise DependencyDown(f"Apache Kafka did not format its folder within {self.deadline_s:g} s") from error
        if done.returncode:
            raise DependencyDown(f"Apache Kafka cannot format its folder:\n{tail(done.stdout + done.stderr)}")

    def _users(self) -> list[str]:
        """StorageTool options that create users."""
        return []

    def _command(self) -> list[str]:
        return self._java("kafka.Kafka", "server.properties")

    def known(self) -> int:
        """The number of brokers it knows in its cluster, itself included; 0 if it does not answer."""
        if not reachable(self.address):
            return 0
        try:
            admin = clients.quiet_admin(KafkaSettings(brokers=self.address), lambda _: None)
            metadata = admin.list_topics(timeout=2)
        except KafkaException:
            return 0
        return len(metadata.brokers) if metadata.cluster_id == self._cluster_id else 0

    def _answers(self) -> bool:
        return self.known() > 0

    def _java(self, *arguments: str) -> list[str]:
        logging = "-Dlog4j2.configurationFile=log4j2.yaml"
        return ["java", *self._java_options(), logging, "-cp", f"{self._jars}/*", *arguments]

    def _java_options(self) -> list[str]:
        return list(JVM)
