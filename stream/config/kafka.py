"""Settings of the Kafka cluster, its topics and the schema registry."""

import socket
from typing import Literal

from pydantic import ConfigDict, Field, SecretStr, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from tagbus.stream.config.base.environment import PREFIX
from tagbus.stream.config.base.section import Section
from tagbus.stream.config.base.types import Brokers, ClientName, Properties, TopicName, Url

# librdkafka properties that hold a password, a private key or a client secret.
CONFIDENTIAL = frozenset(
    {
        "sasl.oauthbearer.assertion.private.key.passphrase",
        "sasl.oauthbearer.assertion.private.key.pem",
        "sasl.oauthbearer.client.secret",
        "sasl.oauthbearer.config",
        "sasl.password",
        "ssl.key.password",
        "ssl.key.pem",
        "ssl.keystore.password",
    }
)

# `tagbus feedback` has the group and the transactional id of the workers with this suffix.
JOINER = "-feedback"


class KafkaSettings(Section):
    """The Kafka cluster, and this process's identity on it."""

    brokers: Brokers = Field("127.0.0.1:9092", description="host:port, several with commas")
    group: ClientName = Field("tagbus", description="consumer group of the workers")
    transactional_id: str = Field("tagbus", min_length=1, description="prefix of transactional.id: one ACL covers all")
    instance: ClientName = Field(
        default_factory=socket.gethostname, description="this worker's name, unique in the group"
    )
    delivery: Literal["exactly_once", "at_least_once"] = "exactly_once"
    group_protocol: Literal["classic", "consumer"] = Field(
        "classic", description="group.protocol; consumer is KIP-848 and needs brokers from 4.0"
    )
    membership: Literal["dynamic", "static"] = Field(
        "dynamic", description="static: kafka.instance is also group.instance.id, so a quick restart moves no partition"
    )
    start: Literal["earliest", "latest"] = Field("earliest", description="where a group without offsets begins")
    out_of_range: Literal["stop", "earliest", "latest"] = Field(
        "stop", description="if a committed offset is no longer on the broker: exit with code 11, or continue there"
    )
    transaction_seconds: float = Field(60.0, ge=1, description="transaction.timeout.ms, in seconds")
    session_seconds: float = Field(45.0, ge=1, description="session.timeout.ms, in seconds")
    poll_seconds: float = Field(300.0, ge=1, description="max.poll.interval.ms, in seconds")
    options: Properties = Field({}, description="librdkafka properties for every client, passed through")
    secrets: dict[str, SecretStr] = Field({}, description="the same for passwords and keys; masked in all output")

    @field_validator("options", mode="after")
    @classmethod
    def _no_secrets(cls, options: dict[str, str]) -> dict[str, str]:
        if found := sorted(CONFIDENTIAL & options.keys()):
            raise PydanticCustomError("secret", "{name} is a secret, set it in kafka.secrets", {"name": found[0]})
        return options

    def client(self) -> dict[str, str | int | float | bool]:
        """Base properties of every librdkafka client of this process. Contains secrets: never log it."""
        revealed = {name: secret.get_secret_value() for name, secret in self.secrets.items()}
        return {"bootstrap.servers": self.brokers, "client.id": f"tagbus-{self.instance}", **self.options, **revealed}


class TopicSettings(Section):
    """The names of the topics, all distinct."""

    # Defaults are validated too: `content=tagged` collides with the default of another setting.
    model_config = ConfigDict(validate_default=True)

    content: TopicName = "content"
    tags: TopicName = "tags"
    exemplars: TopicName = "exemplars"
    knowledge: TopicName = Field("knowledge", description="definitions, rules and news for prompts, compacted")
    tagged: TopicName = "tagged"
    dead_letters: TopicName = "content.dlq"
    versions: TopicName = Field("content.versions", description="the published version of each content, compacted")
    releases: TopicName = Field("releases", description="the releases and which is in force, compacted, one partition")
    feedback: TopicName = Field("feedback", description="people's decisions, kept by time")
    feedback_state: TopicName = Field("feedback.state", description="the decisions on each content, compacted")
    feedback_dead_letters: TopicName = Field("feedback.dlq", description="decisions that can never be read")
    budget: TopicName = Field("budget", description="the judge's spending, compacted; used if there is a limit")
    partitions: int = Field(12, ge=1, description="for `tagbus topics create`")
    replication: int = Field(1, ge=1, description="for `tagbus topics create`; 3 in production")

    @field_validator(
        *("content", "tags", "exemplars", "knowledge", "tagged", "dead_letters", "versions", "releases"),
        *("feedback", "feedback_state", "feedback_dead_letters", "budget"),
        mode="after",
    )
    @classmethod
    def _own(cls, name: str, found: ValidationInfo) -> str:
        # A worker whose dead letters went to `content` would read them and dead-letter each again.
        if other := next((field for field, taken in found.data.items() if taken == name), None):
            variable = f"{PREFIX}TOPICS__{other.upper()}"
            raise PydanticCustomError("topic", "{other} names the same topic, expected another", {"other": variable})
        return name


class RegistrySettings(Section):
    """Confluent's schema registry: results are produced in its wire format, with the schema id before the JSON."""

    url: Url | None = Field(None, description="URL of the registry; unset: no registry")
    user: str | None = None
    password: SecretStr | None = None
