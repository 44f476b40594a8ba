"""The connection to a Qdrant server: its address and certificates, the deadline of a call, and the meaning of
failures."""

import asyncio
import logging
import math
import ssl
import warnings
from collections.abc import Awaitable
from dataclasses import dataclass, field
from json import JSONDecodeError
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import SplitResult, urlsplit

import httpx
from qdrant_client import AsyncQdrantClient
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from tagbus.stream.config import CollectionSettings, MemorySettings
from tagbus.stream.errors import DependencyDown, Fatal, MemoryLost, Overloaded, TagbusError, UserError, shorten

log = logging.getLogger(__name__)

T = TypeVar("T")

# Timed out, too large, too early, too many.
LOADED: Final = {408, 413, 425, 429}
LOOPBACK: Final = {"127.0.0.1", "::1", "localhost"}


@dataclass(frozen=True, slots=True)
class Server:
    """A client of a Qdrant server, the server's name in errors, and the deadline of a call in seconds.

    `request_bytes`: the size of the largest request. `form`: that of the collections created there.
    """

    client: AsyncQdrantClient
    place: str
    seconds: float = 10.0
    request_bytes: int = 800_000
    form: CollectionSettings = field(default_factory=CollectionSettings)

    async def call(self, call: Awaitable[T]) -> T:
        """Call the server; failures become errors of our tree.

        Raises Overloaded if a smaller request may succeed, DependencyDown for any other failure that may pass,
        UserError for a key that it refuses, MemoryLost for a deleted collection, Fatal for any other refusal.
        """
        try:
            async with asyncio.timeout(self.seconds):
                return await call
        except TimeoutError:
            raise self._slow() from None
        except ResponseHandlingException as error:
            if isinstance(error.source, httpx.TimeoutException):
                raise self._slow() from error
            reason = shorten(f"{type(error.source).__name__}: {error.source}", 200)
            raise DependencyDown(f"Qdrant at {self.place} does not answer: {reason}") from error
        except QdrantException as error:
            raise Overloaded(f"Qdrant at {self.place} is overloaded: {shorten(str(error), 200)}") from error
        except (AssertionError, AttributeError, JSONDecodeError) as error:
            # The client raises these for an answer without a result, and for one that is not JSON: a proxy's page.
            raise DependencyDown(f"Qdrant at {self.place} does not answer like Qdrant") from error
        except UnexpectedResponse as error:
            raise self._meaning(error) from error

    def _slow(self) -> Overloaded:
        return Overloaded(f"Qdrant at {self.place} did not answer within {self.seconds:g} s")

    def _meaning(self, error: UnexpectedResponse) -> TagbusError:
        status = error.status_code or 0
        said = f"Qdrant at {self.place} answered {status} {error.reason_phrase}"
        if status == 413:
            return Overloaded(
                f"{said}: a request of {self.request_bytes} bytes is too large, lower "
                "TAGBUS_MEMORY__REQUEST_BYTES or raise the proxy's limit"
            )
        if status in LOADED:
            return Overloaded(said)
        found = shorten(error.content, 200)
        if status >= 500:
            return DependencyDown(f"{said}: {found}")
        if status in (401, 403):
            return UserError(f"{said}: it does not accept the key in TAGBUS_MEMORY__API_KEY: {found}")
        if status == 404:
            return MemoryLost(f"{said}: {found}: a collection is missing, so the memory must be rebuilt")
        return Fatal(f"{said}: {found}")


def connect(settings: MemorySettings) -> Server:
    """A client of the server, and the server's name for errors: its URL without secrets.

    Nothing is sent yet. Raises UserError for an invalid URL and for certificates that cannot be read.
    """
    parts = _address(settings.url)
    place = f"{parts.scheme}://{parts.hostname}:{parts.port}"
    key = settings.api_key.get_secret_value() if settings.api_key else None
    if key and parts.scheme == "http" and parts.hostname not in LOOPBACK:
        log.warning("%s: the key of TAGBUS_MEMORY__API_KEY goes over the network unencrypted; https protects it", place)
    with warnings.catch_warnings():
        # The client warns of the same at each connection, with the path of its source.
        warnings.simplefilter("ignore", UserWarning)
        client = AsyncQdrantClient(
            url=settings.url,
            api_key=key,
            timeout=math.ceil(settings.deadline_seconds),
            check_compatibility=False,
            verify=trust(settings),
            # The proxies of the environment would see the contents.
            trust_env=False,
        )
    return Server(client, place, settings.deadline_seconds, settings.request_bytes, settings)


def _address(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or not isinstance(parts.port, int | None):
            raise ValueError
    except ValueError:
        expected = "expected http://host:port or https://host:port"
        raise UserError(f"TAGBUS_MEMORY__URL is no address of a server: {expected}") from None
    if parts.port is None:
        # The client would use 6333 even for https://host, which people read as 443.
        usual = 443 if parts.scheme == "https" else 80
        raise UserError(
            f"TAGBUS_MEMORY__URL={parts.scheme}://{parts.hostname} names no port: expected :6333, which is Qdrant's "
            f"own, or :{usual} for a proxy"
        )
    return parts


def trust(settings: MemorySettings) -> ssl.SSLContext:
    """The TLS context: the CA for the server's certificate, and the client's own certificate."""
    if settings.key_file and not settings.certificate_file:
        raise UserError("TAGBUS_MEMORY__KEY_FILE is set without TAGBUS_MEMORY__CERTIFICATE_FILE, which it belongs to")
    if settings.ca_file is None and settings.certificate_file is None:
        return httpx.create_ssl_context()
    context = _authorities(settings.ca_file)
    if settings.certificate_file is not None:
        names = [f"TAGBUS_MEMORY__CERTIFICATE_FILE={settings.certificate_file}"]
        names += [f"TAGBUS_MEMORY__KEY_FILE={settings.key_file}"] if settings.key_file else []
        try:
            context.load_cert_chain(settings.certificate_file, settings.key_file, password="")
        except (OSError, ValueError) as error:
            raise UserError(f"{' '.join(names)}: no PEM of a certificate and its key: {_reason(error)}") from None
    return context


def _authorities(file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=file)
    except OSError as error:
        raise UserError(f"TAGBUS_MEMORY__CA_FILE={file}: no PEM of certificates: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    strerror: str | None = getattr(error, "strerror", None)
    return strerror or shorten(str(error), 200)
