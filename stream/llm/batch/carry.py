"""Carry a batch through: send its parts, wait for them and read them. Each part is sent once, whatever ends the
process.

The folder records each step before it happens on the server: a part whose batch may exist is looked up there, not
created again.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tagbus.stream.errors import Withheld
from tagbus.stream.llm.base import Usage
from tagbus.stream.llm.batch.answers import Given
from tagbus.stream.llm.batch.api import BatchApi
from tagbus.stream.llm.batch.asking import Batching, read_part
from tagbus.stream.llm.batch.folder import Folder, Job
from tagbus.stream.llm.batch.forms import Batch
from tagbus.stream.llm.spending.budget import Reservation

Say = Callable[[str], None]


@dataclass(slots=True)
class Carrier:
    """Carries the batch of a folder to its answers. `every`: seconds between two polls of a batch."""

    folder: Folder
    job: Job
    api: BatchApi
    batching: Batching
    every: float
    say: Say
    _held: dict[int, Reservation] = field(default_factory=dict)

    async def run(self) -> None:
        """Run until no more answers will arrive. Raises as `BatchApi` does; a later call resumes."""
        for number in range(self.job.parts):
            await self._send(number)
        left = [number for number in range(self.job.parts) if not self.folder.part(number).done]
        while left:
            left = [number for number in left if not await self._look(number)]
            if left:
                self.say(f"{len(left)} of {self.job.parts} parts are not answered yet")
                await asyncio.sleep(self.every)
        self.folder.answer(self._answers())

    async def _send(self, number: int) -> None:
        part = self.folder.part(number)
        if part.done or part.batch:
            return
        if not part.requests:
            self.folder.note(number, part.model_copy(update={"status": "empty"}))
            return
        # Reservations of an earlier process count as spent.
        if not part.reserved:
            try:
                self._held[number] = await self.batching.spending.reserve(part.estimate)
            except Withheld as error:
                self.say(f"part {number}: {error}: its contents are published without the judge")
                self.folder.note(number, part.model_copy(update={"withheld": error.reason}))
                return
            part = part.model_copy(update={"reserved": True})
            self.folder.note(number, part)
        if part.file is None:
            part = part.model_copy(update={"file": await self.api.upload(self.folder.requests(number))})
            self.folder.note(number, part)
        made = await self.api.create(str(part.file), self.job.run, str(number))
        self.folder.note(number, part.model_copy(update={"batch": made.id}))
        self.say(f"part {number}: {part.requests} requests are batch {made.id}")

    async def _look(self, number: int) -> bool:
        """Whether a part is done; then its results are stored."""
        part = self.folder.part(number)
        batch = await self.api.get(str(part.batch))
        if not batch.ended:
            return False
        await self._fetch(batch, self.folder.results(number))
        if batch.why:
            self.say(f"part {number}: batch {batch.id} {batch.status}: {batch.why}")
        self.folder.note(number, part.model_copy(update={"status": batch.status}))
        self._settle(number)
        return True

    async def _fetch(self, batch: Batch, to: Path) -> None:
        beside = to.with_suffix(".new")
        with beside.open("wb") as out:
            for file in filter(None, (batch.output_file_id, batch.error_file_id)):
                out.write(await self.api.content(file))
                out.write(b"\n")
        beside.replace(to)

    def _settle(self, number: int) -> None:
        held = self._held.pop(number, None)
        if held is None:
            return
        spent = Usage()
        for given in read_part(self.folder, number, self.batching):
            spent += Usage(given.calls, given.tokens_in, given.tokens_out, given.cached)
        held.settle(self.batching.spending.sum(spent))

    def _answers(self) -> Iterator[Given]:
        for number in range(self.job.parts):
            yield from read_part(self.folder, number, self.batching)
