"""Setting types with validation: addresses of brokers, names of topics and clients, properties."""

import re
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator
from pydantic_core import PydanticCustomError

# librdkafka accepts the protocol of a listener before the host. It waits forever for an invalid host name, so anything
# else around an address is rejected: quotes, schemes of other clients, paths.
_BROKER: Final = re.compile(
    r"((PLAINTEXT|SSL|SASL_PLAINTEXT|SASL_SSL)://)?(\[[0-9A-Fa-f:.]+(%[\w.-]+)?\]|[\w.-]+)(:(?P<port>\d{1,5}))?",
    re.IGNORECASE | re.ASCII,
)
_TOPIC: Final = re.compile(r"[a-zA-Z0-9._-]{1,249}")
_NAME: Final = re.compile(r"[!-~]+")
_URL: Final = re.compile(r"https?://[^\s/]\S*")
_LAST_PORT: Final = 65_535


def _brokers(value: str) -> str:
    """The addresses without white space and empty parts."""
    parts = [part.strip() for part in value.split(",") if part.strip()]
    for part in parts:
        found = _BROKER.fullmatch(part)
        if found is None or not 0 < int(found["port"] or "9092") <= _LAST_PORT:
            raise _no_brokers()
    if not parts:
        raise _no_brokers()
    return ",".join(parts)


def _no_brokers() -> PydanticCustomError:
    return PydanticCustomError("brokers", "expected host:port, several with commas, IPv6 as [::1]:9092")


def _topic(value: str) -> str:
    if not _TOPIC.fullmatch(value) or value in {".", ".."}:
        words = "expected 1 to 249 ASCII letters, digits, dots, dashes and underscores, as Kafka requires"
        raise PydanticCustomError("topic_name", words)
    return value


def _client_name(value: str) -> str:
    # A transaction carries the group and the member id, which begins with the client id. librdkafka accepts only
    # visible ASCII for both, and reports other characters only at the first commit.
    if not _NAME.fullmatch(value):
        raise PydanticCustomError("client_name", "expected visible ASCII characters, no spaces")
    return value


def _as_text(value: object) -> object:
    """Convert JSON numbers and booleans to the text that librdkafka expects."""
    if not isinstance(value, dict):
        return value
    return {name: _scalar(one) for name, one in value.items()}


def _scalar(value: object) -> object:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case _:
            return value


def _url(value: str) -> str:
    if not _URL.fullmatch(value):
        raise PydanticCustomError("url", "expected http:// or https://, a host and the path of the API")
    return value.rstrip("/")


def _words(value: object) -> object:
    """Split a comma-separated variable; a tuple is left unchanged."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


Words: Final = BeforeValidator(_words)
Brokers = Annotated[str, AfterValidator(_brokers)]
ClientName = Annotated[str, AfterValidator(_client_name)]
TopicName = Annotated[str, AfterValidator(_topic)]
Properties = Annotated[dict[str, str], BeforeValidator(_as_text)]
Url = Annotated[str, AfterValidator(_url)]
