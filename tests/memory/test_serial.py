"""One thread for one store: calls run in order of arrival, but searches yield to changes."""

import asyncio
import threading

from tagbus.stream.memory.serial import Serial


async def test_a_change_overtakes_searches_that_wait() -> None:
    serial, order = Serial("store"), list[str]()
    begun, go = threading.Event(), threading.Event()

    def search(name: str) -> None:
        begun.set()
        assert go.wait(120)
        order.append(name)

    running = asyncio.create_task(serial.search(search, "running"))
    assert await asyncio.to_thread(begun.wait, 120)
    others = [
        asyncio.create_task(serial.search(search, "search 1")),
        asyncio.create_task(serial.search(search, "search 2")),
        asyncio.create_task(serial.run(order.append, "change 1")),
        asyncio.create_task(serial.run(order.append, "change 2")),
    ]
    await asyncio.sleep(0)
    go.set()
    await asyncio.gather(running, *others)
    assert order == ["running", "change 1", "change 2", "search 1", "search 2"]
    serial.close()
