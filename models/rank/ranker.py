"""`tagbus train ranker`: trees that rank the candidates of all recallers.

    tagbus train ranker CORPUS --out FOLDER

LambdaMART and a binary classifier, averaged (boost.py), trained on contents that are neither in memory nor in the
training of the heads. Some tags are masked as new, so that the trees also learn to rank a tag by its name and its first
exemplars alone.

With `--table` the trees read more features, of the named tables of stream/rank/features/.

With a cross-encoder configured there is a second stage: trees with an additional feature, the cross-encoder's score of
the best candidates of the first stage. The cross-encoder must not have been trained on these contents; `tagbus train
cross-encoder` leaves them out.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Final

import typer

from tagbus.models.data.corpus import Corpus, open_corpus, tagged, without
from tagbus.models.data.texts import text_of
from tagbus.models.journal import JOURNAL, Journal
from tagbus.models.rank.boost import STEP, Choice, Stage, best_of, measure, train_stage
from tagbus.models.rank.boost import choose as choose
from tagbus.models.rank.boost import fit as fit
from tagbus.models.rank.candidates import Recipe, Source, TrainingSet, collect
from tagbus.models.rank.second_stage import CrossScoring, add_cross_scores
from tagbus.models.rank.statistics import count
from tagbus.stream import calibrate
from tagbus.stream.app import assemble, components, console, filling
from tagbus.stream.app.assemble import TaggingStack
from tagbus.stream.config import Settings, load
from tagbus.stream.contract.release import Fingerprint
from tagbus.stream.encoder.release import sha256
from tagbus.stream.rank import cross_encoder, trees
from tagbus.stream.rank.cross_encoder.model import OnnxCrossEncoder
from tagbus.stream.rank.cross_encoder.pairs import Wording
from tagbus.stream.rank.features.tables import Statistics, TableName, columns
from tagbus.stream.rank.trees import Manifest, Over, SecondStage
from tagbus.stream.recall.pool import Numbers

DEFAULT: Final = Recipe()
# Figures of the second stage that are printed.
SAID: Final = ("p_at_1", "ndcg_at_5", "r_at_10", "psp_at_5")


def command(
    corpus: Annotated[str, typer.Argument(help="folder with training, validation and test contents, or `topics`")],
    to: Annotated[Path, typer.Option("--out", help="folder of the ranker; ranker.json, ranker.onnx, tables.npz")],
    cache: Annotated[Path | None, typer.Option("--cache", help="folder to cache embeddings in")] = None,
    left_out: Annotated[Path | None, typer.Option("--without", help="ids of tags to leave out, one per line")] = None,
    trees: Annotated[int, typer.Option(min=STEP, max=5000, help="most trees of each kind")] = DEFAULT.trees,
    leaves: Annotated[int, typer.Option(min=2, max=1024, help="leaves per tree")] = DEFAULT.leaves,
    new_share: Annotated[float, typer.Option(min=0, max=0.9, help="share of tags masked as new")] = DEFAULT.new_share,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    seeds: Annotated[int, typer.Option(min=1, max=20, help="models of each kind, averaged")] = DEFAULT.seeds,
    threads: Annotated[int, typer.Option(min=0, help="threads of LightGBM; 0: all cores")] = 1,
    top: Annotated[
        int, typer.Option(min=1, max=1000, help="candidates per content that the cross-encoder scores")
    ] = DEFAULT.top,
    table: Annotated[
        list[TableName] | None, typer.Option(help="named feature table that it reads too; may be given again")
    ] = None,
    kept: Annotated[
        int, typer.Option("--candidates", min=1, max=1000, help="candidates per content that it scores")
    ] = DEFAULT.kept,
    neighbours: Annotated[
        int, typer.Option(min=1, max=1000, help="nearest exemplars per content that vote")
    ] = DEFAULT.neighbours,
) -> None:
    """Train a ranker for the configured recallers on the validation contents of CORPUS.

    Writes a calibration of its scores next to it, and a line per step to metrics.jsonl.
    """
    tables = tuple(dict.fromkeys(table or ()))
    recipe = Recipe(
        trees,
        leaves,
        new_share=new_share,
        neighbours=neighbours,
        kept=kept,
        seed=seed,
        threads=threads,
        top=top,
        seeds=seeds,
        tables=tables,
    )
    asyncio.run(_command(without(open_corpus(corpus), left_out), to, cache, recipe))


async def _command(corpus: Corpus, to: Path, cache: Path | None, recipe: Recipe) -> None:
    given = load()
    settings = components.without(given, trees.NAME, cross_encoder.NAME)
    read = components.folder_of(given, cross_encoder.NAME)
    reader = None if read is None else OnnxCrossEncoder.load(read, given.encoder.threads)
    to.mkdir(parents=True, exist_ok=True)
    async with assemble.in_process(settings, cache) as stack:
        held = list(tagged(corpus, "val"))
        numbers = Numbers([tag.id for tag in corpus.tags()], stack.graph.numbers)
        statistics = count(corpus, numbers, recipe, settings)
        await remember(stack, corpus, settings, cache, numbers.known + statistics.tables.contents)
        source = Source(stack.graph, stack.recallers, numbers, statistics)
        vectors = await stack.encoder.encode([text_of(item) for item in held])
        training_set = await collect(source, held, vectors, recipe)
        over = over_of(stack)
        wording = Wording([text_of(item) for item in held], numbers.ids, await stack.graph.facts(numbers.ids))
        scoring = None if reader is None else CrossScoring(reader, wording)
        counted = Counted(numbers.ids[: numbers.known], statistics)
        manifest = train(to, training_set, counted, over, recipe, scoring)
    console.say(f"{manifest.name} for release {manifest.release}: {manifest.trees} trees, {to}")


async def remember(stack: TaggingStack, corpus: Corpus, settings: Settings, cache: Path | None, most: int) -> None:
    """Fill memory with the tags and the training contents, `most` in all, and keep it in `cache`.

    With C2C2T off, contents are never searched, so they are not encoded, and their cached embeddings stay.
    """
    searched = settings.recall.c2c2t
    contents = corpus.exemplars("train") if searched else iter(())
    with console.bar("encoding memory", most) as bar:
        await filling.fill(stack.projection(), {"tags": corpus.tags(), "exemplars": contents}, bar.advance)
    if cache is not None and searched:
        await filling.save_memories(cache, stack.memories)


@dataclass(frozen=True, slots=True)
class Counted:
    """The tags of the training contents in the order of their numbers, and what was counted of them."""

    known: Sequence[str]
    statistics: Statistics


def over_of(stack: TaggingStack) -> Over:
    """Return the components that a ranker trained on this stack depends on."""
    return trees.over(stack.release.name, stack.components.lists, stack.components.recalling)


def train(
    to: Path,
    training_set: TrainingSet,
    counted: Counted,
    over: Over,
    recipe: Recipe,
    scoring: CrossScoring | None = None,
) -> Manifest:
    """Train the first stage, and with a cross-encoder the second one.

    Writes ranker.json, ranker.onnx, tables.npz, calibration.json and metrics.jsonl, and second_stage.onnx for a second
    stage.
    """
    log = Journal(to / JOURNAL)
    first = train_stage(training_set, recipe, log)
    again = None if scoring is None else _again(training_set, first.choice, scoring, recipe, log)
    last = again or first
    tables = trees.pack(counted.statistics, counted.known)
    manifest = Manifest(
        name=f"ranker-{sha256(first.model + tables + (again.model if again else b''))[:8]}",
        release=over.release,
        components=over.components,
        lists=over.lists,
        tables=recipe.tables,
        columns=columns(over.lists, recipe.tables),
        names=recipe.names,
        neighbours=recipe.neighbours,
        listed=recipe.listed,
        voted=recipe.voted,
        kept=recipe.kept,
        sure=recipe.sure,
        propensity=first.choice.propensity,
        model_sha256=sha256(first.model),
        tables_sha256=sha256(tables),
        fitted_on=len(training_set.truth),
        trees=2 * recipe.seeds * first.choice.trees,
        second_stage=None if again is None or scoring is None else _second_stage(again, scoring, recipe),
    )
    if again is not None:
        (to / trees.SECOND_STAGE).write_bytes(again.model)
    (to / trees.MODEL).write_bytes(first.model)
    (to / trees.TABLES).write_bytes(tables)
    chosen, _ = best_of(training_set.plain, last.choice.scores)
    versions = {**over.components, trees.NAME: manifest.name}
    steps = [*over.components, trees.COMPONENT.step]
    if scoring is not None:
        versions[cross_encoder.NAME] = scoring.cross_encoder.name
        steps.append(cross_encoder.NAME)
    fingerprint = Fingerprint(over.release, "+".join(("recall", *steps)), versions)
    right = training_set.plain.right[chosen]
    calibrate.fit(last.choice.scores[chosen], right, fingerprint, len(training_set.truth)).save(to / trees.CALIBRATION)
    # Last and at once: a folder with a manifest is a ranker that is done. Without a second stage the field is left out.
    part = to / f".{trees.MANIFEST}.part"
    part.write_text(manifest.model_dump_json(indent=2, exclude_defaults=True) + "\n", encoding="utf-8")
    part.replace(to / trees.MANIFEST)
    log.write({"name": manifest.name, "trees": last.choice.trees, "propensity": last.choice.propensity})
    return manifest


def _again(training_set: TrainingSet, choice: Choice, scoring: CrossScoring, recipe: Recipe, log: Journal) -> Stage:
    """Train the second stage and print its gain, cross-validated."""
    orders = choice.scores, choice.score(training_set.masked, recipe.seed)
    seen = add_cross_scores(training_set, orders, scoring, recipe.top)
    found = train_stage(seen, recipe, log.marked(cross_encoder=scoring.cross_encoder.name))
    before, after = (asdict(measure(*one)) for one in ((training_set, choice.scores), (seen, found.choice.scores)))
    for name in SAID:
        console.say(f"{name}, cross-validated: {before[name]:.2f}, with the cross-encoder {after[name]:.2f}")
    return found


def _second_stage(again: Stage, scoring: CrossScoring, recipe: Recipe) -> SecondStage:
    return SecondStage(
        components={cross_encoder.NAME: scoring.cross_encoder.name},
        top=recipe.top,
        propensity=again.choice.propensity,
        model_sha256=sha256(again.model),
        trees=2 * recipe.seeds * again.choice.trees,
    )
