"""The answers of servers that are not trusted: of bounded size, not compressed, without cookies.

A compressed answer may expand a thousandfold (1 MB took 2.2 GB), and a jar keeps every cookie that a server sets.
"""

from collections.abc import AsyncIterator, Callable
from typing import Final, Literal

import httpx2

# Bytes read of an answer that is an error: enough for its words.
ERROR_BYTES: Final = 4096
# Headers that nobody sees: a charset decides how an error is decoded, and one of UTF-16 raises.
_DROPPED: Final = frozenset({b"set-cookie", b"content-encoding", b"content-type"})


class Unreadable(Exception):
    """The body of an answer is not read. `reason` is a short word for metrics."""

    def __init__(self, reason: Literal["too_large", "malformed"], message: str) -> None:
        self.reason = reason
        super().__init__(message)


class Guarded(httpx2.AsyncBaseTransport):
    """A transport whose answers are bounded: the first bytes of an error, and Unreadable for a longer answer or a
    compressed one."""

    def __init__(self, network: httpx2.AsyncBaseTransport, most: Callable[[httpx2.Request], int]) -> None:
        """`most`: the largest answer to a request, in bytes."""
        self._network = network
        self._most = most

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """See httpx2. Reading the answer raises Unreadable."""
        request.headers["accept-encoding"] = "identity"
        answer = await self._network.handle_async_request(request)
        headers = [(name, value) for name, value in answer.headers.raw if name.lower() not in _DROPPED]
        body = _Body(answer, self._most(request) if answer.is_success else None)
        return httpx2.Response(answer.status_code, headers=headers, stream=body, extensions=answer.extensions)

    async def aclose(self) -> None:
        """See httpx2."""
        await self._network.aclose()


class _Body(httpx2.AsyncByteStream):
    def __init__(self, answer: httpx2.Response, most: int | None) -> None:
        """`most` None: the answer is an error, or a redirect."""
        self._answer = answer
        self._most = most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        most = self._most
        if self._answer.headers.get("content-encoding", "identity").lower() != "identity":
            if most is None:
                return
            raise Unreadable("malformed", "the answer is compressed, which was not requested")
        read, network = 0, self._answer.stream
        if not isinstance(network, httpx2.AsyncByteStream):
            raise TypeError("the transport is not an asynchronous one")
        async for part in network:
            read += len(part)
            if most is None:
                yield part[: max(0, ERROR_BYTES - read + len(part))]
                if read >= ERROR_BYTES:
                    return
            elif read > most:
                raise Unreadable("too_large", f"the answer has more than {most} bytes")
            else:
                yield part

    async def aclose(self) -> None:
        await self._answer.aclose()
