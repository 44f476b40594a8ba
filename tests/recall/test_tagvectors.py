"""The tag vectors of an encoder's training: saved, loaded, queried; as a component of their release."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagbus.stream.config import Settings
from tagbus.stream.encoder.release import Release, default_folder, load_release
from tagbus.stream.errors import ReleaseMismatch, UserError
from tagbus.stream.memory import exact_memory
from tagbus.stream.memory.kinds import Kind
from tagbus.stream.memory.store import Memory, Point, Vectors
from tagbus.stream.recall.base import Query
from tagbus.stream.recall.component import Part, Surroundings
from tagbus.stream.recall.tagvectors import COMPONENT, CONTENTS, FILE, NAME, TagSearch, TagVectors, read

PLACE = Path("tags.npz")
SCALE = 20.0
RELEASE = load_release(default_folder()).model_copy(update={"name": "trained-1", "dimension": 3})
KNOWN = TagVectors(("a", "b"), np.array([[1, 0, 0], [0, 1, 0]], np.float32), np.array([0.5, -0.5], np.float32), SCALE)


def test_they_come_back_as_they_were_kept() -> None:
    found = TagVectors.parse(PLACE, KNOWN.dump())

    assert (found.ids, found.scale, found.release) == (KNOWN.ids, SCALE, "")
    assert np.array_equal(found.vectors, KNOWN.vectors)
    assert np.array_equal(found.bias, KNOWN.bias)


def test_a_chance_is_the_softmax_of_the_scaled_product_and_the_bias() -> None:
    (found,) = TagSearch(KNOWN).best(np.array([[0.6, 0.8, 0]], np.float32), 60)

    logits = np.array([SCALE * 0.6 + 0.5, SCALE * 0.8 - 0.5])
    assert list(found) == ["b", "a"]
    assert [found["a"], found["b"]] == pytest.approx(np.exp(logits) / np.exp(logits).sum(), abs=1e-6)


def units(random: np.random.Generator, *shape: int) -> Vectors:
    vectors = random.standard_normal(shape, np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32)


@given(
    st.integers(1, 2 * CONTENTS), st.sampled_from((1, 7, 40)), st.sampled_from((30, 3_000)), st.integers(0, 2**32 - 1)
)
@settings(max_examples=30, deadline=None)
def test_the_best_are_the_best_of_all_whatever_stands_beside(contents: int, count: int, tags: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    vectors, bias = units(random, tags, 64), random.standard_normal(tags, np.float32)
    search = TagSearch(TagVectors(tuple(f"t{number}" for number in range(tags)), vectors, bias, SCALE))
    asked = units(random, contents, 64)

    found = search.best(asked, count)

    logits = SCALE * asked.astype(np.float64) @ vectors.T + bias
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for one, expected in zip(found, chances, strict=True):
        assert list(one.values()) == sorted(one.values(), reverse=True)
        assert {tag: expected[int(tag[1:])] for tag in one} == pytest.approx(dict(one), rel=0.03)
        assert np.sort(expected)[-count:] == pytest.approx(sorted(expected[int(tag[1:])] for tag in one), rel=1e-4)
    for row in range(min(contents, 3)):
        (alone,) = search.best(asked[row : row + 1], count)
        assert list(alone) == list(found[row])
        assert list(alone.values()) == pytest.approx(list(found[row].values()), rel=1e-5)


def test_a_further_tag_has_the_chance_that_it_alone_would_have() -> None:
    content = np.array([[0.6, 0.8, 0]], np.float32)
    (found,) = TagSearch(KNOWN).best(content, 60, [{"new": 0.7, "far": -1.0}])

    logits = np.array([SCALE * 0.6 + 0.5, SCALE * 0.8 - 0.5])
    total, own = np.exp(logits).sum(), np.exp(SCALE * 0.7)
    assert list(found) == ["b", "new", "a", "far"]
    assert found["new"] == pytest.approx(own / (total + own), rel=1e-4)
    assert {tag: found[tag] for tag in "ab"} == pytest.approx(TagSearch(KNOWN).best(content, 60)[0])
    assert list(TagSearch(KNOWN).best(content, 2, [{"new": 0.7}])[0]) == ["b", "new"]
    assert TagSearch(KNOWN).best(content, 60, [{}]) == TagSearch(KNOWN).best(content, 60)


def test_the_name_is_another_for_other_vectors(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(KNOWN.dump())
    first = read(tmp_path)
    (tmp_path / FILE).write_bytes(TagVectors(KNOWN.ids, KNOWN.vectors, 2 * KNOWN.bias, SCALE).dump())

    assert first[0] == KNOWN.dump()
    assert first[1] != read(tmp_path)[1]


def test_a_folder_without_them_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tags\.npz.*--recipe top-layers"):
        read(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no archive", KNOWN.dump()[:-30]])
def test_any_other_file_is_refused(content: bytes) -> None:
    with pytest.raises(UserError, match=r"tags\.npz.*--recipe top-layers"):
        TagVectors.parse(PLACE, content)


def test_arrays_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match="3 tags"):
        TagVectors.parse(PLACE, TagVectors(("a", "b", "c"), KNOWN.vectors, KNOWN.bias, SCALE).dump())


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_vectors_of_a_training_that_diverged_are_refused(wrong: float) -> None:
    vectors = KNOWN.vectors.copy()
    vectors[1, 2] = wrong
    with pytest.raises(UserError, match=r"tags\.npz: a vector or a bias is not finite"):
        TagVectors.parse(PLACE, replace(KNOWN, vectors=vectors).dump())


async def opened(folder: Path, vectors: TagVectors, *stored: Point) -> Part:
    memory = exact_memory(RELEASE.name, 3)
    await memory.tags.upsert(stored)
    return await opened_over(memory, folder, vectors)


async def opened_over(memory: Memory, folder: Path, vectors: TagVectors) -> Part:
    (folder / FILE).write_bytes(vectors.dump())

    async def no_memory(release: Release, kinds: dict[str, Kind]) -> Memory:
        raise AssertionError(f"no second memory is opened: {release.name} {sorted(kinds)}")

    configured = COMPONENT.configure({"folder": str(folder)})
    assert configured.version == read(folder)[1]
    return await configured.open(Surroundings(Settings(), RELEASE, memory, no_memory))  # type: ignore[arg-type]


class TestComponent:
    def test_it_is_off_without_a_folder(self) -> None:
        assert COMPONENT.configure({}).version is None

    async def test_it_reads_the_vector_that_recall_has_anyway(self, tmp_path: Path) -> None:
        part = await opened(tmp_path, replace(KNOWN, release=RELEASE.name))

        (recaller,) = part.recallers
        vectors = np.array([[0, 1, 0], [1, 0, 0]], np.float32)
        found = await recaller.recall(Query(["x", "y"], ["never", "read"], vectors))

        assert recaller.name == NAME
        assert [next(iter(one)) for one in found] == ["b", "a"]
        assert [sum(one.values()) for one in found] == pytest.approx([1, 1])

    async def test_a_new_tag_is_found_by_its_text_until_it_is_removed(self, tmp_path: Path) -> None:
        """Whether it existed before the component or was added later; a scope hides it as in C2T's search."""
        new = Point("new", np.array([0, 0, 1], np.float32), {"name": "new"})
        part = await opened(tmp_path, replace(KNOWN, release=RELEASE.name), new)
        (recaller,) = part.recallers
        query = Query(["x"], ["text"], np.array([[0, 0, 1]], np.float32))
        change = part.listeners["tags"]

        assert next(iter((await recaller.recall(query))[0])) == "new"
        await change({"new": None})
        assert list((await recaller.recall(query))[0]) == ["a", "b"]
        await change({"new": new.payload, "a": {"name": "a"}})
        assert next(iter((await recaller.recall(query))[0])) == "new"

    async def test_tags_of_a_snapshot_that_is_loaded_after_it_was_opened_are_found(self, tmp_path: Path) -> None:
        """There is no notification of points that a snapshot puts into the store."""
        memory = exact_memory(RELEASE.name, 3)
        part = await opened_over(memory, tmp_path, replace(KNOWN, release=RELEASE.name))
        await part.listeners["tags"]({"gone": {"name": "gone"}})
        await part.listeners["tags"]({"gone": None})
        vector = np.array([0, 0, 1], np.float32)
        await memory.tags.upsert([Point(tag, vector, {"name": tag}) for tag in ("new", "gone")])
        (recaller,) = part.recallers
        (found,) = await recaller.recall(Query(["x"], ["text"], np.array([[0, 0, 1]], np.float32)))
        assert next(iter(found)) == "new"
        # A tag removed since is not read from an older state of the store.
        assert "gone" not in found

    @pytest.mark.parametrize(("release", "named"), [("", r"\(none: it was not exported\)"), ("other-1", "other-1")])
    async def test_vectors_of_another_release_are_refused(self, tmp_path: Path, release: str, named: str) -> None:
        expected = rf"belongs to release {named}, but the encoder is trained-1.*TAGBUS_COMPONENTS__TAGVECTORS__FOLDER"
        with pytest.raises(ReleaseMismatch, match=expected):
            await opened(tmp_path, replace(KNOWN, release=release))

    async def test_vectors_of_another_length_are_refused(self, tmp_path: Path) -> None:
        longer = TagVectors(KNOWN.ids, np.eye(2, 4, dtype=np.float32), KNOWN.bias, SCALE, RELEASE.name)
        with pytest.raises(UserError, match="vectors of 4 numbers, expected 3"):
            await opened(tmp_path, longer)
