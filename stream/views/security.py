"""Translate the security properties of kafka.options and kafka.secrets from librdkafka to aiokafka."""

import ssl
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import faust
from faust.types.auth import CredentialsT

from tagbus.stream.config import KafkaSettings
from tagbus.stream.errors import UserError, shorten

PLAINTEXT: Final = "PLAINTEXT"
PROTOCOLS: Final = (PLAINTEXT, "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
# The translated properties. Any other security property is refused: without it the connection would not be as
# configured.
KNOWN: Final = frozenset(
    {
        "enable.ssl.certificate.verification",
        "sasl.mechanism",
        "sasl.mechanisms",
        "sasl.password",
        "sasl.username",
        "security.protocol",
        "ssl.ca.location",
        "ssl.ca.pem",
        "ssl.certificate.location",
        "ssl.certificate.pem",
        "ssl.endpoint.identification.algorithm",
        "ssl.key.location",
        "ssl.key.password",
        "ssl.key.pem",
    }
)
ABOUT: Final = ("security.", "sasl.", "ssl.", "enable.ssl.", "enable.sasl.")


def credentials(kafka: KafkaSettings) -> CredentialsT | None:
    """Faust's credentials; None: unencrypted and unauthenticated.

    Raises UserError for an unsupported property, and for a file or a key that cannot be read.
    """
    given = _given(kafka)
    protocol = given.get("security.protocol", PLAINTEXT).upper()
    if protocol not in PROTOCOLS:
        raise _refused("security.protocol", protocol, ", ".join(PROTOCOLS))
    context = _context(given) if protocol.endswith("SSL") else None
    if protocol.startswith("SASL"):
        return _sasl(given, context)
    return None if context is None else faust.SSLCredentials(context)


def servers(kafka: KafkaSettings) -> list[str]:
    """The brokers in Faust's form: a URL each, without the protocol of a listener."""
    return [f"kafka://{one.rpartition('://')[2]}" for one in kafka.brokers.split(",")]


def _given(kafka: KafkaSettings) -> dict[str, str]:
    given = {**kafka.options, **{name: secret.get_secret_value() for name, secret in kafka.secrets.items()}}
    for name in sorted(given):
        if name.startswith(ABOUT) and name not in KNOWN:
            raise UserError(f"kafka.options: {name} is not for `tagbus views`, which take {', '.join(sorted(KNOWN))}")
    return given


def _sasl(given: Mapping[str, str], context: ssl.SSLContext | None) -> CredentialsT:
    mechanism = given.get("sasl.mechanism", given.get("sasl.mechanisms", "")).upper()
    if mechanism not in MECHANISMS:
        raise _refused("sasl.mechanism", mechanism, f"for `tagbus views` {', '.join(MECHANISMS)}")
    return faust.SASLCredentials(
        mechanism=mechanism,
        username=given.get("sasl.username", ""),
        password=given.get("sasl.password", ""),
        ssl_context=context,
    )


def _context(given: Mapping[str, str]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=given.get("ssl.ca.location"), cadata=given.get("ssl.ca.pem"))
        if given.get("ssl.endpoint.identification.algorithm", "https") == "none":
            context.check_hostname = False
        if given.get("enable.ssl.certificate.verification", "true").lower() == "false":
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        _identify(context, given)
    except (OSError, ValueError) as error:
        # The paths are the user's own; these messages never contain the text of a PEM.
        raise UserError(f"kafka.options: the files or texts of ssl.* cannot be used: {error}") from None
    return context


def _identify(context: ssl.SSLContext, given: Mapping[str, str]) -> None:
    """The client's own certificate, if it has one. The ssl module reads it only from files."""
    password = given.get("ssl.key.password")
    with tempfile.TemporaryDirectory(prefix="tagbus-") as folder:
        files = {}
        for part in ("certificate", "key"):
            files[part] = given.get(f"ssl.{part}.location")
            if (text := given.get(f"ssl.{part}.pem")) is not None:
                path = Path(folder, part)
                path.touch(0o600)
                path.write_text(text, encoding="ascii")
                files[part] = str(path)
        if files["certificate"] is not None:
            context.load_cert_chain(files["certificate"], files["key"], password)


def _refused(name: str, value: str, right: str) -> UserError:
    return UserError(f"kafka.options: {name} is {shorten(value)}, expected {right}")
