"""Setting types with validation: addresses, names of topics and clients, keys, headers, properties."""

import re
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr
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
_KEY: Final = re.compile(r"[!-~]+( +[!-~]+)*")
_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
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


def _plain(value: str) -> str:
    """An address alone: it is part of messages, and of what `tagbus config` prints."""
    if not {"@", "?", "#"}.isdisjoint(value):
        raise PydanticCustomError(
            "secret", "expected an address alone: user, password and key have settings of their own"
        )
    return value


def _url(value: str) -> str:
    if not _is_url(_plain(value)):
        raise _no_url("url")
    return value.rstrip("/")


def _search_url(value: str) -> str:
    """It may have parameters, and a key among them."""
    if not _is_url(value) or "@" in urlsplit(value).netloc:
        raise _no_url("url" if {"@", "?"}.isdisjoint(value) else "secret")
    return value


def _is_url(value: str) -> bool:
    """Whether clients accept it: they raise errors of their own at the first request, with the value."""
    try:
        parts = urlsplit(value)
        host = (parts.hostname or "").encode("idna")
        return bool(_URL.fullmatch(value) and value.isprintable() and host and parts.port != 0)
    except ValueError:
        return False


def _no_url(kind: str) -> PydanticCustomError:
    return PydanticCustomError(kind, "expected http:// or https://, a host and the path of the API")


def _key(value: SecretStr) -> SecretStr:
    # Clients raise at the first request, some with the value in the message.
    if not _KEY.fullmatch(value.get_secret_value()):
        raise PydanticCustomError("secret", "expected visible ASCII characters, as HTTP headers have them")
    return value


def _header(value: str) -> str:
    if not _HEADER.fullmatch(value):
        raise PydanticCustomError("header", "expected the name of an HTTP header")
    return value


def _words(value: object) -> object:
    """Split a comma-separated variable; a tuple is left unchanged."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


Words: Final = BeforeValidator(_words)
Brokers = Annotated[str, AfterValidator(_brokers)]
ClientName = Annotated[str, AfterValidator(_client_name)]
TopicName = Annotated[str, AfterValidator(_topic)]
Properties = Annotated[dict[str, str], BeforeValidator(_as_text)]
Url = Annotated[str, AfterValidator(_url)]
# Its parameters are kept.
SearchUrl = Annotated[str, AfterValidator(_search_url)]
# Checked where it is used.
PlainUrl = Annotated[str, AfterValidator(_plain)]
Key = Annotated[SecretStr, AfterValidator(_key)]
Headers = dict[Annotated[str, AfterValidator(_header)], Key]
