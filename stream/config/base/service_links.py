"""Detect the environment variables that Kubernetes and Docker make for a service; they are not settings of tagbus.

A pod beside a Service `tagbus-views` has TAGBUS_VIEWS_SERVICE_HOST, TAGBUS_VIEWS_PORT and more; a container with a link
(`--link`) of that alias has similar ones. Both the name and the value must match their forms.

Sources: Kubernetes, "Service", environment variables; Docker, "Legacy container links".
"""

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Final

_PROTOCOL: Final = "TCP|UDP|SCTP"
_URL: Final = re.compile(r"(?:tcp|udp|sctp)://(?P<host>[^/\s]+):(?P<port>\d{1,5})")


def _is_ip(value: str) -> bool:
    try:
        ipaddress.ip_address(value.strip("[]"))
    except ValueError:
        return False
    return True


def is_address(value: str) -> bool:
    """Whether a value is protocol, IP address and port as in a link: tcp://10.0.0.5:80."""
    found = _URL.fullmatch(value)
    return found is not None and _is_ip(found["host"])


def _is_port(value: str) -> bool:
    return value.isascii() and value.isdigit() and int(value) < 65_536


def _is_protocol(value: str) -> bool:
    return value.upper() in _PROTOCOL.split("|")


# The suffix of a name after the service's, and the form of the value.
_FORMS: Final[tuple[tuple[re.Pattern[str], Callable[[str], bool]], ...]] = tuple(
    (re.compile(rf"(?P<service>[A-Z0-9_]*[A-Z0-9]){ending}"), form)
    for ending, form in (
        ("_SERVICE_HOST", _is_ip),
        (r"_SERVICE_PORT(?:_[A-Z0-9_]+)?", _is_port),
        ("_PORT", is_address),
        (rf"_PORT_\d+_(?:{_PROTOCOL})", is_address),
        (rf"_PORT_\d+_(?:{_PROTOCOL})_PROTO", _is_protocol),
        (rf"_PORT_\d+_(?:{_PROTOCOL})_PORT", _is_port),
        (rf"_PORT_\d+_(?:{_PROTOCOL})_ADDR", _is_ip),
    )
)
# Docker links also add the two containers' names, and the other container's variables, of any value.
_NAME: Final = re.compile(r"/[\w.-]+/[\w.-]+")


def service_links(environment: Mapping[str, str]) -> frozenset[str]:
    """The names of the variables that describe a service."""
    found = {name: service for name, value in environment.items() if (service := _service(name, value)) is not None}
    for service in set(found.values()):
        named = f"{service}_NAME"
        if _NAME.fullmatch(environment.get(named, "")):
            found[named] = service
            found |= {name: service for name in environment if name.startswith(f"{service}_ENV_")}
    return frozenset(found)


def _service(name: str, value: str) -> str | None:
    """The prefix of the service's variables, if this is one of them."""
    for ending, form in _FORMS:
        if (match := ending.fullmatch(name)) and form(value):
            return match["service"]
    return None
