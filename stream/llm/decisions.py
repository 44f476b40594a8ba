"""Backend `decision_api`: the server answers yes/no questions with probabilities and writes no text (LLM4Tag, eq. 10).

Three contracts: OpenAI's `/decisions`, which vLLM has too; SGLang's, on the same path; System One's `/systemone`.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal, Protocol

from pydantic import Field, JsonValue

from tagbus.stream.llm.base import Answer
from tagbus.stream.llm.client import Body
from tagbus.stream.llm.profile import ContractName
from tagbus.stream.llm.shapes import (
    LABEL_MASS,
    MALFORMED,
    MISSING,
    REFUSAL,
    Malformed,
    Probability,
    Shape,
    parsed,
)
from tagbus.stream.telemetry import LLM_OUTSIDE


class Contract(Protocol):
    """The form of one decision endpoint."""

    name: ContractName
    path: str
    # Whether an answer has a field for the label mass.
    massed: bool

    def body(self, model: str | None, text: str, questions: Sequence[str]) -> Body:
        """The request."""

    def read(self, body: bytes, count: int, floor: float) -> list[Answer]:
        """The answers to `count` questions; `floor` is the least label mass. Raises Malformed for another contract."""


class _Named(Shape):
    """The fields that every answer to a question may have."""

    name: str | None = None


class _Predicate(_Named):
    type: Literal["predicate"]
    probability: Probability


class _Refusal(_Named):
    type: Literal["refusal"]


class _OpenAiAnswer(Shape):
    answers: list[Annotated[_Predicate | _Refusal, Field(discriminator="type")]]


class OpenAi:
    """`POST /decisions` of OpenAI and vLLM: a list of predicates in, a list of answers in the same order out."""

    name: ContractName = "openai"
    path: str = "/decisions"
    massed: bool = False

    def body(self, model: str | None, text: str, questions: Sequence[str]) -> Body:
        """See Contract."""
        asked: list[JsonValue] = [
            {"type": "predicate", "name": name, "instructions": question} for name, question in _by_name(questions)
        ]
        return _with_model(model, {"input": text, "questions": asked})

    def read(self, body: bytes, count: int, floor: float) -> list[Answer]:  # noqa: ARG002 - it tells no label mass
        """See Contract."""
        answer = parsed(_OpenAiAnswer, body)
        found: dict[str, Answer] = {}
        for place, one in enumerate(answer.answers):
            name = one.name or _name(place)
            value = Answer(one.probability) if isinstance(one, _Predicate) else Answer(unknown=REFUSAL)
            # Two answers under one name: it is unknown which is right.
            found[name] = Answer(unknown=MALFORMED) if name in found else value
        return _in_order(found, count)


class _YesNo(Shape):
    type: Literal["yes_no"]
    probabilities: Mapping[str, Probability]
    label_mass: float | None = Field(None, ge=0, allow_inf_nan=False)


class _SglangAnswer(Shape):
    answers: Mapping[str, _YesNo]


class Sglang:
    """`POST /decisions` of SGLang: questions with ids and a mapping of answers, on OpenAI's path."""

    name: ContractName = "sglang"
    path: str = "/decisions"
    massed: bool = True

    def body(self, model: str | None, text: str, questions: Sequence[str]) -> Body:
        """See Contract."""
        asked: list[JsonValue] = [
            {"id": name, "type": "yes_no", "question": question} for name, question in _by_name(questions)
        ]
        return _with_model(model, {"input": text, "questions": asked})

    def read(self, body: bytes, count: int, floor: float) -> list[Answer]:
        """See Contract."""
        answer = parsed(_SglangAnswer, body)
        found = {
            name: _massed(one.probabilities.get("yes"), one.label_mass, floor) for name, one in answer.answers.items()
        }
        return _in_order(found, count)


class _Noul(Shape):
    type: Literal["noul"]
    noul: Probability


class _Diagnostics(Shape):
    label_mass: float | None = Field(None, ge=0, allow_inf_nan=False)


class _SystemOneAnswer(Shape):
    answers: Mapping[str, _Noul]
    diagnostics: Mapping[str, _Diagnostics] = {}


class SystemOne:
    """`POST /systemone`: a state and a mapping of questions in, a mapping of answers out. vLLM adds the label mass."""

    name: ContractName = "systemone"
    path: str = "/systemone"
    massed: bool = True

    def body(self, model: str | None, text: str, questions: Sequence[str]) -> Body:
        """See Contract."""
        asked: dict[str, JsonValue] = {
            name: {"type": "noul", "instructions": question} for name, question in _by_name(questions)
        }
        return _with_model(model, {"state": text, "questions": asked})

    def read(self, body: bytes, count: int, floor: float) -> list[Answer]:
        """See Contract."""
        answer = parsed(_SystemOneAnswer, body)
        nothing = _Diagnostics()
        found = {
            name: _massed(one.noul, answer.diagnostics.get(name, nothing).label_mass, floor)
            for name, one in answer.answers.items()
        }
        return _in_order(found, count)


CONTRACTS: Final[Mapping[ContractName, Contract]] = {one.name: one for one in (OpenAi(), Sglang(), SystemOne())}


def _name(place: int) -> str:
    # Models see these names, so they carry no meaning.
    return f"q{place}"


def _by_name(questions: Sequence[str]) -> list[tuple[str, str]]:
    return [(_name(place), question) for place, question in enumerate(questions)]


def _with_model(model: str | None, body: dict[str, JsonValue]) -> Body:
    return body if model is None else {"model": model, **body}


def _massed(probability: float | None, mass: float | None, floor: float) -> Answer:
    if probability is None:
        return Answer(unknown=MALFORMED)
    return Answer(unknown=LABEL_MASS) if mass is not None and mass < floor else Answer(probability)


def _in_order(found: Mapping[str, Answer], count: int) -> list[Answer]:
    """The answers to the questions; others are dropped and counted. Raises Malformed if none answers a question."""
    wanted = [_name(place) for place in range(count)]
    if outside := len(found.keys() - set(wanted)):
        LLM_OUTSIDE.inc(outside)
    if found and count and not found.keys() & set(wanted):
        raise Malformed("no answer bears the name of a question")
    return [found.get(name, Answer(unknown=MISSING)) for name in wanted]
