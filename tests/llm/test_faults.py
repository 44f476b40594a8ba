"""Faults of servers: never a lost content, never an unasked tag, always a reason."""

import asyncio
import email.utils
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from tagbus.stream.errors import DependencyDown, Overloaded, UserError, Withheld
from tagbus.stream.llm.base import Backend, Charge, Usage
from tagbus.stream.llm.client import retry_after
from tagbus.stream.llm.prompts import Prompts, Rendered
from tests.llm import answers
from tests.llm.asking import asked, directly, judging
from tests.llm.scripted import Request, Say, Script, routed, serving

BACKENDS: list[Backend] = ["decision_api", "yesno", "stated"]
WELL = routed(decisions=answers.openai_decisions(), completions=answers.chat())


def first(*says: Say, then: Script = WELL) -> Script:
    """These answers first, one per request, then the script's."""
    left = list(says)
    return lambda request: left.pop(0) if left else then(request)


def always(say: Say) -> Script:
    return lambda _: say


class Recording:
    """A meter that records its calls."""

    def __init__(self) -> None:
        self.reserved: list[Usage] = []
        self.settled: list[Usage] = []
        self.errors: list[str] = []

    @asynccontextmanager
    async def attempt(self, estimate: Usage, deadline: float | None) -> AsyncIterator[Charge]:
        assert deadline is not None
        self.reserved.append(estimate)
        try:
            yield self
        except DependencyDown as error:
            self.errors.append(type(error).__name__)
            raise

    def settle(self, usage: Usage) -> None:
        self.settled.append(usage)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "say",
    [
        pytest.param(Say({"error": "slow down"}, 429), id="429"),
        pytest.param(Say({"error": "slow down"}, 429, {"retry-after": "0"}), id="429-retry-after"),
        pytest.param(Say({"error": "broken"}, 500), id="500"),
        pytest.param(Say({"error": "gateway"}, 502), id="502"),
        pytest.param(Say({"error": "full"}, 503), id="503"),
        pytest.param(Say({"answers": []}, cut=5), id="cut"),
        pytest.param(Say({"answers": []}, cut=0), id="closed"),
    ],
)
async def test_what_passes_is_tried_again_and_every_attempt_is_metered(backend: Backend, say: Say) -> None:
    meter = Recording()
    with serving(first(say, say)) as server:
        async with directly(server.url, backend, meter, profile="vllm") as judge:
            (judged,) = await judge.judge([asked("Cats")])
    assert [one.probability for one in judged.answers] == pytest.approx([0.95], abs=0.01)
    assert judged.usage.calls == len(server.requests) == len(meter.reserved) == 3
    assert len(meter.errors) == 2
    # A refusal costs nothing; what failed otherwise may have been worked for.
    assert meter.settled[:-1] == [Usage(1)] * (2 if say.status in {429, 503} else 0)
    assert meter.settled[-1].tokens_in == judged.usage.tokens_in > 0
    # Output tokens are reserved as well.
    assert {one.tokens_out for one in meter.reserved} == {{"decision_api": 1, "yesno": 1, "stated": 46}[backend]}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("say", [Say(silent=True), Say(b" " * 1000, trickle=0.05)], ids=["silent", "trickling"])
async def test_a_slow_server_costs_the_deadline_and_no_content(backend: Backend, say: Say) -> None:
    with serving(always(say)) as server:
        async with directly(server.url, backend, profile="vllm") as judge:
            began = time.monotonic()
            (judged,) = await judge.judge([asked("Cats", "Dogs", seconds=0.3)])
            took = time.monotonic() - began
    assert [one.unknown for one in judged.answers] == ["unasked", "unasked"]
    assert isinstance(judged.failure, Overloaded)
    assert "did not answer within" in str(judged.failure)
    assert took < 30
    assert judged.usage.calls == 1


async def test_a_longer_wait_than_the_deadline_is_not_waited_for() -> None:
    with serving(always(Say({"error": "slow down"}, 429, {"retry-after": "3600"}))) as server:
        async with directly(server.url, "decision_api", profile="vllm") as judge:
            (judged,) = await judge.judge([asked("Cats", seconds=50)])
    assert isinstance(judged.failure, Overloaded)
    assert judged.failure.retry_after == 3600
    assert judged.usage.calls == 1


async def test_a_spent_quota_is_not_tried_again() -> None:
    say = Say({"error": {"code": "insufficient_quota", "message": "You exceeded your current quota"}}, 429)
    with serving(always(say)) as server:
        async with directly(server.url, "decision_api", profile="openai") as judge:
            (judged,) = await judge.judge([asked("Cats")])
    assert isinstance(judged.failure, Overloaded)
    assert len(server.requests) == 1


async def test_an_address_without_a_server_is_a_failure_of_the_content() -> None:
    with serving(WELL) as server:
        url = server.url
    async with judging(url) as judge:
        (judged,) = await judge.judge([asked("Cats", seconds=1)])
    assert type(judged.failure) is DependencyDown
    assert judged.backend is None
    assert [one.unknown for one in judged.answers] == ["unasked"]


@pytest.mark.parametrize("status", [401, 403])
async def test_a_wrong_key_is_an_error_of_the_user_s(status: int) -> None:
    with serving(always(Say({"error": {"message": "Incorrect API key provided"}}, status))) as server:
        async with judging(server.url, api_key="sk-very-secret") as judge:
            with pytest.raises(UserError, match=rf"TAGBUS_LLM__API_KEY: .* answered {status}: .*Incorrect") as raised:
                await judge.judge([asked("Cats")])
    assert "very-secret" not in str(raised.value)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_request_that_is_refused_is_unknown_and_not_repeated(backend: Backend, status: int) -> None:
    with serving(always(Say({"error": "too long"}, status))) as server:
        async with directly(server.url, backend, profile="vllm") as judge:
            (judged,) = await judge.judge([asked("Cats")])
    assert [one.unknown for one in judged.answers] == ["rejected"]
    assert judged.failure is None
    assert len(server.requests) == 1


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b'{"answers": [{"type": "pre', b"null", b"\xff\xfe", b'{"choices": []}', b"[" * 100_000],
    ids=["empty", "html", "list", "truncated", "null", "no-utf8", "no-choice", "deep"],
)
async def test_an_answer_of_another_shape_is_unknown(backend: Backend, body: bytes) -> None:
    with serving(always(Say(body))) as server:
        async with directly(server.url, backend, profile="vllm") as judge:
            (judged,) = await judge.judge([asked("Cats", "Dogs")])
    assert [one.unknown for one in judged.answers] == ["malformed", "malformed"]
    assert judged.failure is None


async def test_one_tag_s_failure_leaves_the_others_their_answers() -> None:
    def script(request: Request) -> Say:
        return Say(silent=True) if "Dogs" in request.body["messages"][-1]["content"] else answers.chat()(request)

    with serving(script) as server:
        async with directly(server.url, "yesno", profile="vllm") as judge:
            (judged,) = await judge.judge([asked("Cats", "Dogs", "Nuclear", seconds=3)])
    assert [one.unknown for one in judged.answers] == [None, "unasked", None]
    assert isinstance(judged.failure, Overloaded)


class Shut(Recording):
    """A meter that admits a number of attempts, then none."""

    def __init__(self, left: int) -> None:
        super().__init__()
        self.left = left

    @asynccontextmanager
    async def attempt(self, estimate: Usage, deadline: float | None) -> AsyncIterator[Charge]:
        self.left -= 1
        if self.left < 0:
            raise Withheld("budget", "the budget of this minute is spent")
        async with super().attempt(estimate, deadline) as charge:
            yield charge


async def test_what_the_meter_withholds_is_unasked_and_not_sent() -> None:
    with serving(WELL) as server:
        async with directly(server.url, "yesno", Shut(2), profile="vllm") as judge:
            (judged,) = await judge.judge([asked("Cats", "Dogs", "Nuclear")])
    assert [one.unknown is None for one in judged.answers] == [True, True, False]
    assert isinstance(judged.failure, Withheld)
    assert judged.failure.reason == "budget"
    assert len(server.requests) == 2


async def test_contents_fail_alone() -> None:
    def script(request: Request) -> Say:
        return Say({}, 400) if "poison" in request.body["input"] else WELL(request)

    with serving(script) as server:
        async with directly(server.url, "decision_api", profile="vllm") as judge:
            found = await judge.judge([asked("Cats", text="poison" if n == 2 else "fine") for n in range(5)])
    assert [one.answers[0].unknown for one in found] == [None, None, "rejected", None, None]


async def test_a_redirect_is_not_followed() -> None:
    with serving(WELL) as elsewhere, serving(always(Say({}, 307, {"location": elsewhere.url}))) as server:
        async with directly(server.url, "decision_api", profile="vllm") as judge:
            with pytest.raises(UserError, match="expected the base URL"):
                await judge.judge([asked("Cats")])
    assert elsewhere.requests == []


async def test_nothing_of_the_sdk_s_environment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_BASE_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/secret")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "x-secret: secret")
    with serving(WELL) as server:
        async with directly(server.url, "decision_api", profile="vllm") as judge:
            await judge.judge([asked("Cats")])
        async with directly(server.url, "decision_api", profile="vllm", api_key="sk-own") as judge:
            await judge.judge([asked("Cats")])
    without, with_key = ({name.lower(): value for name, value in one.headers.items()} for one in server.requests)
    assert not [name for name, value in (without | with_key).items() if "secret" in name + value]
    assert "authorization" not in without
    assert not [name for name in without if name.startswith(("x-", "openai-"))]
    assert with_key["authorization"] == "Bearer sk-own"


async def test_no_more_requests_are_in_flight_than_the_settings_say() -> None:
    inside, most = 0, 0

    def script(request: Request) -> Say:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.01)
        inside -= 1
        return WELL(request)

    with serving(script) as server:
        async with directly(server.url, "yesno", profile="vllm", in_flight=3) as judge:
            await judge.judge([asked("Cats", "Dogs", "Nuclear") for _ in range(10)])
    assert len(server.requests) == 30
    assert most <= 3


async def test_a_content_alone_uses_all_requests_in_flight_once_its_first_is_answered() -> None:
    together = threading.Barrier(3)

    def script(request: Request) -> Say:
        if len(server.requests) > 1:
            together.wait(60)
        return WELL(request)

    with serving(script) as server:
        async with directly(server.url, "yesno", profile="vllm", in_flight=3) as judge:
            (judged,) = await judge.judge([asked("Cats", "Dogs", "Nuclear", "Bees")])
    assert judged.failure is None
    assert judged.usage.calls == 4


async def test_of_contents_that_wait_nothing_is_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand waiting contents hold no prompt."""
    rendered = 0
    own = Prompts.render

    def counting(*given: object) -> Rendered:
        nonlocal rendered
        rendered += 1
        return own(*given)

    monkeypatch.setattr(Prompts, "render", counting)
    with serving(always(Say(silent=True))) as server:
        async with directly(server.url, "decision_api", profile="vllm", in_flight=3) as judge:
            waiting = asyncio.create_task(judge.judge([asked("Cats")] * 10_000))
            while len(server.requests) < 3:
                await asyncio.sleep(0.01)
            assert rendered == 3
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting


async def test_a_wait_for_a_place_in_flight_ends_at_the_deadline() -> None:
    with serving(always(Say(silent=True))) as server:
        async with directly(server.url, "decision_api", profile="vllm", in_flight=1) as judge:
            one, other = await asyncio.gather(
                judge.judge([asked("Cats", seconds=1.0)]), judge.judge([asked("Cats", seconds=0.2)])
            )
    assert isinstance(one[0].failure, Overloaded)
    assert isinstance(other[0].failure, Withheld)
    assert other[0].usage.calls == 0


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0.0),
    ],
)
def test_the_wait_that_an_answer_asks_for(headers: dict[str, str], expected: float | None) -> None:
    assert retry_after(headers) == expected


def test_a_date_to_come_is_a_wait() -> None:
    waits: Callable[[float], float | None] = lambda ahead: retry_after(  # noqa: E731
        {"retry-after": email.utils.formatdate(time.time() + ahead, usegmt=True)}
    )
    assert waits(100) == pytest.approx(100, abs=3)


async def test_a_server_without_token_counts_costs_the_reservation() -> None:
    """sparrow-decider reports 0 for every answer: a token limit would never be reached."""
    meter = Recording()

    def uncounted(request: Request) -> Say:
        body = answers.openai_decisions()(request).body
        assert isinstance(body, dict)
        return Say({**body, "usage": {"input_tokens": 0, "output_tokens": 0}})

    with serving(routed(decisions=uncounted)) as server:
        async with directly(server.url, "decision_api", meter) as judge:
            (judged,) = await judge.judge([asked("Cats")])
    assert judged.answers[0].probability is not None
    assert meter.settled == meter.reserved
    assert judged.usage.tokens_in == meter.reserved[0].tokens_in > 0
