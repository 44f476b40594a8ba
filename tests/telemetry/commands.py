"""What every command is called with on the stage (stage.py), and how it ends there."""

from tagbus.stream.errors import MemoryLost

# What each is called with. Commands that write come after those that read.
COMMANDS: dict[str, tuple[str, ...]] = {
    "config": (),
    "asyncapi": (),
    "schema": ("content",),
    "plan": ("--contents", "1000000"),
    "validate": ("{contents}",),
    "topics create": ("--views",),
    "tag": ("{contents}", "--tags", "{tags}", "--exemplars", "{exemplars}"),
    "explain": ("c1",),
    "prompt show": ("{contents}", "--tags", "{tags}", "--exemplars", "{exemplars}"),
    "calibrate": ("{annotated}", "--tags", "{tags}", "--exemplars", "{exemplars}", "--out", "{out}"),
    "compare": ("{annotated}", "--tags", "{tags}", "--with", "{exemplars}"),
    "evaluate": ("{collection}", "--cache", "{cache}"),
    "exemplars convert": ("{exemplars}",),
    "synthesize descriptions": ("--tags", "{tags}", "--exemplars", "{exemplars}", "--out", "{written}"),
    "synthesize exemplars": (
        *("--tags", "{tags}", "--exemplars", "{exemplars}", "--few", "20", "--most", "2", "--out", "{written}"),
    ),
    "tags show": ("t1",),
    "tags diff": ("{tags}",),
    "tags export": (),
    "tail": ("--count", "2"),
    "ping": (),
    "replay": (),
    "skip": ("{content}:0:0",),
    "retag": ("--since", "1h"),
    "check": (),
    "memory status": (),
    "memory verify": (),
    "release list": (),
    "release build": ("minilm-l6-f16-1",),
    "release check": ("minilm-l6-f16-1", "{annotated}"),
    "release activate": ("minilm-l6-f16-1",),
    "release drop": ("minilm-l6-f16-1",),
    "publish": ("{contents}", "--to", "content"),
    "tags import": ("{tags}",),
    "exemplars import": ("{exemplars}",),
    "retire": ("k1", "--from", "knowledge"),
    "memory snapshot": ("{snapshot}",),
    "memory restore": ("{snapshot}",),
    "memory rebuild": (),
}
# These end badly on this stage, after they have read what is there.
REFUSED = {
    "check": "the model's server is a script, and the services' own ports are taken",
    "skip": "the group is at work",
    "release check": "so few contents make no release ready",
    "release drop": "the release is in force",
    "memory verify": "records come while it compares",
    "memory snapshot": "this Qdrant makes no snapshots",
    "memory restore": "so there is none",
}
# By themselves: `memory rebuild`, the last command, has replaced what the indexer writes to.
ENDS = {"index": MemoryLost.exit_code}
