"""One frozen tree of settings; with `environment`, the only code that reads them from the environment.

`TAGBUS_KAFKA__BROKERS=broker:9092` sets `kafka.brokers`; an empty value is as none, since a compose file sets variables
to nothing that nobody gave, and white space around a value is none of it. `tagbus config` prints the effective tree,
secrets masked.
"""

import socket
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from tagbus.stream import environment
from tagbus.stream.environment import PREFIX as PREFIX
from tagbus.stream.errors import UserError
from tagbus.stream.setting_types import Brokers, ClientName, Properties, TopicName

Provider = Literal["tensorrt", "cuda", "cpu"]
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


class Section(BaseModel):
    """A section of the tree: frozen, and unknown names are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


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
        "stop", description="when a committed offset is no longer on the broker: end with code 11, or continue there"
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
    """The names of the topics, each another one."""

    # Defaults too: `content=tagged` names the topic of a setting that is not set.
    model_config = ConfigDict(validate_default=True)

    content: TopicName = "content"
    tags: TopicName = "tags"
    exemplars: TopicName = "exemplars"
    knowledge: TopicName = Field("knowledge", description="definitions, rules and news for prompts, compacted")
    tagged: TopicName = "tagged"
    dead_letters: TopicName = "content.dlq"
    versions: TopicName = Field("content.versions", description="the published version of each content, compacted")
    releases: TopicName = Field("releases", description="the releases and which is in force, compacted, one partition")
    partitions: int = Field(12, ge=1, description="for `tagbus topics create`")
    replication: int = Field(1, ge=1, description="for `tagbus topics create`; 3 in production")

    @field_validator(
        "content", "tags", "exemplars", "knowledge", "tagged", "dead_letters", "versions", "releases", mode="after"
    )
    @classmethod
    def _own(cls, name: str, found: ValidationInfo) -> str:
        # A worker whose dead letters went to `content` would read them, and set each aside again.
        if other := next((field for field, taken in found.data.items() if taken == name), None):
            variable = f"{PREFIX}TOPICS__{other.upper()}"
            raise PydanticCustomError("topic", "{other} names the same topic, expected another", {"other": variable})
        return name


class BatchSettings(Section):
    """How content is batched, and how much of it may be in flight."""

    contents: int = Field(128, ge=1, le=10_000, description="contents per batch at most")
    seconds: float = Field(0.1, ge=0, description="how long a batch waits to fill")
    in_flight: int = Field(
        4, ge=1, description="batches tagged concurrently; as many in flight per partition, four times as many in total"
    )
    in_flight_bytes: int = Field(64_000_000, ge=1_000_000, description="bytes of values in flight at most")
    drain_seconds: float = Field(20.0, gt=0, description="how long a stop or a revoke waits for batches in flight")
    record_bytes: int = Field(
        1_000_000, ge=10_000, description="largest outgoing value; keep below max.message.bytes, headers need room"
    )


class RetrySettings(Section):
    """Backoff with full jitter while a dependency is down."""

    first_seconds: float = Field(0.1, gt=0)
    cap_seconds: float = Field(10.0, gt=0)
    deadline_seconds: float | None = Field(
        None, gt=0, description="how long a dependency may be down before the worker ends with code 4; unset: forever"
    )


class TriageSettings(Section):
    """What is dead-lettered, and what is skipped."""

    poison_share: float = Field(
        0.2, gt=0, le=1, description="share of recent contents that may be dead-lettered before the worker ends; 1: any"
    )
    poison_window: int = Field(1000, ge=10, description="number of recent contents for poison_share")
    deadly_starts: int = Field(
        3, ge=2, le=100, description="starts after which a content that crashes the process is dead-lettered"
    )
    duplicates: Literal["publish", "skip"] = Field(
        "publish",
        description="an unchanged content that comes again: tag and publish it again, or skip it",
    )
    versions: int = Field(1_000_000, ge=0, description="published versions kept in memory at most")


class RegistrySettings(Section):
    """Confluent's schema registry: results are produced in its wire format, with the schema id before the JSON."""

    url: str | None = Field(None, description="of the registry; none if unset")
    user: str | None = None
    password: SecretStr | None = None

    @field_validator("url", mode="after")
    @classmethod
    def _no_password(cls, url: str | None) -> str | None:
        if "@" in (url or ""):
            raise PydanticCustomError("secret", "an address alone, the rest in registry.user and registry.password")
        return url


class EncoderSettings(Section):
    """Encoding of texts: by ONNX Runtime in-process, or by Triton."""

    kind: Literal["in_process", "triton"] = "in_process"
    folder: Path | None = Field(None, description="folder of the release; unset: the one shipped in the package")
    threads: int = Field(
        0, ge=0, description="in-process threads; 0: all cores that its container may use, on a GPU two"
    )
    providers: Annotated[tuple[Provider, ...], NoDecode] = Field(
        ("cpu",), description="in-process ONNX Runtime providers, most preferred first: tensorrt, cuda, cpu; commas"
    )
    fp16: bool = Field(False, description="whether TensorRT computes in FP16; its vectors belong to another release")
    engines: Path | None = Field(None, description="TensorRT's cache folder of built engines; unset: none")
    address: str = Field("127.0.0.1:8001", description="Triton's gRPC, host:port; several with commas")
    model: str = Field("encoder", min_length=1, description="Triton's name of the model")
    version: int = Field(1, ge=1, description="Triton's version of the model, which every request names")
    deadline_seconds: float = Field(10.0, gt=0, description="deadline of a request to Triton, retries included")
    in_flight: int = Field(8, ge=1, le=1000, description="requests in flight at Triton, over all servers")
    cache: int = Field(10_000, ge=0, description="vectors cached by text in front of Triton; 0: none")
    tls: bool = Field(False, description="whether to use TLS with Triton's gRPC")
    tls_ca: Path | None = Field(None, description="PEM of the CAs that verify Triton's certificate")
    tls_certificate: Path | None = Field(None, description="PEM of this worker's certificate, if Triton requires one")
    tls_key: Path | None = Field(None, description="PEM of its key")

    @field_validator("providers", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        found = tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value
        if not isinstance(found, tuple | list) or not found or not set(found) <= set(get_args(Provider)):
            raise PydanticCustomError("providers", "expected tensorrt, cuda or cpu, several with commas")
        return found


class ReleaseSettings(Section):
    """Releases that are switched without a restart."""

    folder: Path | None = Field(
        None, description="folder with a subfolder for each release, by name; unset: only encoder.folder"
    )


class MemorySettings(Section):
    """The vector store for tags and exemplars."""

    kind: Literal["exact", "hnsw", "embedded", "server"] = "exact"
    path: Path | None = Field(None, description="folder of the embedded engine; a temporary one if unset")
    url: str = Field("http://127.0.0.1:6333", description="Qdrant server, with its port")
    api_key: SecretStr | None = None
    ca_file: Path | None = Field(None, description="PEM of the authority that signed the server's certificate")
    certificate_file: Path | None = Field(None, description="PEM of the client certificate for the server")
    key_file: Path | None = Field(None, description="PEM of the client certificate's key, if it is in another file")
    namespace: str = Field(
        "tagbus", pattern=r"^[A-Za-z0-9_-]{1,60}$", description="what the names of collections on the server begin with"
    )
    deadline_seconds: float = Field(10.0, gt=0, description="for a call to the server")
    request_bytes: int = Field(
        800_000, ge=20_000, description="largest request to the server; proxies often allow 1 MB"
    )
    max_age_seconds: float = Field(
        300.0, gt=30, description="a worker is not ready if the shared memory was last complete longer ago"
    )
    tombstone_hours: float = Field(24.0, gt=0, description="delete.retention.ms of the memory topics, in hours")


class RecallSettings(Section):
    """Overrides of the release's recall parameters; unset: the release's fitted value."""

    c2t: bool = Field(True, description="recall by similarity of content and tag (LLM4Tag, C2T)")
    c2c2t: bool = Field(True, description="recall through similar contents (LLM4Tag, C2C2T)")
    c2t_threshold: float | None = Field(None, ge=-1, le=1, description="least cosine of content and tag")
    c2t_limit: int | None = Field(None, ge=1, description="candidates by C2T at most")
    c2c_threshold: float | None = Field(None, ge=-1, le=1, description="least cosine of content and exemplar")
    c2c2t_limit: int | None = Field(None, ge=1, description="candidates by C2C2T at most")
    tau: float | None = Field(None, gt=0, description="temperature of RAE-XMC's softmax")
    lambda_: float | None = Field(
        None, ge=0, le=1, alias="lambda", description="RAE-XMC's share of exemplars against tags"
    )
    tag_keys: int | None = Field(None, ge=1, le=1000, description="tags among the b keys of RAE-XMC")
    content_keys: int | None = Field(None, ge=1, le=1000, description="exemplars among the b keys of RAE-XMC")


class TaggerSettings(Section):
    """Which scored candidates are published."""

    tags: int = Field(10, ge=1, le=1000, description="tags per content at most")
    least_confidence: float = Field(0.0, ge=0, le=1, description="tags below are left out")
    neighbours: int = Field(1, ge=0, le=100, description="neighbours named in a tag's evidence at most")
    calibration: Path | None = Field(None, description="JSON of `tagbus calibrate`; the release's own if unset")
    write_back: float | None = Field(
        None, ge=0, le=1, description="confidence from which a result becomes a machine exemplar; off if unset"
    )


class HealthSettings(Section):
    """/metrics, /livez and /readyz."""

    host: str = "127.0.0.1"
    port: int = Field(8780, ge=0, le=65535, description="0: any free port, which is logged")
    # A commit that begins as the brokers vanish blocks for up to kafka.session_seconds, 45.
    stall_seconds: float = Field(60.0, gt=0, description="not live if the poll loop has not turned for this long")


class Settings(BaseSettings):
    """The root of the tree."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter="__", frozen=True, extra="forbid")

    kafka: KafkaSettings = KafkaSettings()
    topics: TopicSettings = TopicSettings()
    batch: BatchSettings = BatchSettings()
    retry: RetrySettings = RetrySettings()
    triage: TriageSettings = TriageSettings()
    registry: RegistrySettings = RegistrySettings()
    encoder: EncoderSettings = EncoderSettings()
    releases: ReleaseSettings = ReleaseSettings()
    memory: MemorySettings = MemorySettings()
    recall: RecallSettings = RecallSettings()
    # Components by name: each validates its own section (recall/component.py).
    components: Mapping[str, Mapping[str, JsonValue]] = {}
    tagger: TaggerSettings = TaggerSettings()
    health: HealthSettings = HealthSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - it has those of service links too
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - there is one source
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """See pydantic-settings."""
        variables = EnvSettingsSource(settings_cls)
        variables.env_vars = {name.lower(): value for name, value in environment.variables(_fields()).items() if value}
        return init_settings, variables


def load() -> Settings:
    """Load the settings of this process.

    Raises UserError that names the variable, its value (never a secret's) and the expected value.
    """
    given = environment.checked(_fields())
    try:
        return Settings()
    except ValidationError as error:
        raise UserError(environment.in_one_line(error)) from None
    except SettingsError:
        raise UserError(environment.without_json(given, _fields())) from None


@cache
def _fields() -> Mapping[str, frozenset[str]]:
    """The fields of each section by variable; components know their own."""
    sections = {name: field.annotation for name, field in Settings.model_fields.items()}
    return {
        name.upper(): frozenset((field.alias or key).upper() for key, field in section.model_fields.items())
        if isinstance(section, type) and issubclass(section, Section)
        else frozenset()
        for name, section in sections.items()
    }
