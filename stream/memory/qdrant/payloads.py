"""Payloads in a file that overwrites deleted data.

Qdrant's engine leaves the bytes of a deleted point in its storage and in its write-ahead log. An exemplar's text must
not stay there when its content is withdrawn, so the engine stores the fields that a search reads, and SQLite the rest.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

# SQLite takes 32,766 parameters in a statement, before 3.32 it took 999.
KEYS: Final = 900


class PayloadFile:
    """Stores JSON by key, in one file. Belongs to one thread. Every method raises sqlite3.Error, as for a full disk."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path, check_same_thread=False)
        # Deleted and replaced rows are overwritten with zeros; the journal is deleted with the transaction.
        self._database.execute("PRAGMA secure_delete = ON")
        self._database.execute("CREATE TABLE IF NOT EXISTS payloads (key BLOB PRIMARY KEY, body BLOB) WITHOUT ROWID")

    def put(self, bodies: Iterable[tuple[str, bytes]]) -> None:
        """Insert or replace."""
        rows = [(key.encode(), body) for key, body in bodies]
        with self._database:
            self._database.executemany("INSERT OR REPLACE INTO payloads VALUES (?, ?)", rows)

    def get(self, keys: Sequence[str]) -> dict[str, bytes]:
        """The payloads of the existing keys."""
        found: dict[str, bytes] = {}
        for start in range(0, len(keys), KEYS):
            some = [key.encode() for key in keys[start : start + KEYS]]
            marks = ",".join("?" * len(some))
            rows = self._database.execute(f"SELECT key, body FROM payloads WHERE key IN ({marks})", some)  # noqa: S608
            found.update((key.decode(), body) for key, body in rows)
        return found

    def drop(self, keys: Iterable[str]) -> None:
        """Overwrite and delete; a missing key is no error."""
        with self._database:
            self._database.executemany("DELETE FROM payloads WHERE key = ?", [(key.encode(),) for key in keys])

    def close(self) -> None:
        """Close the file."""
        self._database.close()
