"""A scratch database on disk for comparing and sorting: memory stays bounded however large a vocabulary is.

SQLite's own temporary file: private, deleted when it is closed, kept in memory while it is small.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Self, TypeAlias

from tagbus.stream.errors import UserError

Value: TypeAlias = str | int | bytes | None

CACHE_KIB: Final = 65_536
# Rows inserted at a time.
BATCH: Final = 10_000


class Scratch:
    """A temporary database; a context manager. Raises UserError if the temporary folder is full."""

    def __init__(self, schema: str) -> None:
        with _explained():
            self._database = sqlite3.connect("", isolation_level=None)
            for pragma in (f"cache_size = -{CACHE_KIB}", "journal_mode = OFF", "synchronous = OFF"):
                self._database.execute(f"PRAGMA {pragma}")
            self._database.executescript(schema)
            self._database.execute("BEGIN")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def execute(self, statement: str, values: Sequence[Value] = ()) -> int:
        """Run a statement; returns how many rows it changed."""
        with _explained():
            return self._database.execute(statement, values).rowcount

    def fill(self, statement: str, rows: Iterable[Sequence[Value]]) -> None:
        """Run a statement for each row. An error of `rows` passes unchanged."""
        batch: list[Sequence[Value]] = []
        for row in rows:
            batch.append(row)
            if len(batch) == BATCH:
                self._many(statement, batch)
                batch.clear()
        self._many(statement, batch)

    def rows(self, query: str, values: Sequence[Value] = ()) -> Iterator[tuple[Value, ...]]:
        """Yield the rows of a query as they are found."""
        with _explained():
            cursor = self._database.execute(query, values)
        while True:
            with _explained():
                rows = cursor.fetchmany(1_000)
            if not rows:
                return
            yield from rows

    def number(self, query: str, values: Sequence[Value] = ()) -> int:
        """The number that a query returns; 0 for null."""
        ((found,),) = self.rows(query, values)
        return int(found or 0)

    def _many(self, statement: str, batch: Sequence[Sequence[Value]]) -> None:
        with _explained():
            self._database.executemany(statement, batch)


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        if "full" in str(error) or "I/O" in str(error) or "open" in str(error):
            raise UserError(f"the temporary folder has no room: {error}; SQLITE_TMPDIR names another") from None
        raise
