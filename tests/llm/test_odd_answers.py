"""Good answers with something odd beside them, and answers that are too much to read: never a lost content."""

import gzip
from contextlib import suppress
from datetime import UTC, datetime

import httpx2
import pytest

from tagbus.stream.config import BudgetSettings
from tagbus.stream.errors import Overloaded, UserError, Withheld
from tagbus.stream.llm.base import Usage
from tagbus.stream.llm.client import ANSWER_BYTES
from tagbus.stream.llm.spending.budget import Budget, NoLedger
from tagbus.stream.llm.spending.meter import SpendingMeter
from tagbus.stream.llm.spending.prices import price_by
from tagbus.stream.llm.web.guarded import ERROR_BYTES, Guarded, Unreadable
from tests.llm.asking import asked, directly, judging
from tests.llm.scripted import Say, serving
from tests.llm.test_faults import BACKENDS, WELL, Backend, Recording, always

PRICES = {"price_in": 0.1, "price_cached": 0.025}
# Counts that are no counts: 401 digits, a negative one, a fraction.
NO_COUNTS = (int("1" + "0" * 400), 10**12, -1, 1.5, "many", None)


def metered(url: str, **limits: float) -> tuple[Budget, SpendingMeter]:
    settings = BudgetSettings(**{**PRICES, **limits})
    budget = Budget(settings, ("g", "w"), lambda: 1.0, NoLedger(), lambda: datetime(2026, 11, 28, tzinfo=UTC))
    return budget, SpendingMeter(settings, budget, price_by(settings, url), lambda: 1.0, "m")


def decided(usage: object, model: object = "m") -> Say:
    predicate = {"type": "predicate", "name": "q0", "probability": 0.9}
    return Say({"model": model, "answers": [predicate], "usage": usage})


async def test_more_cached_tokens_than_the_prompt_has_are_those_of_the_prompt() -> None:
    """A negative cost would raise where it is counted, and the content would go to the dead letters."""
    say = decided({"input_tokens": 100, "output_tokens": 0, "input_tokens_details": {"cached_tokens": 5000}})
    with serving(always(say)) as server:
        _, meter = metered(server.url)
        async with directly(server.url, "decision_api", meter, profile="vllm") as judge:
            (judged,) = await judge.judge([asked("Cats")])
    assert judged.answers[0].probability == 0.9
    assert judged.usage == Usage(1, 100, 0, 100)
    assert meter.cost(judged.usage) == pytest.approx(100 * 0.025 / 1e6)


@pytest.mark.parametrize("field", ["input_tokens", "output_tokens"])
@pytest.mark.parametrize("count", NO_COUNTS, ids=["digits", "many", "negative", "half", "word", "null"])
async def test_a_count_that_is_none_leaves_the_answer_and_the_estimate(field: str, count: object) -> None:
    with serving(always(decided({"input_tokens": 7, field: count}))) as server:
        _, meter = metered(server.url)
        async with directly(server.url, "decision_api", meter, profile="vllm") as judge:
            (judged,) = await judge.judge([asked("Cats")])
    assert judged.answers[0].probability == 0.9
    assert judged.model == "m"
    assert 7 < judged.usage.tokens_in < 1000


@pytest.mark.parametrize(("model", "kept"), [("m" * 3_000, "m" * 200), (5, None), (None, None)])
async def test_a_name_of_the_model_fits_a_result(model: object, kept: str | None) -> None:
    with serving(always(decided({"input_tokens": 7}, model))) as server:
        async with directly(server.url, "decision_api", profile="vllm") as judge:
            (judged,) = await judge.judge([asked("Cats")])
    assert judged.answers[0].probability == 0.9
    assert (judged.model, judged.usage.tokens_in) == (kept, 7)


@pytest.mark.parametrize(
    "answers",
    [{"\x1b[2J" + "x" * 100_000: 1}, [{"type": "\x1b[2J" + "x" * 100_000}]],
    ids=["a name", "a value"],
)
async def test_of_an_answer_that_is_none_the_log_has_a_short_line(
    answers: object, caplog: pytest.LogCaptureFixture
) -> None:
    profile = "sglang" if isinstance(answers, dict) else "vllm"
    with serving(always(Say({"answers": answers}))) as server:
        async with directly(server.url, "decision_api", profile=profile) as judge:
            (judged,) = await judge.judge([asked("Cats")])
    assert judged.answers[0].unknown == "malformed"
    (said,) = caplog.messages
    assert said.isprintable()
    assert len(said) < 600


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "say",
    [
        Say(b" " * (ANSWER_BYTES + 1)),
        Say(b'{"answers": [' + b"{}," * 1_000_000 + b"{}]}"),
        Say(gzip.compress(b'{"answers": []}' + b" " * 10_000_000), headers={"content-encoding": "gzip"}),
    ],
    ids=["long", "items", "compressed"],
)
async def test_an_answer_that_is_too_much_is_malformed_paid_for_and_not_asked_for_again(
    backend: Backend, say: Say
) -> None:
    meter = Recording()
    with serving(always(say)) as server:
        async with directly(server.url, backend, meter, profile="vllm") as judge:
            (judged,) = await judge.judge([asked("Cats")])
        (request,) = server.requests
    assert [one.unknown for one in judged.answers] == ["malformed"]
    assert judged.failure is None
    assert [one.tokens_in for one in meter.settled] == [one.tokens_in for one in meter.reserved]
    assert {name.lower(): value for name, value in request.headers.items()}["accept-encoding"] == "identity"


async def answer_of(body: bytes, status: int, **headers: str) -> httpx2.Response:
    """The answer as a guarded client reads it."""
    network = httpx2.MockTransport(lambda _: httpx2.Response(status, headers=headers, content=body))
    async with httpx2.AsyncClient(transport=Guarded(network, lambda _: 10_000)) as client:
        found = await client.get("http://x/")
        assert not client.cookies
    return found


async def test_of_an_error_the_beginning_is_read() -> None:
    found = await answer_of(b"x" * 10_000_000, 500, **{"content-type": "text/html; charset=utf-16"})
    assert found.text == "x" * ERROR_BYTES
    assert (await answer_of(b"", 307, location="http://y/")).headers["location"] == "http://y/"


@pytest.mark.parametrize(("size", "read"), [(10_000, True), (10_001, False)])
async def test_of_an_answer_all_is_read_or_nothing(size: int, *, read: bool) -> None:
    if read:
        assert len((await answer_of(b"x" * size, 200)).content) == size
    else:
        with pytest.raises(Unreadable, match="more than 10000 bytes"):
            await answer_of(b"x" * size, 200)


async def test_a_server_s_cookies_are_neither_kept_nor_returned() -> None:
    say = Say(decided({"input_tokens": 7}).body, headers={"set-cookie": "c=" + "x" * 3000})
    with serving(always(say)) as server:
        async with directly(server.url, "decision_api", profile="vllm") as judge:
            for number in range(3):
                await judge.judge([asked("Cats", content_id=f"c{number}")])
    assert len(server.requests) == 3
    assert not [name for one in server.requests for name in one.headers if name.lower() == "cookie"]


async def test_contents_go_to_no_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(WELL) as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url.removesuffix("/v1"))
        monkeypatch.delenv("NO_PROXY", raising=False)
        async with judging("http://llm.invalid:8000/v1", profile="vllm", api_key="k") as judge:
            (judged,) = await judge.judge([asked("Cats", text="confidential", seconds=1)])
    assert judged.failure is not None
    assert proxy.requests == []


async def test_a_server_that_asks_for_an_hour_is_asked_no_more_and_spends_nothing() -> None:
    with serving(always(Say({"error": "slow down"}, 429, {"retry-after": "3600"}))) as server:
        budget, meter = metered(server.url, tokens_per_day=20_000)
        async with directly(server.url, "decision_api", meter, profile="vllm", in_flight=4) as judge:
            found = await judge.judge([asked("Cats", content_id=f"c{number}") for number in range(100)])
    # As many as were in flight before the first answer.
    assert len(server.requests) <= 4
    assert {type(one.failure) for one in found} == {Overloaded, Withheld}
    assert [account.spent.tokens for account in budget._accounts.values()] == [0]


async def test_a_short_wait_is_waited_for_by_all() -> None:
    says = [Say({}, 429, {"retry-after-ms": "200"})]
    with serving(lambda request: says.pop() if says else WELL(request)) as server:
        _, meter = metered(server.url)
        async with directly(server.url, "decision_api", meter, profile="vllm", in_flight=1) as judge:
            found = await judge.judge([asked("Cats", content_id=f"c{number}") for number in range(3)])
    assert [one.failure for one in found] == [None] * 3
    assert len(server.requests) == 4


@pytest.mark.parametrize("status", [401, 404, 429, 503])
async def test_a_refusal_costs_nothing(status: int) -> None:
    meter = Recording()
    with serving(always(Say({"error": "no"}, status))) as server:
        async with directly(server.url, "decision_api", meter, profile="vllm") as judge:
            with suppress(UserError):
                await judge.judge([asked("Cats", seconds=0.5)])
    assert len(meter.settled) == len(meter.reserved) >= 1
    assert set(meter.settled) == {Usage(1)}
