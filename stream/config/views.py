"""Settings of the views for recommenders."""

import hashlib
import re
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import NoDecode

from tagbus.stream.config.base.section import Section
from tagbus.stream.config.base.types import TopicName, Url, Words

MOST_STEPS: Final = 1_000
# Characters of a consumer group that the name of a topic may not have.
_NOT_IN_TOPICS: Final = re.compile(r"[^a-zA-Z0-9._-]")
_GROUP_CHARS: Final = 200


def group_beside(workers: str) -> str:
    """The default of views.group: two installations with separate groups of workers have separate views. A name that no
    topic may have gets a digest instead of what it loses."""
    kept = _NOT_IN_TOPICS.sub("-", workers)[:_GROUP_CHARS]
    digest = "" if kept == workers else f"-{hashlib.sha256(workers.encode()).hexdigest()[:8]}"
    return f"{kept}{digest}-views"


class ViewsSettings(Section):
    """`tagbus views`: latest tags of a content, contents of a tag, windows, co-occurring tags."""

    # Unset, Settings derives it.
    group: TopicName = Field(
        "tagbus-views",
        description="consumer group, and prefix of the names of the views' own topics; unset: kafka.group with -views",
    )
    host: str = Field("127.0.0.1", description="address that the API listens on")
    port: int = Field(8790, ge=1, le=65535, description="port of the API")
    advertised: Url | None = Field(
        None,
        description="address at which other replicas reach this one; unset: views.host and views.port, for one replica",
    )
    folder: Path | None = Field(None, description="folder of the tables, one per replica; a temporary one if unset")
    contents: int = Field(100, ge=1, le=2_000, description="contents kept per tag: newest, and as many most confident")
    together: int = Field(200, ge=1, le=10_000, description="co-occurring tags kept per tag")
    step_seconds: int = Field(3_600, ge=60, le=86_400, description="hop of the windows")
    window_seconds: Annotated[tuple[int, ...], NoDecode, Words] = Field(
        (86_400, 604_800),
        min_length=1,
        max_length=8,
        # They may not be multiples of a step that is set alone.
        validate_default=True,
        description="lengths of the windows: multiples of the step, with commas",
    )
    least_confidence: float = Field(0.0, ge=0, le=1, description="tags below it do not enter the views")
    batch: int = Field(500, ge=1, le=10_000, description="records applied together")
    batch_seconds: float = Field(0.1, gt=0, le=10, description="how long a batch waits for more")

    @field_validator("window_seconds", mode="after")
    @classmethod
    def _whole_steps(cls, windows: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        step = info.data.get("step_seconds", min(windows))
        # Every tag's row holds a number for each step of the longest window and of the one before it.
        if any(not step <= one <= MOST_STEPS * step or one % step for one in windows):
            words = "expected multiples of views.step_seconds={step}, at most {most} times"
            raise PydanticCustomError("window_seconds", words, {"step": step, "most": MOST_STEPS})
        return tuple(sorted(set(windows)))

    @property
    def kept_seconds(self) -> int:
        """How far back counts are kept: the longest window, and the one before it."""
        return 2 * max(self.window_seconds) + 2 * self.step_seconds

    @property
    def row_bytes(self) -> int:
        """The largest row of a tag, about: ids at their longest, and a number beside each."""
        return 400 * (2 * self.contents + self.together) + 40 * (self.kept_seconds // self.step_seconds) + 20_000

    @property
    def url(self) -> str:
        """The address at which other replicas reach this one."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.advertised or f"http://{host}:{self.port}"

    @property
    def changes(self) -> str:
        """The topic of changes, keyed by tag."""
        return f"{self.group}-changes"

    @property
    def content_changelog(self) -> str:
        """The changelog of the contents."""
        return f"{self.group}-contents-changelog"

    @property
    def tag_changelog(self) -> str:
        """The changelog of the tags."""
        return f"{self.group}-tags-changelog"

    @property
    def topics(self) -> tuple[str, str, str]:
        """All topics that the views own."""
        return self.changes, self.content_changelog, self.tag_changelog
