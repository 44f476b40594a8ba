"""One frozen tree of settings; the only code that reads them from the environment.

`TAGBUS_KAFKA__BROKERS=broker:9092` sets `kafka.brokers`. An empty value counts as unset, because compose files set
variables to nothing if no value was given. White space around a value is stripped. `tagbus config` prints the effective
tree, secrets masked.
"""

from tagbus.stream.config.base.environment import PREFIX
from tagbus.stream.config.base.section import Section
from tagbus.stream.config.encoder import EncoderSettings, Provider, ReleaseSettings
from tagbus.stream.config.feedback import FeedbackSettings
from tagbus.stream.config.health import HealthSettings
from tagbus.stream.config.kafka import CONFIDENTIAL, JOINER, KafkaSettings, RegistrySettings, TopicSettings
from tagbus.stream.config.llm import BudgetSettings, CascadeSettings, LlmSettings
from tagbus.stream.config.memory import CollectionSettings, MemorySettings
from tagbus.stream.config.settings import Settings, load
from tagbus.stream.config.tagging import KnowledgeSettings, RecallSettings, TaggerSettings
from tagbus.stream.config.telemetry import DriftSettings, LogSettings, OtelSettings
from tagbus.stream.config.views import ViewsSettings
from tagbus.stream.config.web import WebSettings
from tagbus.stream.config.work import BatchSettings, RetrySettings, TriageSettings

__all__ = [
    "CONFIDENTIAL",
    "JOINER",
    "PREFIX",
    "BatchSettings",
    "BudgetSettings",
    "CascadeSettings",
    "CollectionSettings",
    "DriftSettings",
    "EncoderSettings",
    "FeedbackSettings",
    "HealthSettings",
    "KafkaSettings",
    "KnowledgeSettings",
    "LlmSettings",
    "LogSettings",
    "MemorySettings",
    "OtelSettings",
    "Provider",
    "RecallSettings",
    "RegistrySettings",
    "ReleaseSettings",
    "RetrySettings",
    "Section",
    "Settings",
    "TaggerSettings",
    "TopicSettings",
    "TriageSettings",
    "ViewsSettings",
    "WebSettings",
    "load",
]
