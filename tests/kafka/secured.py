"""Apache Kafka with TLS, SASL and ACLs: one node on 127.0.0.1, its certificates made by openssl in its own folder.

The listener of ApacheKafka stays: its clients are the superuser ANONYMOUS, who creates topics and ACLs. On all other
listeners a principal has only the rights of its ACLs (StandardAuthorizer, KIP-801).
"""

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tagbus.stream.errors import DependencyDown, UserError
from tagbus.stream.local.apache import ApacheKafka
from tagbus.stream.local.child import HOST, free_ports, tail

OPENSSL_S = 20.0
_LOGIN = "org.apache.kafka.common.security"
_VALIDATOR = f"{_LOGIN}.oauthbearer.OAuthBearerValidatorCallbackHandler"
_ALLOWED = "org.apache.kafka.sasl.oauthbearer.allowed.urls"


@dataclass(frozen=True, slots=True)
class Listener:
    """A way in. SASL_SSL takes SCRAM-SHA-512, PLAIN and, with an issuer, OAUTHBEARER; SSL asks for a client's
    certificate and takes its CN for the principal.

    `host` is whom the broker's certificate names, `days` how long it is valid from now: below 0 it has expired.
    """

    name: str = "SASL_SSL"
    protocol: Literal["SASL_SSL", "SSL"] = "SASL_SSL"
    host: str = HOST
    days: int = 2


@dataclass(frozen=True, slots=True)
class Issuer:
    """Whose tokens OAUTHBEARER takes: RFC 7517 keys in a file, and the audience and issuer that a token must name."""

    keys: Path
    audience: str
    name: str


class SecuredKafka(ApacheKafka):
    """One broker with a certificate for each of its listeners.

    `users` are names and passwords, for SCRAM-SHA-512 and PLAIN alike. Entering raises UserError where there is no
    openssl, and what ApacheKafka raises.
    """

    def __init__(
        self,
        users: Mapping[str, str],
        listeners: Sequence[Listener] = (Listener(), Listener("MUTUAL", "SSL")),
        issuer: Issuer | None = None,
        cache: Path | None = None,
    ) -> None:
        super().__init__(cache)
        self._names = dict(users)
        self._listeners = tuple(listeners)
        self._issuer = issuer
        self._addresses: dict[str, str] = {}

    @property
    def ca(self) -> Path:
        """The certificate that vouches for all others."""
        return self.folder / "ca.pem"

    def at(self, listener: str) -> str:
        """host:port of a listener."""
        return self._addresses[listener]

    def certificate(self, name: str, host: str = "", days: int = 2) -> Path:
        """Key (PKCS#8) and certificate of CN=`name` in one PEM file, signed by the CA; `host` as for Listener."""
        path = self.folder / f"{name}.pem"
        if path.exists():
            return path
        key, request, extensions = (self.folder / f"{name}.{end}" for end in ("key", "csr", "ext"))
        kind = "IP" if host == HOST else "DNS"
        extensions.write_text(f"subjectAltName={kind}:{host or name}\n")
        self._openssl("req", *_NEW_KEY, "-keyout", str(key), "-out", str(request), "-subj", f"/CN={name}")
        signed = self._openssl(
            *("x509", "-req", "-in", str(request), "-CA", str(self.ca), "-CAkey", str(self.folder / "ca.key")),
            *("-CAcreateserial", "-days", str(days), "-extfile", str(extensions)),
        )
        path.write_text(key.read_text() + signed)
        return path

    def _place(self) -> None:
        if not self.ca.exists():
            subject = ("-subj", "/CN=tagbus local CA", "-days", "2")
            self._openssl("req", "-x509", *_NEW_KEY, "-keyout", "ca.key", "-out", "ca.pem", *subject)
        ports = iter(free_ports(2 + len(self._listeners)))
        broker, controller = next(ports), next(ports)
        self.address = f"{HOST}:{broker}"
        self._addresses = {"PLAINTEXT": self.address}
        self._addresses |= {one.name: f"{HOST}:{next(ports)}" for one in self._listeners}
        advertised = ",".join(f"{name}://{address}" for name, address in self._addresses.items())
        protocols = {"CONTROLLER": "PLAINTEXT", "PLAINTEXT": "PLAINTEXT"}
        protocols |= {one.name: one.protocol for one in self._listeners}
        self._write(
            {
                "listeners": f"{advertised},CONTROLLER://{HOST}:{controller}",
                "advertised.listeners": advertised,
                "inter.broker.listener.name": "PLAINTEXT",
                "controller.quorum.voters": f"1@{HOST}:{controller}",
                "listener.security.protocol.map": ",".join(f"{name}:{way}" for name, way in protocols.items()),
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                "super.users": "User:ANONYMOUS",
                **{key: value for one in self._listeners for key, value in self._settings(one).items()},
            }
        )

    def _settings(self, listener: Listener) -> dict[str, str]:
        prefix = f"listener.name.{listener.name.lower()}"
        keystore = self.certificate(f"broker-{listener.name.lower()}", listener.host, listener.days)
        tls = {
            f"{prefix}.ssl.keystore.type": "PEM",
            f"{prefix}.ssl.keystore.location": str(keystore),
            f"{prefix}.ssl.truststore.type": "PEM",
            f"{prefix}.ssl.truststore.location": str(self.ca),
        }
        if listener.protocol == "SSL":
            return tls | {
                f"{prefix}.ssl.client.auth": "required",
                f"{prefix}.ssl.principal.mapping.rules": "RULE:^CN=([^,]+).*$/$1/",
            }
        return tls | self._mechanisms(prefix)

    def _mechanisms(self, prefix: str) -> dict[str, str]:
        known = " ".join(f'user_{name}="{password}"' for name, password in self._names.items())
        names = ["SCRAM-SHA-512", "PLAIN"]
        settings = {
            # Without a word of its own for each the broker dies asking for a JAAS file.
            f"{prefix}.scram-sha-512.sasl.jaas.config": f"{_LOGIN}.scram.ScramLoginModule required;",
            f"{prefix}.plain.sasl.jaas.config": f"{_LOGIN}.plain.PlainLoginModule required {known};",
        }
        if self._issuer is not None:
            names.append("OAUTHBEARER")
            bearer = f"{prefix}.oauthbearer"
            settings |= {
                f"{bearer}.sasl.jaas.config": f"{_LOGIN}.oauthbearer.OAuthBearerLoginModule required;",
                f"{bearer}.sasl.server.callback.handler.class": _VALIDATOR,
                f"{bearer}.sasl.oauthbearer.jwks.endpoint.url": self._issuer.keys.as_uri(),
                f"{bearer}.sasl.oauthbearer.expected.audience": self._issuer.audience,
                f"{bearer}.sasl.oauthbearer.expected.issuer": self._issuer.name,
            }
        return settings | {f"{prefix}.sasl.enabled.mechanisms": ",".join(names)}

    def _users(self) -> list[str]:
        made = [f"SCRAM-SHA-512=[name={name},password={password}]" for name, password in self._names.items()]
        return [word for user in made for word in ("--add-scram", user)]

    def _java_options(self) -> list[str]:
        # Kafka 4 reads keys from nowhere that is not named here (KIP-1139).
        allowed = [] if self._issuer is None else [f"-D{_ALLOWED}={self._issuer.keys.as_uri()}"]
        return [*super()._java_options(), *allowed]

    def _openssl(self, *arguments: str) -> str:
        try:
            done = subprocess.run(
                ["openssl", *arguments], cwd=self.folder, capture_output=True, text=True, timeout=OPENSSL_S, check=False
            )
        except OSError as error:
            raise UserError(f"there is no openssl on the path, which makes the certificates: {error}") from None
        except subprocess.TimeoutExpired as error:
            raise DependencyDown(f"openssl {arguments[0]} did not end within {OPENSSL_S:g} s") from error
        if done.returncode:
            raise DependencyDown(f"openssl {arguments[0]} failed:\n{tail(done.stderr)}")
        return done.stdout


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
