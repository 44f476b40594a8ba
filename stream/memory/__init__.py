"""The vector store: one interface, four engines.

`exact` (numpy, in this process), `hnsw` (the same with an index), `embedded` (Qdrant's engine, in this process and on
disk) and `server` (a Qdrant server, shared). A store holds points of one kind and of one release.
"""

from tagbus.stream.memory.exact import ExactStore
from tagbus.stream.memory.open import open_store, open_stores
from tagbus.stream.memory.store import Hit, Payload, Point, Store, Vectors

__all__ = ["ExactStore", "Hit", "Payload", "Point", "Store", "Vectors", "open_store", "open_stores"]
