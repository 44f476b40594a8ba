"""The options of a run of `tagbus train whole`, stored as plan.json."""

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

# Times per epoch that each tag's text is a content.
NAMES: Final = 2


class Plan(BaseModel):
    """Options. The defaults are those of the run on an H100 in bench/results/encoder-training.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: Literal["whole"] = "whole"
    corpus: str
    base: str = Field(description="the encoder that the students are cut from")
    teacher: str | None = Field(None, description="a wider encoder, trained with them, that teaches them")
    layers: tuple[int, ...] = Field((6, 3), min_length=1, description="layers of each student")
    tokens: int = Field(46, ge=3, description="maximum tokens of a text in training")
    epochs: int = Field(16, ge=1)
    steps: int | None = Field(None, ge=1, description="steps in all, whatever the epochs")
    batch: int = Field(1024, ge=2, description="texts per step")
    rate: float = Field(2e-4, gt=0, description="peak learning rate of a student; cosine schedule with warm-up")
    teacher_rate: float = Field(1e-4, gt=0, description="peak learning rate of the teacher")
    tag_rate: float = Field(1e-3, gt=0, description="peak learning rate of the tag vectors")
    names: int = Field(NAMES, ge=0, description="times per epoch that each tag's text is a content")
    word_dropout: float = Field(0.1, ge=0, lt=1, description="share of a text's tokens that a step drops")
    vector_dropout: float = Field(
        0.3, ge=0, lt=1, description="share dropped of a content's vector before the tags are scored"
    )
    contrastive: float = Field(0.3, ge=0, description="weight of the loss between contents")
    queue: int = Field(4, ge=0, description="earlier batches whose contents are keys of the contrastive loss")
    distilled: float = Field(1.0, ge=0, description="weight of the divergence from the teacher's tags")
    apart: float = Field(0.5, ge=0, description="weight of 1 - cosine to the teacher's vector")
    dimensions: tuple[int, ...] = Field((), description="shorter vectors to train too (Matryoshka)")
    ema: float = Field(0.999, ge=0, lt=1, description="decay of the moving average of the weights, which is kept")
    evaluations: int = Field(8, ge=1)
    seed: int = 0
