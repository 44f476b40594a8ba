"""An OAuth 2.0 token endpoint for tests: client credentials in, a signed token out (RFC 6749 section 4.4, RFC 7519).

openssl makes the key and signs; the broker reads the public half from a file (RFC 7517).
"""

import base64
import json
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.kafka.secured import Issuer

NAME = "https://issuer.example"
AUDIENCE = "kafka"
LIFE_SECONDS = 300


@dataclass(frozen=True)
class Endpoint:
    """Where tokens are given, and what the broker must know of it."""

    url: str
    trusted: Issuer


@contextmanager
def endpoint(folder: Path, clients: Mapping[str, str]) -> Iterator[Endpoint]:
    """Serve `clients`, ids and secrets; a token's subject is the client's id."""
    key = folder / "issuer.pem"
    _openssl("genrsa", "-out", str(key), "2048")
    (folder / "keys.json").write_text(json.dumps({"keys": [_public(key)]}))

    class Tokens(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            scheme, _, given = self.headers.get("Authorization", "").partition(" ")
            client, _, secret = base64.b64decode(given).decode().partition(":")
            known = scheme == "Basic" and clients.get(client) == secret
            body = {"access_token": _token(key, client), "token_type": "Bearer", "expires_in": LIFE_SECONDS}
            self._answer(200, body) if known else self._answer(401, {"error": "invalid_client"})

        def _answer(self, status: int, body: Mapping[str, object]) -> None:
            raw = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, format: str, *arguments: object) -> None:
            """Not onto the terminal."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Tokens) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Endpoint(f"http://127.0.0.1:{server.server_port}/token", Issuer(folder / "keys.json", AUDIENCE, NAME))
        server.shutdown()


def _token(key: Path, subject: str) -> str:
    now = int(time.time())
    claims = {"iss": NAME, "aud": AUDIENCE, "sub": subject, "iat": now, "exp": now + LIFE_SECONDS, "scope": "kafka"}
    head = _text(json.dumps({"alg": "RS256", "kid": "one", "typ": "JWT"}).encode())
    signed = f"{head}.{_text(json.dumps(claims).encode())}"
    return f"{signed}.{_text(_openssl('dgst', '-sha256', '-sign', str(key), given=signed.encode()))}"


def _public(key: Path) -> dict[str, str]:
    modulus = _openssl("rsa", "-in", str(key), "-noout", "-modulus").decode().strip().removeprefix("Modulus=")
    return {
        "kty": "RSA",
        "kid": "one",
        "alg": "RS256",
        "use": "sig",
        "n": _text(bytes.fromhex(modulus)),
        "e": _text((65537).to_bytes(3)),
    }


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _openssl(*arguments: str, given: bytes = b"") -> bytes:
    return subprocess.run(["openssl", *arguments], input=given, capture_output=True, check=True).stdout
