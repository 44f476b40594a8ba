"""The root of the settings tree, and its loading from the environment."""

from collections.abc import Mapping
from functools import cache

from pydantic import JsonValue, ValidationError, ValidationInfo, field_validator
from pydantic_core import InitErrorDetails, PydanticCustomError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from tagbus.stream.config.base import environment
from tagbus.stream.config.base.environment import PREFIX
from tagbus.stream.config.base.section import Section
from tagbus.stream.config.encoder import EncoderSettings, ReleaseSettings
from tagbus.stream.config.feedback import FeedbackSettings
from tagbus.stream.config.health import HealthSettings
from tagbus.stream.config.kafka import JOINER, KafkaSettings, RegistrySettings, TopicSettings
from tagbus.stream.config.llm import BudgetSettings, CascadeSettings, LlmSettings
from tagbus.stream.config.memory import MemorySettings
from tagbus.stream.config.tagging import KnowledgeSettings, RecallSettings, TaggerSettings
from tagbus.stream.config.telemetry import DriftSettings, LogSettings, OtelSettings
from tagbus.stream.config.views import ViewsSettings, group_beside
from tagbus.stream.config.web import WebSettings
from tagbus.stream.config.work import BatchSettings, RetrySettings, TriageSettings
from tagbus.stream.errors import UserError


class Settings(BaseSettings):
    """The root of the settings tree."""

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
    knowledge: KnowledgeSettings = KnowledgeSettings()
    # Components by name: each validates its own section (recall/component.py).
    components: Mapping[str, Mapping[str, JsonValue]] = {}
    llm: LlmSettings = LlmSettings()
    tagger: TaggerSettings = TaggerSettings()
    feedback: FeedbackSettings = FeedbackSettings()
    budget: BudgetSettings = BudgetSettings()
    cascade: CascadeSettings = CascadeSettings()
    web: WebSettings = WebSettings()
    views: ViewsSettings = ViewsSettings()
    health: HealthSettings = HealthSettings()
    log: LogSettings = LogSettings()
    otel: OtelSettings = OtelSettings()
    drift: DriftSettings = DriftSettings()

    @field_validator("views", mode="after")
    @classmethod
    def _apart(cls, views: ViewsSettings, found: ValidationInfo) -> ViewsSettings:
        """The views with a group of their own."""
        kafka = found.data.get("kafka")
        if not isinstance(kafka, KafkaSettings):
            # It is wrong, and named already.
            return views
        if "group" not in views.model_fields_set:
            return views.model_copy(update={"group": group_beside(kafka.group)})
        if views.group in {kafka.group, kafka.group + JOINER}:
            # Members of one group must share a way of assigning partitions, and the views never join.
            words = "the group of `tagbus run` or `tagbus feedback` (kafka.group={workers}), expected another"
            wrong = PydanticCustomError("group", words, {"workers": kafka.group})
            line = InitErrorDetails(type=wrong, loc=("group",), input=views.group)
            raise ValidationError.from_exception_data("views", [line])
        return views

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
