"""The options of a run of `tagbus train gudn`, stored as plan.json, and what the two variants differ in."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Variant = Literal["paper", "code"]
# How a content's tags guide: their names once, repeated in order, repeated in random order, or no names at all.
Labels = Literal["raw", "ordered", "disordered", "multi-hot"]
Output = Literal["softmax", "sigmoid"]
Reduction = Literal["sum", "mean"]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, slots=True)
class Form:
    """What a variant is made of.

    `text` and `label`: last layers of a BERT of six whose [CLS] states are the features. `shared`: one classifier for
    texts and labels, so both have as many layers. `dropout`: of the features before the classifier. `reduction`: of the
    cross-entropies over the tags; over contents it is always the mean.
    """

    text: int
    label: int
    shared: bool
    dropout: float
    output: Output
    reduction: Reduction


# The paper reads 8 layers of twelve for texts and 10 for labels, its code 10 for both: the same shares of six.
FORMS: Final[Mapping[Variant, Form]] = {
    "paper": Form(4, 5, shared=False, dropout=0.0, output="softmax", reduction="sum"),
    "code": Form(5, 5, shared=True, dropout=0.5, output="sigmoid", reduction="mean"),
}


class Plan(BaseModel):
    """Options. `text_layers` and `label_layers` 0 are the variant's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: Literal["gudn"] = "gudn"
    corpus: str
    base: str = Field(description="the BERT that is fine-tuned")
    variant: Variant = "paper"
    labels: Labels = "ordered"
    text_layers: int = Field(0, ge=0, description="last layers whose [CLS] states are a text's features")
    label_layers: int = Field(0, ge=0, description="the same of its labels")
    feature: float = Field(1.0, ge=0, description="weight of the feature loss")
    link: float = Field(1.0, ge=0, description="weight of the link loss")
    tokens: int = Field(128, ge=3, le=512, description="maximum tokens of a text, and of its labels")
    epochs: int = Field(10, ge=1)
    steps: int | None = Field(None, ge=1, description="steps in all, whatever the epochs")
    batch: int = Field(32, ge=1, description="contents per step")
    rate: float = Field(1e-4, gt=0, description="first learning rate of BERT; it falls linearly to 0")
    head_rate: float = Field(1e-3, gt=0, description="first learning rate of the classifiers")
    precision: Precision = Field("float32", description="of the products in training; losses are in float32")
    negatives: int = Field(0, ge=0, description="wrong tags per content that a step scores, the likeliest; 0: all")
    seed: int = 0

    @property
    def form(self) -> Form:
        """The variant's form."""
        return FORMS[self.variant]

    @property
    def layers(self) -> tuple[int, int]:
        """Last layers that are read of a text and of its labels."""
        return self.text_layers or self.form.text, self.label_layers or self.form.label

    @property
    def guided(self) -> bool:
        """Whether the labels are read at all: without both guides it is BERT alone."""
        return self.feature > 0 or self.link > 0

    @model_validator(mode="after")
    def _fits(self) -> Self:
        text, label = self.layers
        if self.form.shared and text != label:
            raise ValueError(f"one classifier reads texts and labels, so their layers must be as many: {text}, {label}")
        return self
