"""The vector store: one interface, four engines, and a store for each kind of point.

`exact` (numpy, in this process), `hnsw` (the same with an index), `embedded` (Qdrant's engine, in this process and on
disk) and `server` (a Qdrant server, shared). A store holds points of one kind and of one release.
"""

from tagbus.stream.memory.exact import ExactStore
from tagbus.stream.memory.hits import Carried, Hits, Slice, TagNumbers
from tagbus.stream.memory.open import exact_memory, memory_of, open_memory, open_store
from tagbus.stream.memory.store import Memory, Payload, Point, Store, Vectors

__all__ = [
    "Carried",
    "ExactStore",
    "Hits",
    "Memory",
    "Payload",
    "Point",
    "Slice",
    "Store",
    "TagNumbers",
    "Vectors",
    "exact_memory",
    "memory_of",
    "open_memory",
    "open_store",
]
