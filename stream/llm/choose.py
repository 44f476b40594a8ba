"""Choose the backend for a server: the first of decision_api, yesno and stated that answers a known question
correctly."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import Field

from tagbus.stream.config import LlmSettings
from tagbus.stream.contract.events import Content
from tagbus.stream.errors import UserError
from tagbus.stream.llm.base import Answer, Asked, Question
from tagbus.stream.llm.chat import PATH
from tagbus.stream.llm.client import NotServed, Tally
from tagbus.stream.llm.decisions import CONTRACTS
from tagbus.stream.llm.judge import Asking, Decisions, Server, Stated, YesNo
from tagbus.stream.llm.prompts import Prompts
from tagbus.stream.llm.shapes import Malformed, Shape, parsed

# A question that any model fit to judge gets right.
RIGHT: Final = Question("right", "Cats", "domestic cats and their behaviour")
WRONG: Final = Question("wrong", "Nuclear reactors", "plants that make electricity by nuclear fission")
KNOWN: Final = Asked(
    Content(id="probe", title="Why do cats purr?", text="House cats purr when they are stroked, and kittens do."),
    (RIGHT, WRONG),
)


@dataclass(frozen=True, slots=True)
class Choice:
    """The chosen backend, and the findings about those before it."""

    asking: Asking
    passed: tuple[str, ...] = ()


class _Model(Shape):
    id: str = Field(min_length=1)


class _Models(Shape):
    data: Sequence[_Model]


async def listed(server: Server, deadline: float) -> list[str]:
    """The models that the server lists, possibly none. Raises as Client.get does."""
    try:
        reply = await server.client.get("/models", deadline)
        return [] if reply.rejected else [one.id for one in parsed(_Models, reply.body).data]
    except (NotServed, Malformed):
        return []


async def choose(server: Server, prompts: Prompts, settings: LlmSettings, deadline: float) -> Choice:
    """Ask the known question in each way. Raises UserError if none works, and as Client.post does."""
    passed, absent = list[str](), set[str]()
    if not decides(server) and settings.backend in ("auto", "decision_api"):
        passed.append(f"decision_api: {server.profile.name} takes no adapter there; yesno does")
    for name, asking in candidates(server, prompts):
        # Two contracts share a path: if it does not exist, neither is served.
        if settings.backend not in ("auto", asking.backend) or _path(asking) in absent:
            continue
        try:
            problem = await _problem(asking, prompts, deadline)
        except NotServed as error:
            absent.add(_path(asking))
            problem = str(error).partition(": ")[2]
        if not problem:
            return Choice(asking, tuple(passed))
        passed.append(f"{name}: {problem}")
    wanted = "" if settings.backend == "auto" else f" with TAGBUS_LLM__BACKEND={settings.backend}"
    raise UserError(
        f"TAGBUS_LLM__URL={settings.url}: the server cannot judge{wanted}: {'; '.join(passed) or 'nothing fits'}"
    )


def decides(server: Server) -> bool:
    """Whether its decision endpoints may be asked: SGLang's refuse an adapter, llama.cpp's has no field for one."""
    return server.adapter is None or server.profile.adapter == "model"


def candidates(server: Server, prompts: Prompts) -> list[tuple[str, Asking]]:
    """All backends that the profile allows, best first, by name."""
    found: list[tuple[str, Asking]] = [
        (f"decision_api by {CONTRACTS[name].path} ({name})", Decisions(server, prompts, CONTRACTS[name]))
        for name in server.profile.decisions
        if decides(server)
    ]
    if server.profile.logprobs != "none":
        found.append(("yesno", YesNo(server, prompts)))
    return [*found, ("stated", Stated(server, prompts))]


async def answers(
    asking: Asking, prompts: Prompts, deadline: float, tally: Tally, asked: Asked = KNOWN
) -> list[Answer]:
    """The answers about the right tag and the wrong one, in that order unless `asked` turns it. Raises as Client.post
    does."""
    rendered = prompts.render(asked, asking.beside(asked.questions))
    found: list[Answer] = []
    for start in range(0, len(asked.questions), asking.at_once):
        found += await asking.ask(rendered, asked.questions[start : start + asking.at_once], deadline, tally)
    return found


def _path(asking: Asking) -> str:
    return asking.contract.path if isinstance(asking, Decisions) else PATH


async def _problem(asking: Asking, prompts: Prompts, deadline: float) -> str:
    """Why a backend does not work on the server; empty if it does. Raises NotServed, and as Client.post does."""
    found = await answers(asking, prompts, deadline, Tally())
    reasons = sorted({one.unknown for one in found if one.unknown})
    return "" if not reasons else f"a known question is answered with {', '.join(reasons)}"
