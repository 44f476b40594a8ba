"""An acceptance run: its checks in sequence, each with a share of the time."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from subprocess import SubprocessError
from typing import Final
from urllib.parse import urlsplit

import numpy as np
from pydantic import JsonValue

from tagbus.stream.acceptance.fleet import Fleet
from tagbus.stream.acceptance.ledger import compare
from tagbus.stream.acceptance.load import Act, Load
from tagbus.stream.acceptance.proxy import Proxy
from tagbus.stream.acceptance.report import Finding
from tagbus.stream.acceptance.sandbox import Sandbox
from tagbus.stream.app import console
from tagbus.stream.config import PREFIX, Settings
from tagbus.stream.errors import TagbusError

# Contents for measuring the rate, and the maximum publishing rate per second.
BURST: Final = 400
MOST_A_SECOND: Final = 500.0
# Shares of the whole time: kills, all outages, each of the three loads.
KILLS, OUTAGES, LOAD = 0.25, 0.2, 0.08
SHARES: Final = (0.25, 0.5, 0.75)
KILL_RATE: Final = 0.5
BETWEEN_KILLS: Final = 8.0


@dataclass(slots=True)
class Run:
    """The state shared by the checks. `rate`: contents a second that the workers processed in the burst."""

    sandbox: Sandbox
    fleet: Fleet
    load: Load
    proxies: Mapping[str, Proxy]
    seconds: float
    rate: float = 1.0

    @property
    def settings(self) -> Settings:
        """The settings of the run."""
        return self.sandbox.settings

    def keep(self, _: float) -> None:
        """Restart the processes that have exited."""
        self.fleet.keep()

    def steady(self, seconds: float, share: float, act: Act | None = None) -> list[float]:
        """Publish contents at a share of the rate for this long."""
        rate = share * self.rate
        return self.load.steady(max(10, int(seconds * rate)), rate, act or self.keep)


Check = Callable[[Run], Finding]


def proxies(settings: Settings, stack: ExitStack) -> tuple[dict[str, Proxy], dict[str, str]]:
    """A proxy for each dependency that can be cut off, and the settings of workers that connect through them.

    A dependency with TLS is left out, because its certificate names its host. So is a judge whose model is identified
    by its address, because its calibration applies to that address.
    """
    found: dict[str, Proxy] = {}
    variables: dict[str, str] = {}
    encoder, memory, llm = settings.encoder, settings.memory, settings.llm
    if encoder.kind == "triton" and not encoder.tls:
        host, _, port = encoder.address.split(",")[0].strip().rpartition(":")
        found["Triton"] = stack.enter_context(Proxy(host.strip("[]"), int(port)))
        variables[f"{PREFIX}ENCODER__ADDRESS"] = found["Triton"].address
    for name, url, variable in (
        ("Qdrant", memory.url if memory.kind == "server" else "", "MEMORY__URL"),
        ("the language model", "" if llm.url is None or llm.model is None else llm.url, "LLM__URL"),
    ):
        parts = urlsplit(url)
        if parts.scheme == "http" and parts.hostname:
            found[name] = stack.enter_context(Proxy(parts.hostname, parts.port or 80))
            variables[f"{PREFIX}{variable}"] = f"http://{found[name].address}{parts.path}"
    return found, variables


def findings(run: Run, checks: Mapping[str, Check]) -> Iterator[Finding]:
    """Run each check in turn. One that ends with an error is a failed finding, and the next one still runs."""
    for name, check in checks.items():
        console.say(f"{name} ...")
        started = time.monotonic()
        try:
            found = check(run)
        except (TagbusError, SubprocessError) as error:
            found = Finding(name=name, verdict="failed", words=str(error))
        found = found.model_copy(update={"seconds": round(time.monotonic() - started, 1)})
        console.say(f"{name}: {found.verdict}: {found.words}")
        yield found


def capacity(run: Run) -> Finding:
    """Measure the contents a second that the workers process from a burst."""
    count = min(BURST, max(50, int(run.seconds)))
    started = time.monotonic()
    run.load.steady(count, MOST_A_SECOND, run.keep)
    run.load.until_out(run.keep)
    run.rate = min(MOST_A_SECOND, count / (time.monotonic() - started))
    words = f"{run.rate:.1f} contents a second by {len(run.fleet.workers)} workers, {count} published in a burst"
    if run.rate > 0.9 * MOST_A_SECOND:
        words += f"; this command publishes at most {MOST_A_SECOND:g} a second, so the workers may be faster"
    return Finding(name="rate", verdict="measured", words=words, figures={"contents_per_second": round(run.rate, 1)})


def kills(run: Run) -> Finding:
    """Kill workers under load: each content has exactly one output."""
    count, seconds = 0, KILLS * run.seconds
    every = min(BETWEEN_KILLS, seconds / 2)
    # What was open at the last kill: contents that workers never get past are set aside as deadly.
    open_then = frozenset[str]()

    def strike(elapsed: float) -> None:
        nonlocal count, open_then
        run.fleet.keep()
        if (count + 1) * every < elapsed < seconds and open_then.isdisjoint(run.load.open):
            open_then = frozenset(run.load.open)
            run.fleet.kill()
            count += 1

    run.steady(seconds, KILL_RATE, strike)
    run.load.until_out(run.keep)
    outcome = compare(run.settings)
    faults = outcome.faults(run.settings)
    guarantee = run.settings.kafka.delivery.replace("_", " ")
    told = ", ".join(faults) or "each tagged, none lost, none doubled"
    words = f"{count} kills, {outcome.sent} contents, {told} ({guarantee})"
    return Finding(
        name="kills",
        verdict="failed" if faults or not count else "passed",
        words=words,
        figures={"kills": count, **asdict(outcome)},
    )


def outages(run: Run) -> Finding:
    """Cut off each dependency under load: nothing is lost, and work resumes afterwards."""
    if not run.proxies:
        words = "no dependency can be cut off by a proxy (see the operators' page); Kafka never is"
        return Finding(name="outages", verdict="not run", words=words)
    seconds = min(30.0, OUTAGES * run.seconds / len(run.proxies))
    recovered: dict[str, float] = {}
    for name, proxy in run.proxies.items():
        with proxy.outage():
            run.steady(seconds, KILL_RATE)
        back = time.monotonic()
        run.load.until_out(run.keep)
        recovered[name] = round(time.monotonic() - back, 1)
    outcome = compare(run.settings)
    faults = outcome.faults(run.settings)
    told = ", ".join(f"{name} {after:g} s" for name, after in recovered.items())
    words = f"{', '.join(faults) or 'nothing lost'}; all contents done after each outage of {seconds:.0f} s: {told}"
    figures = {"outage_seconds": round(seconds, 1), "recovery_seconds": dict(recovered), **asdict(outcome)}
    return Finding(name="outages", verdict="failed" if faults else "passed", words=words, figures=figures)


def latency(run: Run) -> Finding:
    """Measure the time from a record's timestamp to its committed tags, at 25, 50 and 75% of the rate."""
    figures: dict[str, JsonValue] = {}
    told = []
    for share in SHARES:
        run.steady(LOAD * run.seconds, share)
        took = run.load.until_out(run.keep)
        p50, p99 = (round(float(np.quantile(took, quantile)), 3) for quantile in (0.5, 0.99))
        figures |= {f"p50_seconds_at_{share:.0%}": p50, f"p99_seconds_at_{share:.0%}": p99}
        told.append(f"{share:.0%} load: p50 {p50} s, p99 {p99} s")
    return Finding(name="latency", verdict="measured", words="; ".join(told), figures=figures)
