"""The decisions on one content and the resulting exemplar: a pure function of the log.

Three steps. First, an event that supersedes others takes them out of force; one that is itself superseded takes none
out, so an undo restores the previous state. Second, the latest verdict of each person on a tag counts. Third, verdicts
are merged over people: an adjudication decides, then the majority, else the tag stays open.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Annotated, Final, Literal

from pydantic import FailFast

from tagbus.stream.contract.codec import encode
from tagbus.stream.contract.decision import Decision, Mode
from tagbus.stream.contract.events import Exemplar
from tagbus.stream.contract.fields import LIST_ITEMS, Event, Id, Ids, Scopes, Time
from tagbus.stream.errors import FieldError, Untaggable

Verdict = Literal["accepted", "rejected", "unsure"]

STAGE: Final = "join"
# Prefix of the value of a content that waits for its text.
WAITING: Final = b'{"waits":true'


class KeptText(Event):
    """A content's text as carried by a decision."""

    title: str = ""
    text: str = ""
    language: str | None = None
    scopes: Scopes = ()


class KeptDecision(Event):
    """The stored part of a decision. `text`: the index of the text that it carried; None: it carried none."""

    decision: Id
    who: Id
    mode: Mode
    time: Time
    supersedes: Ids = ()
    replaces: bool = False
    accepted: Ids = ()
    rejected: Ids = ()
    unsure: Ids = ()
    text: int | None = None


class History(Event):
    """All decisions on one content in the order of the log, and their texts, each once. A value of `feedback.state`.

    `waits`: whether there are decisions but no text is known for the content.
    """

    waits: bool = False
    texts: Annotated[tuple[KeptText, ...], FailFast()] = ()
    decisions: Annotated[tuple[KeptDecision, ...], FailFast()] = ()

    def knows(self, decision: str) -> bool:
        """Whether it includes a decision with this id."""
        return any(one.decision == decision for one in self.decisions)

    def write(self) -> bytes:
        """The value on the topic."""
        return self.model_dump_json(exclude_defaults=True).encode()


def after(history: History, decision: Decision, limit: int) -> History:
    """The history with one more decision; the same object if it is known already.

    Above `limit` bytes the oldest texts are forgotten. Raises Untaggable if it is too large without them.
    """
    if history.knows(decision.decision):
        return history
    texts, number = _with_text(history.texts, decision)
    found = _waiting(History(texts=texts, decisions=(*history.decisions, keep(decision, number))))
    while (size := _size(found, decision.id)) > limit:
        if len(found.texts) < 2:
            words = f"at most batch.record_bytes = {limit}"
            raise Untaggable(STAGE, (FieldError("id", f"decisions of {size} bytes on one content", words),))
        found = _waiting(_without_oldest(found))
    return found


def keep(decision: Decision, text: int | None) -> KeptDecision:
    """The stored part of a decision. `text`: the index of the text that it carried."""
    return KeptDecision(
        decision=decision.decision,
        who=decision.who,
        mode=decision.mode,
        time=decision.time,
        supersedes=decision.supersedes,
        replaces=decision.replaces,
        accepted=decision.accepted,
        rejected=decision.rejected,
        unsure=decision.unsure,
        text=text,
    )


def exemplar(content_id: str, history: History) -> Exemplar | None:
    """The exemplar of people's decisions; None if every tag is open, or the content's text is not known."""
    counting = in_force(history.decisions)
    number = _text(history, counting)
    verdicts = merged(counting)
    accepted = tuple(tag for tag, verdict in verdicts.items() if verdict == "accepted")[:LIST_ITEMS]
    rejected = tuple(tag for tag, verdict in verdicts.items() if verdict == "rejected")[:LIST_ITEMS]
    if number is None or not (accepted or rejected):
        return None
    text = history.texts[number]
    return Exemplar(
        id=content_id,
        source="people",
        title=text.title,
        text=text.text,
        accepted=accepted,
        rejected=rejected,
        time=next(one.time for one in reversed(counting) if _decides(one)),
        scopes=text.scopes,
    )


def in_force(decisions: Sequence[KeptDecision]) -> list[KeptDecision]:
    """The decisions that no later decision in force supersedes, in order."""
    superseded: set[str] = set()
    found = []
    for one in reversed(decisions):
        if one.decision not in superseded:
            superseded.update(one.supersedes)
            found.append(one)
    return found[::-1]


def merged(decisions: Sequence[KeptDecision]) -> dict[str, Verdict]:
    """The verdict on each tag that people agree on, of decisions in force; open tags are left out.

    The latest adjudication decides. Without one the majority of accepting and rejecting people does, and a tie is open.
    Tags are in the order of the latest verdicts on them.
    """
    said: dict[tuple[str, str], tuple[Mode, Verdict]] = {}
    for one in decisions:
        if one.replaces:
            said = {key: word for key, word in said.items() if key[0] != one.who}
        for tag, verdict in _verdicts(one):
            # The latest verdict comes last, so that the latest adjudication counts.
            said.pop((one.who, tag), None)
            said[one.who, tag] = one.mode, verdict
    votes: dict[str, Counter[Verdict]] = {}
    adjudicated: dict[str, Verdict] = {}
    for (_, tag), (mode, verdict) in said.items():
        votes.setdefault(tag, Counter())[verdict] += 1
        if mode == "adjudicate":
            adjudicated[tag] = verdict
    found = {tag: adjudicated.get(tag) or _majority(counts) for tag, counts in votes.items()}
    return {tag: verdict for tag, verdict in found.items() if verdict != "unsure"}


def _majority(votes: Counter[Verdict]) -> Verdict:
    if votes["accepted"] == votes["rejected"]:
        return "unsure"
    return "accepted" if votes["accepted"] > votes["rejected"] else "rejected"


def _verdicts(one: KeptDecision) -> Iterator[tuple[str, Verdict]]:
    yield from ((tag, "accepted") for tag in one.accepted)
    yield from ((tag, "rejected") for tag in one.rejected)
    yield from ((tag, "unsure") for tag in one.unsure)


def _decides(one: KeptDecision) -> bool:
    return bool(one.accepted or one.rejected)


def _text(history: History, counting: Sequence[KeptDecision]) -> int | None:
    """The index of the text of the latest decision in force that carries one. If none does: of those that decisions in
    force have corrected, by superseding them and naming tags; an undo takes the text back too."""
    known = range(len(history.texts))
    if (found := next((one.text for one in reversed(counting) if one.text in known), None)) is not None:
        return found
    by_id = {one.decision: one for one in history.decisions}
    # The next one to look at is the last.
    left, looked = list(counting), set[str]()
    while left:
        one = left.pop()
        if one.text in known:
            return one.text
        if one.decision not in looked and (one.accepted or one.rejected or one.unsure):
            looked.add(one.decision)
            left += [by_id[gone] for gone in one.supersedes if gone in by_id]
    return None


def _waiting(history: History) -> History:
    counting = in_force(history.decisions)
    waits = _text(history, counting) is None and bool(merged(counting))
    return history.model_copy(update={"waits": waits})


def _with_text(texts: tuple[KeptText, ...], decision: Decision) -> tuple[tuple[KeptText, ...], int | None]:
    """The texts including that of a decision, and its index. An undo carries none: it restores the previous state."""
    if not decision.has_text or (decision.supersedes and not decision.decides):
        return texts, None
    brought = KeptText(title=decision.title, text=decision.text, language=decision.language, scopes=decision.scopes)
    if brought in texts:
        return texts, texts.index(brought)
    return (*texts, brought), len(texts)


def _without_oldest(history: History) -> History:
    """The history without its oldest text that is not in force; the decisions that carried it have none then."""
    gone = 1 if _text(history, in_force(history.decisions)) == 0 else 0

    def moved(number: int | None) -> int | None:
        if number is None or number == gone:
            return None
        return number - (number > gone)

    decisions = tuple(one.model_copy(update={"text": moved(one.text)}) for one in history.decisions)
    return History(texts=(*history.texts[:gone], *history.texts[gone + 1 :]), decisions=decisions)


def _size(history: History, content_id: str) -> int:
    """The size in bytes of the larger of its two records."""
    found = exemplar(content_id, history)
    return max(len(history.write()), 0 if found is None else len(encode(found)))
