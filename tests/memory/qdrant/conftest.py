"""Qdrant in this process, and a server if there is one."""

from collections.abc import AsyncIterator

import pytest
from qdrant_client import AsyncQdrantClient

from tests.qdrants import QDRANTS, empty


@pytest.fixture(params=QDRANTS)
async def client(request: pytest.FixtureRequest) -> AsyncIterator[AsyncQdrantClient]:
    """An empty Qdrant."""
    async for one in empty(request.param):
        yield one
