"""What a ranker's feature tables count over the training contents, against loops."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import pytest

from tagbus.models.data.splits import Split
from tagbus.models.rank.candidates import Recipe
from tagbus.models.rank.statistics import count, count_named, count_terms
from tagbus.stream.config import Settings
from tagbus.stream.contract.events import Exemplar, Tag
from tagbus.stream.errors import UserError
from tagbus.stream.rank.features.named import Named
from tagbus.stream.rank.features.tables import TableName
from tagbus.stream.rank.features.terms import HASHES, SMOOTHED
from tagbus.stream.recall.lexical.literal import Lexicon
from tagbus.stream.recall.pool import Numbers
from tagbus.stream.recall.words import digest, terms_of

TAGS = ("bees", "honey", "history", "law")
WORDS = ("honey", "bee", "old", "law", "of", "history", "keepers", "rare")


def contents(number: int) -> list[Exemplar]:
    random = np.random.default_rng(5)
    return [
        Exemplar(
            id=str(each),
            text=" ".join(random.choice(WORDS, 5)),
            accepted=tuple(random.choice([*TAGS, "unheard"], 2, replace=False)),
        )
        for each in range(number)
    ]


@dataclass(frozen=True)
class Few:
    items: list[Exemplar]

    def tags(self) -> list[Tag]:
        return [Tag(id=each, name=each) for each in TAGS]

    def exemplars(self, split: Split) -> Iterator[Exemplar]:
        return iter(self.items if split == "train" else ())


def numbers() -> Numbers:
    return Numbers(TAGS)


def test_names_that_stand_in_contents_are_counted_and_how_often_they_are_right() -> None:
    items = [
        Exemplar(id="1", text="Laws of honey", accepted=("honey", "bees")),
        Exemplar(id="2", text="Honey", accepted=("bees",)),
        Exemplar(id="3", text="A history", accepted=("history", "unheard")),
    ]
    names = Lexicon()
    for tag in (*TAGS, "unheard"):
        names.put(tag, (tag,))

    found = count_named(names, numbers(), iter(items))

    assert found.naming.tolist() == [0, 2, 1, 1]
    assert found.right.tolist() == [0, 1, 1, 0]


def test_pairs_of_term_and_tag_are_those_of_a_loop() -> None:
    items = contents(60)
    holds: Counter[str] = Counter()
    together: dict[str, Counter[int]] = defaultdict(Counter)
    for item in items:
        for term in set(terms_of(item.text)):
            holds[term] += 1
            together[term].update(TAGS.index(tag) for tag in item.accepted if tag in TAGS)

    found = count_terms(numbers(), iter(items))

    got = {
        int(found.hashes[row]): (
            int(found.contents[row]),
            dict(zip(found.tags[low:high].tolist(), found.together[low:high].tolist(), strict=True)),
        )
        for row, (low, high) in enumerate(zip(found.starts[:-1].tolist(), found.starts[1:].tolist(), strict=True))
    }
    often = {term: {tag: times for tag, times in tags.items() if times > 1} for term, tags in together.items()}
    assert got == {digest(term, HASHES): (holds[term], tags) for term, tags in often.items() if tags}


def test_beyond_the_most_those_of_the_largest_share_stay() -> None:
    whole, cut = count_terms(numbers(), iter(contents(60))), count_terms(numbers(), iter(contents(60)), most=10)

    shares = whole.together / (np.repeat(whole.contents, np.diff(whole.starts)) + SMOOTHED)
    kept = cut.together / (np.repeat(cut.contents, np.diff(cut.starts)) + SMOOTHED)
    assert sorted(kept) == pytest.approx(sorted(shares)[-10:])
    assert cut.load(cut.arrays(), len(TAGS)).starts.tolist() == cut.starts.tolist()


def test_without_contents_there_is_nothing() -> None:
    assert count_terms(numbers(), iter(())).hashes.shape == (0,)


def test_names_are_those_of_the_component_that_finds_them() -> None:
    recipe = replace(Recipe(), tables=(TableName.NAMED,))
    few = Few([Exemplar(id="1", text="honey", accepted=("honey",))])
    on = Settings.model_validate({"components": {"literal": {"enabled": True}}})

    (named,) = count(few, numbers(), recipe, on).named

    assert isinstance(named, Named)
    assert named.naming.tolist() == [0, 1, 0, 0]
    with pytest.raises(UserError, match="TAGBUS_COMPONENTS__LITERAL__ENABLED=true"):
        count(few, numbers(), recipe, Settings())


def test_only_training_contents_are_counted() -> None:
    few = Few(contents(5))
    tables = count(few, numbers(), Recipe(), Settings()).tables

    assert tables.contents == 5
    assert tables.counts.sum() == sum(tag in TAGS for tag in chain.from_iterable(one.accepted for one in few.items))
