"""The capacity that a number of contents a day needs: partitions, workers, memory, tokens, bandwidth. Pure arithmetic.

The peak decides the number of workers, the mean the cost of a day. A backlog is worked off with the capacity that the
workers have beyond the incoming rate.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from tagbus.stream.app.capacity.figures import FIGURES

DAY: Final = 86_400
# Counts of partitions divide by many numbers of workers: 12, 24, 36, ...
STEP: Final = 12
MB: Final = 1e6
GB: Final = 1e9


@dataclass(frozen=True, slots=True)
class Load:
    """The load to plan for. `peak`: the busiest hour over the mean. `cores`: cores of a worker. `llm_share`: share of
    the contents that go to the language model, 0 to 1."""

    contents_a_day: float
    peak: float = 3.0
    tags: int = 25_000
    exemplars: int = 300_000
    characters: float = 600.0
    llm_share: float = 0.0
    replication: int = 3
    cores: int = 4
    gpu: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """The capacity that a load needs. Rates are per second."""

    mean_rate: float
    peak_rate: float
    cpu_ms: float
    rate_a_worker: float
    workers: int
    workers_mean: int
    partitions: int
    cores: int
    gpus: int
    points: int
    memory_bytes: float
    shards: int
    tokens_a_day: float
    cost_a_day: float
    broker_in: float
    broker_out: float
    broker_cores: float

    def catch_up_seconds(self, backlog: float, rate: float) -> float:
        """Seconds to work off `backlog` contents while `rate` a second arrive, with all workers of the peak at full
        utilisation; infinite if they do not suffice."""
        spare = self.workers * self.rate_a_worker / value("utilisation") - rate
        return backlog / spare if spare > 0 else math.inf


def value(name: str) -> float:
    """The value of a figure."""
    return FIGURES[name].value


def tokens_of(characters: float) -> float:
    """Tokens that the encoder reads of a text."""
    return min(value("most_tokens"), max(1.0, characters / value("characters_a_token")))


def cpu_ms(load: Load) -> float:
    """CPU time of a worker for one content. Encoding grows linearly with the tokens, through both measurements; a
    search grows with the logarithm of the number of points, as in an HNSW graph."""
    slope = (value("encode_128") - value("encode_16")) / (128 - 16)
    encode = 0.0 if load.gpu else max(slope, value("encode_16") + slope * (tokens_of(load.characters) - 16))
    neighbours = value("neighbours") * _searched(load.exemplars, 328_152)
    tags = value("tags") * _searched(load.tags, 24_813)
    return encode + neighbours + tags + value("rest") + value("bus")


def _searched(points: float, measured: float) -> float:
    return math.log2(max(2.0, points)) / math.log2(measured)


def plan(load: Load) -> Plan:
    """The plan for a load."""
    mean, peak = load.contents_a_day / DAY, load.contents_a_day / DAY * load.peak
    cpu = cpu_ms(load)
    # Beyond what one thread runs in Python, more cores or a GPU gain nothing.
    serial = (value("rest") + value("bus")) / value("threads")
    rate = 1000 * min(load.cores / cpu, 1 / serial) * value("utilisation")
    # At least two, so that losing one does not stop tagging.
    workers = max(2, math.ceil(peak / rate))
    # Twice the workers: room to grow, and hot keys spread.
    partitions = STEP * math.ceil(2 * workers / STEP)
    points = load.tags + load.exemplars
    point = value("dimension") * 4 + value("edges") * 4 + value("payload")
    memory = points * point * value("memory_overhead") * load.replication
    content = load.characters + value("content_overhead")
    calls = load.contents_a_day * load.llm_share * value("calls")
    tokens_in, tokens_out = calls * value("tokens_in"), calls * value("tokens_out")
    moved = (content + value("result_bytes")) * value("compression")
    return Plan(
        mean_rate=mean,
        peak_rate=peak,
        cpu_ms=cpu,
        rate_a_worker=rate,
        workers=workers,
        workers_mean=max(2, math.ceil(mean / rate)),
        partitions=partitions,
        cores=workers * load.cores,
        gpus=math.ceil(peak * tokens_of(load.characters) / value("gpu_tokens") / value("utilisation"))
        if load.gpu
        else 0,
        points=points,
        memory_bytes=memory,
        shards=max(1, math.ceil(points / value("points_a_shard"))),
        tokens_a_day=tokens_in + tokens_out,
        cost_a_day=(tokens_in * value("price_in") + tokens_out * value("price_out")) / 1e6,
        broker_in=peak * moved,
        # Contents to the workers, results to one reader, and copies to the other replicas.
        broker_out=peak * moved * load.replication,
        broker_cores=peak * value("broker") / 1000 * load.replication / value("utilisation"),
    )


def rows(load: Load) -> list[tuple[str, str, str]]:
    """The plan for people: quantity, value, and the figures that it rests on."""
    found = plan(load)
    llm = f"{found.tokens_a_day / 1e6:,.1f} million", f"{found.cost_a_day:,.2f} USD"
    return [
        (
            "contents a second, mean and peak",
            f"{found.mean_rate:,.1f} and {found.peak_rate:,.1f}",
            "your contents, your peak",
        ),
        ("CPU time of a content", f"{found.cpu_ms:.2f} ms", "encode_16, encode_128, neighbours, tags, rest, bus"),
        ("contents a second and worker", f"{found.rate_a_worker:,.0f} on {load.cores} cores", "utilisation, threads"),
        ("workers at the peak", f"{found.workers:,}", "at least 2"),
        ("workers at the mean", f"{found.workers_mean:,}", "for an autoscaler's least"),
        ("partitions of `content`", f"{found.partitions:,}", "twice the workers, a multiple of 12"),
        ("cores of the workers", f"{found.cores:,}", ""),
        ("GPUs", f"{found.gpus:,}", "gpu_tokens" if load.gpu else "encoded on CPUs"),
        ("points in the vector store", f"{found.points:,}", "your tags and exemplars"),
        (
            "memory of the vector store",
            f"{found.memory_bytes / GB:,.1f} GB with {load.replication} replicas",
            "dimension, edges, payload, memory_overhead",
        ),
        ("shards of the vector store", f"{found.shards:,}", "points_a_shard"),
        ("tokens of the language model a day", llm[0], "calls, tokens_in, tokens_out"),
        ("their cost a day", llm[1], "price_in, price_out"),
        (
            "into the brokers at the peak",
            f"{found.broker_in / MB:,.1f} MB/s",
            "content_overhead, result_bytes, compression",
        ),
        ("out of the brokers at the peak", f"{found.broker_out / MB:,.1f} MB/s", f"with {load.replication} replicas"),
        ("cores of the brokers", f"{found.broker_cores:,.2f}", "broker"),
        ("an hour of outage at the peak is caught up in", _span(found), "all cores of the peak's workers"),
    ]


def _span(found: Plan) -> str:
    seconds = found.catch_up_seconds(3600 * found.peak_rate, found.peak_rate)
    return "never" if math.isinf(seconds) else f"{seconds / 60:,.0f} minutes"


# The inputs that are doubled and halved, one at a time.
VARIED: Final = ("contents_a_day", "peak", "characters", "exemplars", "tags", "llm_share")


def sensitivity(load: Load) -> Sequence[tuple[str, Mapping[str, Plan]]]:
    """The plan with each input halved and doubled."""
    found = []
    for name in VARIED:
        given = getattr(load, name)
        kind = type(given)
        halved, doubled = kind(given / 2), kind(given * 2)
        # A peak is at least the mean, and a share is at most 1.
        halved = max(1.0, halved) if name == "peak" else halved
        doubled = min(1.0, doubled) if name == "llm_share" else doubled
        found.append(
            (name, {"half": plan(replace(load, **{name: halved})), "double": plan(replace(load, **{name: doubled}))})
        )
    return found
