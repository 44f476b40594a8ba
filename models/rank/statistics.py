"""Statistics of the training contents for a ranker's features: tag counts and the named feature tables."""

from array import array
from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array

from tagbus.models.data.corpus import Corpus
from tagbus.models.data.texts import text_of
from tagbus.models.rank.candidates import Recipe
from tagbus.stream.config import Settings
from tagbus.stream.contract.events import Exemplar
from tagbus.stream.errors import UserError
from tagbus.stream.rank.features.base import Tables
from tagbus.stream.rank.features.broader import Broader
from tagbus.stream.rank.features.named import Named
from tagbus.stream.rank.features.table import FeatureTable
from tagbus.stream.rank.features.tables import Statistics, TableName
from tagbus.stream.rank.features.terms import SMOOTHED, Hashes, Terms, hashes_of
from tagbus.stream.recall.lexical import literal
from tagbus.stream.recall.lexical.literal import Lexicon, LiteralSettings
from tagbus.stream.recall.pool import Flags, Ints, Numbers
from tagbus.stream.recall.votes import ranks

# A pair of term and tag that was seen once carries no information.
FEWEST: Final = 2
# Tags per term, the most often right ones; pairs in all, those with the largest share: 32 MB, 16 MB packed.
TAGS: Final = 256
PAIRS: Final = 4_000_000
# Terms per counting step, which bounds the memory for their contents, each with several tags.
BLOCK: Final = 2_000_000


def count(corpus: Corpus, numbers: Numbers, recipe: Recipe, settings: Settings) -> Statistics:
    """The statistics of a ranker, over the training contents. Raises UserError for a table that these settings do not
    allow."""
    tables = count_tags(numbers, corpus.exemplars("train"), recipe.fewest_together)
    return Statistics(tables, [_table(name, corpus, numbers, settings) for name in recipe.tables])


def _table(name: TableName, corpus: Corpus, numbers: Numbers, settings: Settings) -> FeatureTable:
    match name:
        case TableName.BROADER:
            return Broader()
        case TableName.NAMED:
            return count_named(lexicon(corpus, settings), numbers, corpus.exemplars("train"))
        case TableName.TERMS:
            return count_terms(numbers, corpus.exemplars("train"))


def lexicon(corpus: Corpus, settings: Settings) -> Lexicon:
    """Return the names of the tags as the component `literal` matches them. Raises UserError if it is off."""
    section = LiteralSettings.model_validate(settings.components.get(literal.NAME, {}))
    if not section.enabled:
        raise UserError("the feature table `named` needs TAGBUS_COMPONENTS__LITERAL__ENABLED=true: names are its input")
    found = Lexicon(section.languages.split(","))
    for tag in corpus.tags():
        found.put(tag.id, (tag.name, *tag.aliases))
    return found


def count_tags(numbers: Numbers, exemplars: Iterator[Exemplar], fewest: int = 1) -> Tables:
    """Count each tag, and each pair of tags on the same content; pairs with at least `fewest` contents."""
    known = numbers.known
    matrix = _matrix([_right(numbers, item) for item in exemplars], known)
    both = (matrix.T @ matrix).tocoo()
    kept = (both.row != both.col) & (both.data >= fewest)
    pairs = both.row[kept].astype(np.int64) * known + both.col[kept]
    order = np.argsort(pairs)
    counts = np.bincount(matrix.indices, minlength=known)
    return Tables(counts, pairs[order], both.data[kept][order], matrix.shape[0])


def count_named(names: Lexicon, numbers: Numbers, exemplars: Iterator[Exemplar]) -> Named:
    """Count how many contents contain each known tag's name, and for how many of them the tag is right."""
    naming, right = np.zeros(numbers.known, np.int64), np.zeros(numbers.known, np.int64)
    for item in exemplars:
        tags = numbers.of(list(names.match(text_of(item))))
        tags = tags[tags < numbers.known]
        naming[tags] += 1
        right[np.intersect1d(tags, _right(numbers, item))] += 1
    return Named(naming, right)


def count_terms(numbers: Numbers, exemplars: Iterator[Exemplar], most: int = PAIRS) -> Terms:
    """Count how often each known tag is right for contents with a term, for at most `most` pairs."""
    hashes, lengths, tags = array("I"), array("q"), list[Ints]()
    for item in exemplars:
        terms = hashes_of(text_of(item))
        hashes.extend(terms)
        lengths.append(len(terms))
        tags.append(_right(numbers, item))
    vocabulary, terms_by_content, contents = _terms(hashes, lengths)
    pairs = _pairs(terms_by_content, _matrix(tags, numbers.known), contents)
    shares = pairs.data / (contents[pairs.row] + SMOOTHED)
    if len(shares) > most:
        kept = np.sort(np.argpartition(-shares, most)[:most])
        pairs = coo_array((pairs.data[kept], (pairs.row[kept], pairs.col[kept])), pairs.shape)
    used, rows = np.unique(pairs.row, return_inverse=True)
    starts = np.searchsorted(rows, np.arange(len(used) + 1))
    return Terms(vocabulary[used], contents[used], starts, pairs.col.astype(np.int32), pairs.data.astype(np.int32))


def _terms(hashes: "array[int]", lengths: "array[int]") -> tuple[Hashes, csr_array, Ints]:
    """Return the terms of several contents, ascending; which contents contain them, terms by contents; how many."""
    found = np.array(hashes, np.uint32)
    vocabulary, numbers, contents = np.unique(found, return_inverse=True, return_counts=True)
    rows = np.repeat(np.arange(len(lengths)), np.array(lengths, np.int64))
    several = contents >= FEWEST
    kept = several[numbers]
    numbers = (np.cumsum(several) - 1)[numbers[kept]]
    matrix = csr_array((np.ones(len(numbers), np.int64), (numbers, rows[kept])), (int(several.sum()), len(lengths)))
    return vocabulary[several], matrix, contents[several]


def _pairs(terms: csr_array, tags: csr_array, contents: Ints) -> coo_array:
    """Count how often each term and tag occur together, by term; keep the tags most often right for each term."""
    rows, columns, together = [], [], []
    block = np.cumsum(contents) // BLOCK
    for number in range(int(block[-1]) + 1 if len(block) else 0):
        first, last = np.searchsorted(block, (number, number + 1)).tolist()
        found = (terms[first:last] @ tags).tocsr()
        found.sort_indices()
        found = found.tocoo()
        kept = _most(found.row, found.data)
        rows.append(found.row[kept] + first)
        columns.append(found.col[kept])
        together.append(found.data[kept])
    joined = [np.concatenate([np.zeros(0, np.int64), *parts]) for parts in (together, rows, columns)]
    return coo_array((joined[0], (joined[1], joined[2])), (terms.shape[0], tags.shape[1]))


def _most(rows: Ints, together: Ints) -> Flags:
    """Select the pairs seen often enough that are among the most frequent of their term; `rows` ascends."""
    order = np.lexsort((-together, rows))
    kept = np.empty(len(rows), np.bool_)
    kept[order] = ranks(rows[order]) < TAGS
    return kept & (together >= FEWEST)


def _right(numbers: Numbers, item: Exemplar) -> Ints:
    """Return the known tags that are right for a content, ascending."""
    tags = np.unique(numbers.of(item.accepted))
    return tags[tags < numbers.known]


def _matrix(tags: list[NDArray[np.int64]], known: int) -> csr_array:
    """Contents by tags: 1 where the tag is right."""
    ends = np.cumsum([0, *map(len, tags)])
    flat = np.concatenate([np.zeros(0, np.int64), *tags])
    return csr_array((np.ones(len(flat), np.int64), flat, ends), (len(tags), known))
