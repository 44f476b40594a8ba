"""The network: what a batch's losses are made of, their gradient, and that inference sees no labels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertModel

from tagbus.models.data.texts import tokenizer
from tagbus.models.gudn import network
from tagbus.models.gudn.network import Contents, GuideNetwork
from tagbus.models.gudn.plan import Plan, Variant
from tagbus.models.gudn.reinforce import Names
from tagbus.models.train.whole.rows import Rows
from tagbus.stream.errors import UserError

CPU = torch.device("cpu")
NAMES = ["beverages", "animals", "vehicles", "music"]
ROWS = [("tea coffee", [0, 1]), ("dog", [1]), ("a choir on a boat", [2, 3])]


def plan(base: Path, variant: Variant = "paper", **changes: object) -> Plan:
    text = 2 if variant == "code" else 1
    known: dict[str, object] = {"corpus": "", "base": str(base), "variant": variant, "tokens": 16}
    return Plan.model_validate(known | {"text_layers": text, "label_layers": 2} | changes)


def made(plan: Plan) -> GuideNetwork:
    torch.manual_seed(1)
    return GuideNetwork(Path(plan.base), plan, len(NAMES)).eval()


def batch(base: Path) -> Contents:
    reader = tokenizer(base, 16)
    some = Rows.read(ROWS, reader, lambda _: None).batch(np.arange(len(ROWS)), CPU)
    right = [tags for _, tags in ROWS]
    labels = Names.read(NAMES, reader).batch(right, "ordered", 16, np.random.default_rng(0))
    return Contents(some.ids, some.mask, some.rows, some.tags, *labels)


def test_features_are_the_cls_states_of_the_last_layers_as_transformers_has_them(base: Path) -> None:
    some = batch(base)
    theirs = BertModel.from_pretrained(base, add_pooling_layer=False, attn_implementation="eager").eval()
    with torch.no_grad():
        states = theirs(input_ids=some.ids, attention_mask=some.mask.long(), output_hidden_states=True).hidden_states
        found = made(plan(base)).features(some.ids, some.mask, 2)
    torch.testing.assert_close(found, torch.cat([states[-1][:, 0], states[-2][:, 0]], dim=-1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("variant", ["paper", "code"])
def test_products_are_reduced_in_training_alone(base: Path, variant: Variant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "HIDDEN_DROPOUT", 0.0)
    some, exact, reduced = batch(base), made(plan(base, variant)), made(plan(base, variant, precision="bfloat16"))
    torch.testing.assert_close(reduced.logits(some.ids, some.mask), exact.logits(some.ids, some.mask))

    found = []
    for one in (exact, reduced):
        one.train()
        one.dropout.p = 0.0
        found.append(one.losses(some))

    for name, loss in found[0].items():
        assert found[1][name].dtype == torch.float32
        assert found[1][name].item() == pytest.approx(loss.item(), rel=0.02)
        assert found[1][name].item() != loss.item()


@pytest.mark.parametrize("variant", ["paper", "code"])
def test_each_weight_switches_a_guide(base: Path, variant: Variant) -> None:
    some = batch(base)
    for feature, link, parts in ((0, 0, ()), (1, 0, ("feature",)), (0, 1, ("link",)), (1, 1, ("feature", "link"))):
        found = made(plan(base, variant, feature=feature, link=link)).losses(some)
        assert set(found) == {"class", *parts}
    once, twice = (made(plan(base, variant, feature=w, link=w)).losses(some) for w in (1.0, 2.0))
    for part in ("feature", "link"):
        assert twice[part].item() == pytest.approx(2 * once[part].item(), rel=1e-6)


def test_the_public_code_has_one_classifier_and_the_paper_two(base: Path) -> None:
    paper, code = made(plan(base)), made(plan(base, "code"))
    assert code.linker is code.classifier
    assert (paper.classifier.in_features, paper.linker.in_features) == (32, 64)
    assert (paper.dropout.p, code.dropout.p) == (0.0, 0.5)
    assert len(code.heads_of_tags()) == 2
    assert len(paper.heads_of_tags()) == 4


@pytest.mark.parametrize("variant", ["paper", "code"])
@pytest.mark.parametrize("labels", ["ordered", "multi-hot"])
def test_the_whole_loss_has_the_gradient_of_finite_differences(base: Path, variant: Variant, labels: str) -> None:
    """Along the gradient, over all weights at once."""
    network, some = made(plan(base, variant, labels=labels)).double(), batch(base)
    weights = [weight for weight in network.parameters() if weight.requires_grad]

    def value() -> torch.Tensor:
        return torch.stack(list(network.losses(some).values())).sum()

    gradient = [
        torch.zeros_like(weight) if one is None else one
        for weight, one in zip(weights, torch.autograd.grad(value(), weights, allow_unused=True), strict=True)
    ]
    length = torch.sqrt(torch.stack([(one**2).sum() for one in gradient]).sum())
    ends = []
    for sign in (1, -2):
        with torch.no_grad():
            for weight, one in zip(weights, gradient, strict=True):
                weight += sign * 1e-5 * one / length
        ends.append(value().item())
    assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(length.item(), rel=1e-5)


@pytest.mark.parametrize("variant", ["paper", "code"])
def test_inference_sees_no_labels(base: Path, variant: Variant) -> None:
    """Whatever the labels of a content are and say, the logits of its text are the same; its losses are not."""
    network, some = made(plan(base, variant)), batch(base)
    other = Contents(some.ids, some.mask, some.rows, some.tags.flip(0), some.ids, some.mask)
    with torch.no_grad():
        first = network.logits(some.ids, some.mask)
        losses = [network.losses(one)["feature"].item() for one in (some, other)]
        torch.testing.assert_close(network.logits(other.ids, other.mask), first, rtol=0, atol=0)
        network.linker.weight.data += 0 if network.linker is network.classifier else 1
        torch.testing.assert_close(network.logits(some.ids, some.mask), first, rtol=0, atol=0)
    assert losses[0] != losses[1]


@pytest.mark.parametrize("variant", ["paper", "code"])
def test_with_negatives_of_all_tags_the_losses_are_the_same(base: Path, variant: Variant) -> None:
    some = batch(base)
    all_of_them, sampled = (made(plan(base, variant, negatives=count)).losses(some) for count in (0, 3))
    assert {name: loss.item() for name, loss in sampled.items()} == pytest.approx(
        {name: loss.item() for name, loss in all_of_them.items()}, rel=1e-6
    )


def test_the_likeliest_wrong_tags_are_the_negatives(base: Path) -> None:
    """Given classifiers that are sure of one tag, when a content without it is read, then it is among the columns."""
    network, some = made(plan(base, negatives=1)), batch(base)
    alone = Contents(some.ids[1:2], some.mask[1:2], torch.tensor([0]), torch.tensor([1]), some.ids[:1], some.mask[:1])
    network.classifier.bias.data[3] = 50
    columns = network._columns(network.features(alone.ids, alone.mask, 1), alone)
    assert columns.tolist() == [1, 3]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"text_layers": 3}, "--text-layers: 3 is wrong, expected 1 to 2, which the encoder has"),
        ({"text_layers": 0}, "--text-layers: 4 is wrong, expected 1 to 2"),
        ({"tokens": 65}, "--tokens: 65 is wrong, expected at most 64 with this encoder"),
    ],
)
def test_what_the_encoder_does_not_have_is_told(base: Path, changes: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        made(plan(base, **changes))
