"""All metrics, on prometheus_client's default registry; `/metrics` serves them.

One prefix, base units with plural suffixes, `_total` on counters. Every label has few values, known from the code:
never an id, a key or a message.
"""

from importlib.metadata import PackageNotFoundError, version
from typing import Final

from prometheus_client import Counter, Gauge, Histogram, Info

from tagbus.stream.telemetry.batch_histogram import BatchHistogram

# From a batch of one short title to a batch waiting for a slow service, in seconds.
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_COUNTS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)

# The path of a content, as the label `path` of the end-to-end time: with the judge, without it, with fewer stages than
# configured; or no stage at all, as a withdrawal or a dead letter.
PATHS: Final = ("judged", "tagged", "degraded", "untagged")


def _installed() -> str:
    """The version of the package; an uninstalled checkout has none."""
    try:
        return version("tagbus")
    except PackageNotFoundError:
        return "unknown"


BUILD = Info("tagbus_build", "The running version")
BUILD.info({"version": _installed()})

# The bus. Contents count once their transaction (or, at least once, their commit) has ended.
CONTENTS = Counter("tagbus_contents_total", "Contents published, by outcome", ["outcome"])
DEAD_LETTERS = Counter(
    "tagbus_dead_letters_total",
    "Contents dead-lettered, by the step that refused them and the reason",
    ["stage", "reason"],
)
RECEIVED = Counter("tagbus_received_total", "Records taken into batches, including those read again")
RECEIVED_BYTES = Counter("tagbus_received_bytes_total", "Bytes of their keys and values")
BATCHES = Counter("tagbus_batches_total", "Batches, by outcome: published or dropped", ["outcome"])
BATCH_CONTENTS = Histogram("tagbus_batch_contents", "Contents per batch", buckets=_COUNTS)
BATCH_SECONDS = Histogram("tagbus_batch_seconds", "Seconds of a batch in a step", ["step"], buckets=_SECONDS)
TRANSACTIONS = Counter("tagbus_transactions_total", "Transactions, by outcome", ["outcome"])
RETRIES = Counter("tagbus_retries_total", "Retried calls, by the step that retries them", ["step"])
IN_FLIGHT_BATCHES = Gauge("tagbus_in_flight_batches", "Batches in flight")
IN_FLIGHT_BYTES = Gauge("tagbus_in_flight_bytes", "Bytes of the values in flight")
PARTITIONS = Gauge("tagbus_assigned_partitions", "Partitions of `content` assigned to this worker")
PAUSED = Gauge("tagbus_paused_partitions", "Partitions paused because their batches wait")
REBALANCES = Counter("tagbus_rebalances_total", "Changes of the partition assignment", ["kind"])

EVENT_TO_COMMIT = BatchHistogram(
    "tagbus_event_to_commit_seconds", "From an event's time to its commit", (*_SECONDS, 900, 3600, 21600, 86400)
)
END_TO_END = BatchHistogram(
    "tagbus_end_to_end_seconds",
    "From a record's time to the commit of its outcome",
    (0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300, 3600),
    "path",
    PATHS,
)
# One label value per assigned partition, removed on revocation.
LAG = Gauge("tagbus_lag_records", "Uncommitted records of a partition", ["partition"])
OLDEST_UNCOMMITTED = Gauge(
    "tagbus_oldest_uncommitted_seconds", "Age of the oldest record read and not committed", ["partition"]
)
DUPLICATES = Counter("tagbus_duplicates_total", "Contents received again, equal in all fields")
POISON_SHARE = Gauge("tagbus_poison_share", "Share of the last contents that were dead-lettered")
RESTORED = Counter("tagbus_versions_restored_total", "Published versions read from their topic")

# People's decisions, in `tagbus feedback`.
FEEDBACK_WAITING = Gauge("tagbus_feedback_waiting_contents", "Contents whose decisions wait for the content's text")

CALIBRATION_PAIRS = Gauge("tagbus_calibration_pairs", "Pairs of content and tag of the last fit on decisions")
CALIBRATION_EFFECTIVE = Gauge(
    "tagbus_calibration_effective_pairs", "Pairs of equal weight that would be as precise as those of the last fit"
)
CALIBRATIONS = Counter(
    "tagbus_calibrations_total", "Fits on decisions: the new curve is adopted or the old one kept", ["outcome"]
)

# The tagger.
STAGE_SECONDS = Histogram("tagbus_stage_seconds", "Seconds of a batch in a stage", ["stage"], buckets=_SECONDS)
ENCODED = Counter("tagbus_encoded_texts_total", "Texts encoded as vectors")
ENCODER = Info("tagbus_encoder", "The execution provider of the encoder in this process")

CONFIDENCE = BatchHistogram(
    "tagbus_confidence", "Confidence of a content's best tag", tuple(round(0.1 * step, 1) for step in range(1, 11))
)
TAGS = BatchHistogram("tagbus_tags_a_content", "Tags of a content", (0, 1, 2, 3, 5, 10, 20, 50, 100))
ABSTAINED = Counter("tagbus_abstained_total", "Contents published without a tag")
DEGRADED = Counter("tagbus_degraded_total", "Contents published without the result of a failed stage", ["stage"])
# One label value a signal of telemetry/drift.py.
DRIFT = Gauge("tagbus_drift_psi", "Population stability index against the reference window", ["signal"])
DRIFT_CONTENTS = Gauge("tagbus_drift_contents", "Contents in the windows of the drift measurement", ["window"])

# Models on Triton; `model` is Triton's name of one, as configured.
TRITON_REQUESTS = Counter("tagbus_triton_requests_total", "Requests to Triton, by outcome", ["model", "outcome"])
TRITON_SERVERS = Gauge("tagbus_triton_servers", "Triton servers that are up and serve the model", ["model"])
TRITON_CACHED = Counter("tagbus_triton_cached_texts_total", "Texts whose vectors came from the cache", ["model"])

# The memory.
TAXONOMY_TAGS = Gauge("tagbus_taxonomy_tags", "Tags in memory")
MEMORY_EXEMPLARS = Gauge("tagbus_memory_exemplars", "Exemplars in memory")
MEMORY_KNOWLEDGE = Gauge("tagbus_memory_knowledge", "Segments of knowledge in memory")
MEMORY_APPLIED = Counter("tagbus_memory_applied_total", "Records of the memory topics applied to memory")
MEMORY_SKIPPED = Counter("tagbus_memory_skipped_total", "Records of the memory topics that are not events", ["topic"])
MEMORY_AGE = Gauge("tagbus_memory_age_seconds", "Time since all records of the memory topics were in memory")
MEMORY_REMAINING = Gauge("tagbus_memory_remaining_offsets", "Offsets to read before the start gate opens")
MEMORY_HELD = Gauge("tagbus_memory_held", "1 while records wait that would retire more tags than memory.retire_share")
RELEASE = Info("tagbus_release", "The release that this worker tags with, and its calibration")
RELEASES_LOADED = Gauge("tagbus_releases_loaded", "Releases loaded by this worker, including the one in force")
RELEASE_PENDING = Gauge(
    "tagbus_release_pending", "1 while the active release is not the one that this worker tags with"
)

# The judge. An attempt ends in one outcome; `answered` says nothing about the content of the answer.
LLM_CALLS = Counter("tagbus_llm_calls_total", "Attempts at the language model, by outcome", ["outcome"])
LLM_TOKENS = Counter(
    "tagbus_llm_tokens_total", "Tokens as counted by the server: in, cached ones of these, out", ["kind"]
)
LLM_COST = Counter("tagbus_llm_cost_usd_total", "Cost of the calls, if the model has a price")
LLM_WITHHELD = Counter("tagbus_llm_withheld_total", "Attempts not made, by reason", ["reason"])
LLM_BREAKER = Gauge(
    "tagbus_llm_breaker", "Circuit breaker: 0 while attempts are sent, 1 during a trial attempt, 2 while none is sent"
)
LLM_CONTENTS = Counter("tagbus_llm_contents_total", "Contents at the judge, by outcome", ["outcome"])
LLM_UNKNOWN = Counter("tagbus_llm_unknown_total", "Tags asked about without a usable answer, by reason", ["reason"])
LLM_DRIFT = Gauge("tagbus_llm_drift", "Mean distance of the answers to fixed questions from the first ones")
LLM_OUTSIDE = Counter("tagbus_llm_outside_total", "Answers to questions that were not asked, dropped")

LLM_BATCHED = Counter("tagbus_llm_batched_total", "Batch answers received with contents", ["outcome"])
WEB_SEARCHES = Counter("tagbus_web_searches_total", "Searches for web knowledge, by outcome", ["outcome"])
WEB_BREAKER = Gauge(
    "tagbus_web_breaker", "Circuit breaker: 0 while searches are sent, 1 during a trial search, 2 while none is sent"
)

LLM_BUDGET = Gauge("tagbus_llm_budget_used_share", "Share of the group's limit that is spent or reserved", ["period"])

# The views.
VIEWS_APPLIED = Counter("tagbus_views_applied_total", "Records applied to the rows of contents and tags", ["view"])
VIEWS_LAG = Gauge("tagbus_views_lag_records", "Records not yet applied to the rows of a view", ["view"])
VIEWS_LAG_SECONDS = Gauge("tagbus_views_lag_seconds", "How long the oldest of them has waited", ["view"])
VIEWS_REPEATED = Counter("tagbus_views_repeated_total", "Repeated changes that had no effect")
VIEWS_SKIPPED = Counter("tagbus_views_skipped_total", "Records of `tagged` that are not results")
VIEWS_REQUESTS = Counter("tagbus_views_requests_total", "Answers of the views' API, by status", ["status"])
VIEWS_SECONDS = Histogram("tagbus_views_request_seconds", "Seconds to answer a request", buckets=_SECONDS)

READY = Gauge("tagbus_ready", "1 while /readyz says yes")
