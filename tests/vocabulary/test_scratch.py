"""The database on disk: rows are read back, and a full folder is a one-line error."""

import os
import subprocess
import sys
from pathlib import Path

from tagbus.stream.vocabulary.scratch import BATCH, Scratch


def test_rows_come_back_in_order() -> None:
    with Scratch("CREATE TABLE t (n INTEGER)") as scratch:
        scratch.fill("INSERT INTO t VALUES (?)", ((number,) for number in range(BATCH + 5)))
        assert scratch.number("SELECT COUNT(*) FROM t") == BATCH + 5
        assert [row for (row,) in scratch.rows("SELECT n FROM t WHERE n > ? ORDER BY n", (BATCH + 2,))] == [
            BATCH + 3,
            BATCH + 4,
        ]


def test_a_temporary_folder_without_room_is_one_line() -> None:
    """A file size limit simulates a full disk."""
    code = (
        "import resource, signal\n"
        "from tagbus.stream.errors import UserError\n"
        "from tagbus.stream.vocabulary import scratch\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "scratch.CACHE_KIB = 64\n"
        "with scratch.Scratch('CREATE TABLE t (b BLOB)') as one:\n"
        "    try: one.fill('INSERT INTO t VALUES (?)', ((bytes(1_000),) for _ in range(50_000)))\n"
        "    except UserError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.startswith("the temporary folder has no room: ")
    assert done.stdout.endswith("SQLITE_TMPDIR names another\n")


def test_nothing_is_left_in_the_temporary_folder(tmp_path: Path) -> None:
    code = (
        "from tagbus.stream.vocabulary import scratch\n"
        "scratch.CACHE_KIB = 64\n"
        "with scratch.Scratch('CREATE TABLE t (b BLOB)') as one:\n"
        "    one.fill('INSERT INTO t VALUES (?)', ((bytes(1_000),) for _ in range(10_000)))\n"
    )
    environment = {**os.environ, "SQLITE_TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=environment, timeout=120, check=True)
    assert list(tmp_path.iterdir()) == []
