"""The least ACLs of each command: what the tests grant, and the table of docs/operator.md.

`python -m tests.kafka.rights` prints the table.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from tests.support import wait_until

Operation = Literal["Read", "Write", "Create", "Describe", "Alter", "AlterConfigs"]
Kind = Literal["topic", "group", "transactional id"]

_KINDS = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional id": ResourceType.TRANSACTIONAL_ID,
}
_OPERATIONS = {
    "Read": AclOperation.READ,
    "Write": AclOperation.WRITE,
    "Create": AclOperation.CREATE,
    "Describe": AclOperation.DESCRIBE,
    "Alter": AclOperation.ALTER,
    "AlterConfigs": AclOperation.ALTER_CONFIGS,
}


@dataclass(frozen=True, order=True)
class Right:
    """One ACL. `name` is a word of the settings: of a topic, `group`, `transactional_id`, or `views`, the group of the
    views and the prefix of their topics. Those of groups and transactions are prefixes."""

    operation: Operation
    kind: Kind
    name: str

    def __str__(self) -> str:
        return f"{self.operation} on {self.kind} {self.name}"


def _on(operation: Operation, *topics: str) -> tuple[Right, ...]:
    return tuple(Right(operation, "topic", topic) for topic in topics)


_ALL = (
    *("content", "tags", "exemplars", "knowledge", "tagged", "dead_letters", "versions", "feedback"),
    *("feedback_state", "feedback_dead_letters", "releases"),
)
_MEMORY = ("tags", "exemplars", "knowledge")
_GROUP = Right("Read", "group", "group")
_TRANSACTION = Right("Write", "transactional id", "transactional_id")
_VIEWS = ("views-changes", "views-contents-changelog", "views-tags-changelog")
_AT_LEAST_ONCE = (
    *_on("Read", "content", *_MEMORY, "versions", "releases"),
    *_on("Write", "tagged", "dead_letters", "exemplars", "versions", "feedback"),
    _GROUP,
)

LEAST: Mapping[str, tuple[Right, ...]] = {
    "run (exactly_once)": (*_AT_LEAST_ONCE, _TRANSACTION),
    "run (at_least_once)": _AT_LEAST_ONCE,
    "feedback": (
        *_on("Read", "feedback", "feedback_state", "releases"),
        *_on("Write", "exemplars", "feedback_state", "feedback_dead_letters", "releases"),
        _GROUP,
        _TRANSACTION,
    ),
    "index": _on("Read", *_MEMORY),
    "publish --to content": _on("Write", "content"),
    "publish --to exemplars": _on("Write", "feedback"),
    "retire --from content": _on("Write", "content"),
    "retire --from tags --replaced-by": (*_on("Read", "tags"), *_on("Write", "tags")),
    "tags import": (*_on("Read", "tags"), *_on("Write", "tags")),
    "exemplars import": (*_on("Read", "tags", "exemplars"), *_on("Write", "feedback")),
    "tail tagged": _on("Read", "tagged"),
    "tail content.dlq": _on("Read", "dead_letters"),
    "tail feedback.dlq": _on("Read", "feedback_dead_letters"),
    "ping": (*_on("Read", "tagged"), *_on("Write", "content")),
    "replay --send": (*_on("Read", "content", "tagged", "dead_letters"), *_on("Write", "content")),
    "replay feedback.dlq --send": (
        *_on("Read", "feedback", "feedback_dead_letters"),
        *_on("Write", "feedback"),
    ),
    "retag --send": (*_on("Read", "content", "tagged", "tags"), *_on("Write", "content")),
    "retag --batch --send": (
        *_on("Read", "content", "tagged", "releases", *_MEMORY, "budget"),
        *_on("Write", "content", "budget"),
    ),
    "views": (*_on("Read", "tagged", *_VIEWS), *_on("Write", *_VIEWS), Right("Read", "group", "views")),
    "explain": _on("Read", "content", "releases", *_MEMORY),
    "skip": (*_on("Read", "content"), *_on("Write", "dead_letters"), _GROUP, _TRANSACTION),
    "release activate": (*_on("Read", "releases"), *_on("Write", "releases")),
    "release drop": (*_on("Read", "releases", "tagged"), *_on("Write", "releases")),
    "release build": (*_on("Read", "releases", *_MEMORY), *_on("Write", "releases")),
    "topics create": (*_on("Create", *_ALL), *_on("Describe", *_ALL)),
    "topics create --mend": (
        *_on("Create", *_ALL),
        *_on("Describe", *_ALL),
        # It includes DescribeConfigs.
        *_on("AlterConfigs", *_ALL),
        # `releases` has one partition.
        *_on("Alter", *_ALL[:-1]),
    ),
    "check": _on("Describe", *_ALL),
}


def grant(admin: AdminClient, principal: str, rights: Iterable[Right], names: Mapping[str, str]) -> None:
    """Give a principal these rights; `names`: what the words are called here. Returns when the broker knows them."""
    wanted = [_binding(right, principal, names) for right in rights]
    if not wanted:
        return
    for future in admin.create_acls(wanted).values():
        future.result(120)
    mine = AclBindingFilter(
        *(ResourceType.ANY, None, ResourcePatternType.ANY, f"User:{principal}", None),
        *(AclOperation.ANY, AclPermissionType.ANY),
    )
    wait_until(lambda: len(admin.describe_acls(mine).result(120)) >= len(wanted), 120, f"the ACLs of {principal}")


def _binding(right: Right, principal: str, names: Mapping[str, str]) -> AclBinding:
    pattern = ResourcePatternType.LITERAL if right.kind == "topic" else ResourcePatternType.PREFIXED
    operation, allow = _OPERATIONS[right.operation], AclPermissionType.ALLOW
    return AclBinding(_KINDS[right.kind], names[right.name], pattern, f"User:{principal}", "*", operation, allow)


# What the words of the settings are called where nothing is set.
_CALLED = {
    "dead_letters": "content.dlq",
    "versions": "content.versions",
    "feedback_state": "feedback.state",
    "feedback_dead_letters": "feedback.dlq",
    **{name: f"tagbus-{name}" for name in _VIEWS},
    "views": "`tagbus-views` (`views.group`)",
    "group": "the prefix `tagbus` (`kafka.group`)",
    "transactional_id": "the prefix `tagbus` (`kafka.transactional_id`)",
}


def table() -> str:
    """The rights as the docs show them, in Markdown: a line for each command and kind of resource."""
    lines = ["| command | operation | on |", "| --- | --- | --- |"]
    for command, rights in LEAST.items():
        for operation in dict.fromkeys(right.operation for right in rights):
            for kind in dict.fromkeys(right.kind for right in rights if right.operation == operation):
                named = [right.name for right in rights if (right.operation, right.kind) == (operation, kind)]
                called = [_CALLED.get(name, name) for name in named]
                words = ", ".join(f"`{name}`" if " " not in name else name for name in called)
                lines.append(f"| `{command}` | {operation} | {kind}{'s' * (len(named) > 1)} {words} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
