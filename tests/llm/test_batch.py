"""A batch is sent once and paid for at its price, whatever is killed; unanswered questions are reported, never lost."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tagbus.stream.contract.events import Content
from tagbus.stream.errors import DependencyDown, Overloaded, UserError
from tagbus.stream.llm.batch import asking as parts
from tagbus.stream.llm.batch.folder import Folder
from tests.llm import answers
from tests.llm.batch_server import BatchServer
from tests.llm.carrying import CONTENTS, asked, carried, carrying, given
from tests.llm.hostile import CONTENTS as HOSTILE
from tests.llm.scripted import ABSENT, Request, Say, serving
from tests.llm.test_budget import Topic


@pytest.mark.parametrize(("backend", "requests"), [("yesno", 2), ("stated", 1)])
async def test_contents_are_asked_in_one_batch_as_the_judge_asks_them(
    backend: str, requests: int, tmp_path: Path
) -> None:
    batches = BatchServer(looks=3)
    with serving(batches) as server:
        await carried(server, tmp_path, backend=backend, unasked=lambda one: one.id == "c1")
    assert len(batches.batches) == 1
    assert len(batches.requests()) == 3 * requests
    body = batches.requests()[0]["body"]
    assert body["model"] == "m"
    assert "A title 0" in body["messages"][1]["content"]
    assert ("logprobs" in body) == (backend == "yesno")
    found = given(tmp_path, CONTENTS[0])
    assert found is not None
    assert {tag: round(p or 0, 2) for tag, p in found.answers.items()} == {"cats": 0.95, "nuclear": 0.05}
    assert (found.failure, found.backend, found.prompt, found.model) == (None, backend, "v1", "test-model")
    assert (found.calls, found.tokens_in, found.tokens_out) == (requests, 150 * requests, requests)
    # A content that is not asked about is part of the batch, and has no answer.
    assert given(tmp_path, CONTENTS[1]) is None


async def test_it_is_paid_at_half_the_price_and_reserved_before_it_is_sent(tmp_path: Path) -> None:
    topic, reserved = Topic(), list[float]()
    batches = BatchServer()

    def script(request: object) -> Say:
        reserved.append(sum(one.reserved.cost for one in topic.records.values()))
        return batches(request)  # type: ignore[arg-type]

    with serving(script) as server:
        await carried(server, tmp_path, topic=topic, budget={"cost_per_day": 1.0})
    # 4 contents, 2 requests each, of 150 tokens in and 1 out.
    whole = 8 * (150 * 2.0 + 1 * 8.0) / 1e6
    (record,) = topic.records.values()
    assert record.spent.cost == pytest.approx(whole / 2)
    assert record.spent.tokens == 8 * 151
    assert record.reserved.cost == 0
    assert all(one >= whole / 2 for one in reserved)
    found = given(tmp_path, CONTENTS[0])
    assert found is not None
    assert found.cost == pytest.approx(whole / 2 / 4)


async def test_answers_without_token_counts_cost_their_reservation(tmp_path: Path) -> None:
    topic, chat = Topic(), answers.chat()
    plain = [0]

    def some(request: Request) -> Say:
        said = chat(request)
        assert isinstance(said.body, dict)
        if "Nuclear" not in request.body["messages"][1]["content"]:
            return said
        # A server that counts tokens for one model and not for another, or reports 0.
        plain[0] += 1
        usage = {} if plain[0] % 2 else {"usage": {"prompt_tokens": 0, "completion_tokens": 0}}
        return Say({**{name: value for name, value in said.body.items() if name != "usage"}, **usage})

    with serving(BatchServer(some)) as server:
        await carried(server, tmp_path, topic=topic, budget={"cost_per_day": 1.0})
    (record,) = topic.records.values()
    asked_for = [one.estimates[1] for one in Folder(tmp_path).lines(0)]
    assert len(asked_for) == 4
    assert record.spent.tokens == sum(151 + one.tokens_in + one.tokens_out for one in asked_for)


# The lost answer: to an upload, to the creation of a batch, to a poll, to its results.
LOST = {
    "upload": ("POST /files", Say({}, 500)),
    "upload cut": ("POST /files", Say({"id": "file-0"}, cut=3)),
    "create": ("POST /batches", Say({}, 500)),
    "create cut": ("POST /batches", Say({"id": "batch_1"}, cut=3)),
    "listing": ("GET /batches", Say({}, 429, {"retry-after": "0"})),
    "look": ("GET /batches/batch_1", Say({}, 503)),
    "results": ("GET /files/file-2/content", Say({}, 500)),
}


@pytest.mark.parametrize("lost", LOST)
async def test_an_answer_that_is_lost_is_asked_for_again_and_no_batch_is_made_twice(lost: str, tmp_path: Path) -> None:
    path, say = LOST[lost]
    batches = BatchServer(first={path: [say]}, others=250)
    with serving(batches) as server:
        await carried(server, tmp_path)
    assert batches.first[path] == []
    assert len(batches.batches) == 1
    assert all((one := given(tmp_path, content)) and one.failure is None for content in CONTENTS)


@pytest.mark.parametrize("lost", ["upload", "create", "create cut", "look", "results"])
async def test_an_interrupted_batch_is_taken_up_again_and_not_sent_twice(lost: str, tmp_path: Path) -> None:
    path, say = LOST[lost]
    topic = Topic()
    batches = BatchServer(first={path: [say] * 3}, looks=2)
    with serving(batches) as server:
        # No patience: each lost answer ends the process. A batch whose creation was not confirmed is found.
        for _ in range(1 if "create" in lost else 3):
            with pytest.raises(DependencyDown):
                await carried(server, tmp_path, topic=topic, budget={"cost_per_day": 1.0}, patience=0.0)
        sent = batches.requests()
        await carried(server, tmp_path, topic=topic, budget={"cost_per_day": 1.0}, contents=())
        assert (tmp_path / "answers.jsonl").exists()
    assert len(batches.batches) == 1
    assert batches.requests() == (sent or batches.requests())
    assert all((one := given(tmp_path, content)) and one.failure is None for content in CONTENTS)
    # Reservations are counted at least once, and requests at most once.
    (record,) = topic.records.values()
    assert record.spent.cost + record.reserved.cost >= 8 * (150 * 2.0 + 8.0) / 1e6 / 2


async def test_a_process_killed_while_it_waits_resumes_waiting(tmp_path: Path) -> None:
    batches = BatchServer(looks=10**9)
    with serving(batches) as server:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await carried(server, tmp_path)
        assert not (tmp_path / "answers.jsonl").exists()
        batches.looks = 1
        await carried(server, tmp_path, contents=())
    assert len(batches.batches) == 1
    assert given(tmp_path, CONTENTS[3]) is not None


async def test_a_folder_left_before_all_was_asked_is_started_over(tmp_path: Path) -> None:
    with Folder(tmp_path) as folder:
        folder.begin()
        folder.requests(7).write_bytes(b"half a li")
    batches = BatchServer()
    with serving(batches) as server:
        await carried(server, tmp_path)
    assert len(batches.requests()) == 8
    assert not (tmp_path / "part-0007.jsonl").exists()


async def test_what_the_batch_does_not_answer_goes_out_without_the_judge(tmp_path: Path) -> None:
    # c0 gets no answer, and one tag of c1 none; the batch expires.
    batches = BatchServer(
        outcome=lambda name: "batch_expired" if name in {"0-0", "0-1", "1-1"} else None, status="expired"
    )
    with serving(batches) as server:
        await carried(server, tmp_path)
    nothing, some, all_ = (given(tmp_path, content) for content in CONTENTS[:3])
    assert nothing is not None
    assert (nothing.failure, nothing.calls, nothing.cost) == ("batch", 0, None)
    assert nothing.judged(asked(CONTENTS[0])).failure is not None
    assert some is not None
    assert some.failure is None
    assert some.answers["nuclear"] is None
    assert all_ is not None
    assert None not in all_.answers.values()


@pytest.mark.parametrize(
    "script",
    [
        lambda _: Say({"error": {"message": "bad"}}, 400),
        lambda _: Say({"choices": []}),
        lambda _: Say(answers.completion("Perhaps", [("Perhaps", -0.1)])),
        lambda _: Say(answers.completion("Yes", None)),
        lambda _: Say(answers.completion("", refusal="No.")),
        lambda _: Say("no object"),
    ],
    ids=["refused", "malformed", "neither", "no logprobs", "refusal", "a text"],
)
async def test_a_tag_that_is_not_judged_is_unknown(script: Callable[[object], Say], tmp_path: Path) -> None:
    with serving(BatchServer(script)) as server:
        await carried(server, tmp_path)
    found = given(tmp_path, CONTENTS[0])
    assert found is not None
    assert found.answers == {"cats": None, "nuclear": None}
    assert [one.probability for one in found.judged(asked(CONTENTS[0])).answers] == [None, None]


@pytest.mark.parametrize(
    "odd",
    [
        {"model": "m" * 3_000},
        {"usage": {"prompt_tokens": 100, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 9_000}}},
        {"usage": {"prompt_tokens": int("1" + "0" * 400), "completion_tokens": 1}},
        {"usage": {"prompt_tokens": float("nan"), "completion_tokens": float("inf")}},
    ],
    ids=["model", "cached", "digits", "nan"],
)
async def test_an_answer_with_something_odd_beside_it_is_read(odd: dict[str, object], tmp_path: Path) -> None:
    """It is paid for."""
    script = lambda request: Say({**answers.chat()(request).body, **odd})  # type: ignore[dict-item] # noqa: E731
    with serving(BatchServer(script)) as server:
        await carried(server, tmp_path, budget={"price_cached": 0.2})
    found = given(tmp_path, CONTENTS[0])
    assert found is not None
    assert None not in found.answers.values()
    assert found.cost is not None
    assert found.cost > 0


async def test_unrequested_results_are_dropped(tmp_path: Path) -> None:
    batches = BatchServer()
    with serving(batches) as server:
        end = batches._end

        def more(batch: dict[str, object]) -> None:
            end(batch)  # type: ignore[arg-type]
            file = str(batch["output_file_id"])
            stray = {"custom_id": "9-9", "response": {"status_code": 200, "body": answers.completion("Yes")}}
            batches.files[file] += b"\n{half a li\n" + json.dumps(stray).encode() + b"\n\xff\n"

        batches._end = more  # type: ignore[method-assign,assignment]
        await carried(server, tmp_path)
    assert len((tmp_path / "answers.jsonl").read_bytes().splitlines()) == 4


async def test_a_batch_that_the_server_refuses_to_run_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    why = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached", "line": None, "param": None}
    with serving(BatchServer(status="failed", errors=[why])) as server:
        async with carrying(server, tmp_path) as carrier:
            carrier.say = said.append
            await carrier.run()
    assert any("failed: Enqueued token limit reached" in line for line in said)
    assert all((one := given(tmp_path, content)) and one.failure == "batch" for content in CONTENTS)


async def test_beyond_the_budget_of_the_day_contents_go_out_without_the_judge(tmp_path: Path) -> None:
    batches, topic = BatchServer(), Topic()
    with serving(batches) as server:
        # A part is at most a tenth of the limit, so the parts that fit are asked.
        await carried(server, tmp_path, topic=topic, budget={"tokens_per_day": 800.0, "tokens_per_minute": 1.0})
    found = [one for content in CONTENTS if (one := given(tmp_path, content)) is not None]
    assert {one.failure for one in found} == {None, "budget"}
    assert 0 < len(batches.requests()) < 8
    (record,) = topic.records.values()
    assert record.spent.tokens <= 800


async def test_a_large_batch_is_cut_into_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "REQUESTS", 4)
    batches = BatchServer()
    with serving(batches) as server:
        await carried(server, tmp_path)
    # The requests of one content are never split, and each part has separate ids.
    assert len(batches.batches) == 2
    assert [one["custom_id"] for one in batches.requests()] == ["0-0", "0-1", "1-0", "1-1"] * 2
    assert all((one := given(tmp_path, content)) and one.failure is None for content in CONTENTS)


async def test_hostile_contents_stay_inside_their_fence_and_name_nothing(tmp_path: Path) -> None:
    hostile = [Content(id=f"../{n}\n", title=title[:500], text=text) for n, (title, text) in enumerate(HOSTILE)]
    batches = BatchServer()
    with serving(batches) as server:
        await carried(server, tmp_path, contents=hostile)
    for one in batches.requests():
        assert one["custom_id"].replace("-", "").isdecimal()
        assert one["body"]["messages"][1]["content"].count("</data>") == 1
    assert {file.parent for file in tmp_path.rglob("*")} == {tmp_path}


async def test_a_server_without_batches_is_a_users_mistake(tmp_path: Path) -> None:
    with serving(lambda _: ABSENT) as server, pytest.raises(UserError, match="the server has no batch API"):
        await carried(server, tmp_path)


async def test_a_server_that_is_away_is_named(tmp_path: Path) -> None:
    with serving(lambda _: Say({}, 503)) as server, pytest.raises(Overloaded, match=r"/files answered 503"):
        await carried(server, tmp_path, patience=0.0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"backend": "auto"}, r"^TAGBUS_LLM__BACKEND=auto: batches have chat completions alone"),
        ({"backend": "decision_api"}, r"expected yesno or stated"),
        ({"model": None}, r"^TAGBUS_LLM__MODEL is not set"),
        ({"select": "labels"}, r"^TAGBUS_LLM__SELECT=labels"),
    ],
)
async def test_settings_that_a_batch_cannot_keep_are_refused(
    changes: dict[str, object], words: str, tmp_path: Path
) -> None:
    with serving(BatchServer()) as server, pytest.raises(UserError, match=words):
        await carried(server, tmp_path, **changes)


def test_a_folder_holds_one_batch_for_one_process(tmp_path: Path) -> None:
    with Folder(tmp_path) as folder:
        folder.begin()
        with pytest.raises(UserError, match="another process is using it"), Folder(tmp_path):
            pass
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="expected a writable folder"), Folder(tmp_path / "file"):
        pass


async def test_a_folder_with_another_batch_is_refused(tmp_path: Path) -> None:
    with serving(BatchServer()) as server:
        await carried(server, tmp_path)
    with Folder(tmp_path) as folder:
        with pytest.raises(UserError, match=r"holds a batch about 'test' for judge judge-1, and asked is 'tag bees'"):
            folder.job("judge-1", "tag bees")
        with pytest.raises(UserError, match="for judge judge-2"):
            folder.job("judge-2", "test")
