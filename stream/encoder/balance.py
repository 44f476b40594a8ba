"""Requests spread over all the servers behind a name.

A gRPC channel sticks to the first server that it finds, so each address gets a separate channel. The name is resolved
repeatedly: a new server gets its share within a minute, but not before it has proved that it serves the model.
"""

import asyncio
import ipaddress
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from prometheus_client import Gauge

from tagbus.stream.config import RetrySettings
from tagbus.stream.config.base.environment import variable_of
from tagbus.stream.encoder.endpoint import Endpoint
from tagbus.stream.errors import DependencyDown, Retryable, UserError, shorten
from tagbus.stream.retry import backoff

log = logging.getLogger(__name__)

# How often names are resolved. A new server gets its share within 60 s.
RESOLVE_SECONDS: Final = 20.0
# How a server that is down is retried: each attempt is a few requests, and its return should be noticed within seconds.
REVIVE: Final = RetrySettings(first_seconds=0.1, cap_seconds=2.0)

# Servers take turns, so that equal servers get equal shares. One that has this many more of our requests than the least
# busy is slow, and would otherwise end up with every slot.
SLACK: Final = 4

# Where the servers behind the address of a setting are: ip:port of each, and the host that it was found under.
# Raises DependencyDown.
Resolve = Callable[[str, str], Awaitable[dict[str, str]]]


@dataclass(eq=False, slots=True)
class Server:
    """An endpoint and its state; `heard` is the loop time of its last answer."""

    endpoint: Endpoint
    problem: str | None = None
    up: bool = False
    tried: bool = False
    leaving: bool = False
    in_flight: int = 0
    last: int = 0
    heard: float = 0.0
    fell: asyncio.Event = field(default_factory=asyncio.Event)

    def fall(self, problem: str) -> None:
        """Send it no requests until it has proved itself again."""
        self.up, self.problem = False, problem
        self.fell.set()


class Balancer:
    """The servers behind an address; `lease` returns one that is up."""

    def __init__(
        self,
        address: str,
        setting: str,
        connect: Callable[[str, str], Endpoint],
        prove: Callable[[Endpoint], Awaitable[None]],
        resolve: Resolve,
        up: Gauge,
    ) -> None:
        """`setting` is where `address` comes from, such as encoder.address. `connect` makes an endpoint of ip:port and
        host; `prove` raises Retryable while it does not answer.

        `up` receives the number of servers that are up.
        """
        self._address = address
        self._setting = setting
        self._connect = connect
        self._prove = prove
        self._resolve = resolve
        self._up = up
        self._servers: dict[str, Server] = {}
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._follower: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._error: Exception | None = None
        self._turn = count(1)

    async def open(self, ends: float) -> None:
        """Return once every server has been tried and one is up. `ends` is a loop time.

        Raises DependencyDown where none is up by then, and whatever else `prove` raises for any of them.
        """
        await self._refresh()
        self._follower = asyncio.create_task(self._follow())
        while not all(server.tried for server in self._servers.values()):
            await self._change(ends)
        async with self.lease(ends):
            pass

    @asynccontextmanager
    async def lease(self, ends: float) -> AsyncIterator[Server]:
        """Each server in turn; one that has fallen behind is passed over.

        Waits until one is up. Raises DependencyDown where none is by `ends`, and as `open` does.
        """
        while True:
            if self._error is not None:
                raise self._error
            if up := [server for server in self._servers.values() if server.up]:
                break
            await self._change(ends)
        least = min(server.in_flight for server in up)
        server = min((one for one in up if one.in_flight <= least + SLACK), key=lambda one: one.last)
        server.last = next(self._turn)
        server.in_flight += 1
        try:
            yield server
        finally:
            server.in_flight -= 1
            if server.leaving and not server.in_flight:
                await server.endpoint.close()

    async def close(self) -> None:
        """Close every channel. No call may be in flight."""
        tasks = [*self._keepers.values(), *([self._follower] if self._follower else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for server in self._servers.values():
            await server.endpoint.close()
        self._servers.clear()

    async def _change(self, ends: float) -> None:
        """Return when a server has come up, or has failed to."""
        changed = self._changed
        try:
            async with asyncio.timeout_at(ends):
                await changed.wait()
        except TimeoutError:
            problems = [server.problem or "does not answer" for server in self._servers.values()]
            raise DependencyDown(
                f"{variable_of(self._setting)}: no Triton at {self._address}: {'; '.join(problems)}"
            ) from None
        if self._error is not None:
            raise self._error

    def _tell(self) -> None:
        self._up.set(sum(server.up for server in self._servers.values()))
        self._changed.set()
        self._changed = asyncio.Event()

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(RESOLVE_SECONDS)
            try:
                await self._refresh()
            except Retryable as error:
                log.warning("%s; the servers stay as they are", error)

    async def _refresh(self) -> None:
        """Add new servers and close removed ones."""
        places = await self._resolve(self._address, self._setting)
        for place, host in places.items():
            if place not in self._servers:
                server = self._servers[place] = Server(self._connect(place, host))
                self._keepers[place] = asyncio.create_task(self._keep(server))
        for place in self._servers.keys() - places.keys():
            log.info("Triton: %s is no longer behind %s", place, self._address)
            self._keepers.pop(place).cancel()
            server = self._servers.pop(place)
            server.leaving = True
            if not server.in_flight:
                await server.endpoint.close()
            self._tell()

    async def _keep(self, server: Server) -> None:
        """Prove the server, and again after each fall."""
        delays = backoff(REVIVE)
        while True:
            try:
                await self._prove(server.endpoint)
            except Retryable as error:
                server.problem, server.tried = str(error), True
                self._tell()
                await asyncio.sleep(next(delays))
                continue
            except Exception as error:  # of another release, or a bug: the next caller gets it
                self._error = error
                self._tell()
                return
            log.info("Triton: %s is up", server.endpoint.place)
            delays = backoff(REVIVE)
            server.fell.clear()
            server.up, server.tried, server.problem = True, True, None
            self._tell()
            await server.fell.wait()
            log.warning("Triton: %s is down: %s", server.endpoint.place, server.problem)
            self._tell()


async def resolve(address: str, setting: str) -> dict[str, str]:
    """The servers behind host:port, several with commas; `setting` is where the address comes from.

    Raises UserError for another form, and DependencyDown for a name that does not resolve now.
    """
    places: dict[str, str] = {}
    for host, port in [_split(part.strip(), address, setting) for part in address.split(",")]:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise DependencyDown(f"{variable_of(setting)}: {shorten(host)}: {error.strerror or error}") from None
        for *_, place in found:
            places[_joined(str(place[0]), port)] = host
    return places


def _split(part: str, address: str, setting: str) -> tuple[str, int]:
    host, _, port = part.rpartition(":")
    if not host or "/" in host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UserError(f"{variable_of(setting)}={shorten(address)}: expected host:port, several with commas")
    return host.strip("[]"), int(port)


def _joined(ip: str, port: int) -> str:
    return f"[{ip}]:{port}" if ipaddress.ip_address(ip.partition("%")[0]).version == 6 else f"{ip}:{port}"
