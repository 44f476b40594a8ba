"""Contents with known tags, as they are tagged to fit and to measure."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from tagbus.stream.app import assemble, evaluation, filling
from tagbus.stream.app.data.jsonl_folder import JsonlFolder
from tagbus.stream.config import Settings
from tagbus.stream.contract.codec import encode
from tagbus.stream.contract.events import Content, Exemplar, Tag
from tagbus.stream.errors import UserError

TAGS = [
    Tag(id="bees", name="honey bees", scopes=("tenant-7",)),
    Tag(id="ships", name="ships"),
    Tag(id="boats", name="boats", replaced_by=("ships",)),
    Tag(id="vessels", name="vessels", replaced_by=("ships", "bees")),
]


async def resolved(*annotated: Exemplar) -> Sequence[Exemplar]:
    async with assemble.in_process(Settings()) as stack:
        await filling.fill(stack.projection(), {"tags": TAGS, "exemplars": []}, lambda _: None)
        return await evaluation.in_force(stack, annotated)


async def test_a_content_sees_what_its_exemplar_sees() -> None:
    """Given a tag of one tenant, its contents are found right by it, as a worker finds them."""
    own = Exemplar(id="own", title="honey bees", accepted=("bees",), scopes=("tenant-7",))
    other = Exemplar(id="other", title="honey bees", accepted=("ships",), scopes=("tenant-8",))
    async with assemble.in_process(Settings()) as stack:
        await filling.fill(stack.projection(), {"tags": TAGS, "exemplars": []}, lambda _: None)
        results = await evaluation.undecided(stack, [own, other])
    assert ["bees" in {tag.id for tag in result.tags} for result in results] == [True, False]


async def test_a_replaced_tag_is_right_as_its_successor() -> None:
    """A corpus keeps old ids: results with the successors were counted as wrong, and confidences were too low."""
    old = Exemplar(id="a", title="x", accepted=("boats", "bees"))
    split = Exemplar(id="b", title="x", accepted=("vessels",))
    none = Exemplar(id="c", title="x")
    unknown = Exemplar(id="d", title="x", accepted=("unknown",))
    found = await resolved(old, split, none, unknown)
    assert [(one.id, set(one.accepted)) for one in found] == [
        ("a", {"ships", "bees"}),
        ("c", set()),
        ("d", {"unknown"}),
    ]


async def test_contents_of_split_tags_alone_are_the_users_mistake() -> None:
    with pytest.raises(UserError, match="the tags of all 1 contents are split"):
        await resolved(Exemplar(id="b", title="x", accepted=("vessels",)))


def test_a_content_with_its_answer_keeps_its_scopes(tmp_path: Path) -> None:
    content = Content(id="a", title="x", scopes=("tenant-7",))
    (tmp_path / "content.jsonl").write_bytes(encode(content))
    (tmp_path / "answers.jsonl").write_bytes(encode(Exemplar(id="a", accepted=("bees",))))
    (found,) = JsonlFolder(tmp_path).exemplars("test")
    assert (found.scopes, found.accepted) == (("tenant-7",), ("bees",))
