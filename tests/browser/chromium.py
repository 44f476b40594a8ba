"""A real browser: Debian's headless chromium, from the path or from where `make test` puts it, spoken to by pipes.

Its protocol is Chrome's for developers: JSON messages, each with a zero byte at its end.
"""

import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FETCHED = ROOT / ".cache" / "tools" / "chromium"
SHELL = FETCHED / "usr" / "lib" / "chromium" / "chromium-headless-shell"
LIBRARIES = FETCHED / "usr" / "lib" / "x86_64-linux-gnu"
SECONDS = 120
Json = dict[str, Any]


@dataclass
class Browser:
    """A running browser. `events` are what it said that nobody asked for, oldest first."""

    to: int
    back: int
    events: list[Json] = field(default_factory=list)
    _sent: int = 0
    _read: bytes = b""

    def ask(self, method: str, session: str | None = None, **parameters: object) -> Json:
        """Call a method and return its result; AssertionError with what it says of an error."""
        self._sent += 1
        number = self._sent
        message = {"id": number, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != number:
            self.events.append(answer)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return dict(answer["result"])

    def until(self, event: str, session: str) -> None:
        """Wait for an event of a page."""
        while not any(one.get("method") == event and one.get("sessionId") == session for one in self.events):
            self.events.append(self._next())

    def _next(self) -> Json:
        end = time.monotonic() + SECONDS
        while b"\0" not in self._read:
            ready, _, _ = select.select([self.back], [], [], max(0, end - time.monotonic()))
            assert ready, f"the browser said nothing for {SECONDS} s"
            part = os.read(self.back, 1 << 20)
            assert part, "the browser has gone"
            self._read += part
        message, _, self._read = self._read.partition(b"\0")
        return dict(json.loads(message))

    def open(self, file: Path, width: int = 1200) -> "Page":
        """Open a file in a page of its own."""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.ask(f"{domain}.enable", session)
        screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
        self.ask("Emulation.setDeviceMetricsOverride", session, **screen)
        self.ask("Page.navigate", session, url=file.as_uri())
        self.until("Page.loadEventFired", session)
        return Page(self, session)


@dataclass(frozen=True)
class Page:
    """An open page."""

    browser: Browser
    session: str

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        asked = {"expression": expression, "returnByValue": True, "awaitPromise": True}
        found = self.browser.ask("Runtime.evaluate", self.session, **asked)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    @property
    def requests(self) -> list[str]:
        """The addresses that it asked for."""
        return [
            one["params"]["request"]["url"]
            for one in self.browser.events
            if one.get("sessionId") == self.session and one["method"] == "Network.requestWillBeSent"
        ]


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Start it. The test is skipped where it is not, and fails if CI=true."""
    there = shutil.which("chromium-headless-shell") or (str(SHELL) if SHELL.exists() else "")
    if not there:
        words = f"no chromium: `make {(FETCHED / '.done').relative_to(ROOT)}` fetches it"
        if os.environ.get("CI") == "true":
            pytest.fail(words)
        pytest.skip(words)
    theirs, to = (fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in _pipe())
    back, ours = (fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in _pipe())
    # Root has no sandbox; the pipes are the descriptors 3 and 4.
    flags = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe", f"--user-data-dir={profile}")
    command = ["bash", "-c", f'exec "$@" 3<&{theirs} 4>&{ours}', "bash", there, *flags]
    libraries = f"{LIBRARIES}:{LIBRARIES / 'pulseaudio'}"
    environment = os.environ | {"LD_LIBRARY_PATH": libraries, "HOME": str(profile)}
    with subprocess.Popen(
        command, pass_fds=(theirs, ours), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        os.close(theirs)
        os.close(ours)
        try:
            yield Browser(to, back)
        finally:
            process.kill()
            os.close(to)
            os.close(back)


def _pipe() -> Iterator[int]:
    """Both ends of a pipe, closed after they were copied."""
    ends = os.pipe()
    for end in ends:
        yield end
        os.close(end)
