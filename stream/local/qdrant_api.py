"""The subset of Qdrant's REST API that tagbus uses, on Qdrant's own engine; `serve` runs it.

No package registry has a binary of the server, but its engine is a package (qdrant-edge). This module puts the part of
Qdrant's API in front of it that a shared memory needs: collections with metadata, aliases, conditional writes, filtered
searches. It searches exactly, keeps everything in a folder, and is for one machine: no cluster, no keys, no TLS.
"""

import json
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar, Final

from pydantic import BaseModel, Field, ValidationError
from qdrant_client import models as qdrant

from tagbus.stream.errors import UserError, shorten
from tagbus.stream.local.child import HOST
from tagbus.stream.local.qdrant_engine import Shard

# Qdrant's own limit of a request.
MOST_BYTES: Final = 32_000_000
STATE: Final = "state.json"


class NotFound(Exception):
    """The collection does not exist."""


class State(BaseModel):
    """The collections as created, and the target of each alias."""

    collections: dict[str, qdrant.CreateCollection] = Field(default_factory=dict)
    aliases: dict[str, str] = Field(default_factory=dict)


class Qdrant:
    """The collections in a folder. One caller at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._state = State()
        if (folder / STATE).exists():
            self._state = State.model_validate_json((folder / STATE).read_bytes())
        self._shards = {name: self._opened(name, made) for name, made in self._state.collections.items()}

    def answer(self, method: str, path: str, body: bytes) -> object:
        """The `result` of a request. Raises NotFound, ValidationError or UserError if it cannot be answered."""
        match method, path.strip("/").split("/"):
            case "GET", [""]:
                return {"title": "qdrant-edge behind Qdrant's API", "version": "1.16.0"}
            case "GET", ["collections"]:
                return {"collections": [{"name": name} for name in self._state.collections]}
            case "POST", ["collections", "aliases"]:
                return self._change_aliases(qdrant.ChangeAliasesOperation.model_validate_json(body))
            case "GET", ["aliases"]:
                pairs = self._state.aliases.items()
                return {"aliases": [{"alias_name": alias, "collection_name": name} for alias, name in pairs]}
            case _, ["collections", name]:
                return self._collection(method, name, body)
            case "PUT", ["collections", name, "index"]:
                index = qdrant.CreateFieldIndex.model_validate_json(body)
                self._shard(name).index(index.field_name, qdrant.PayloadSchemaType(index.field_schema))
                return _done()
            case _, ["collections", name, "points", *rest]:
                return self._points(method, "/".join(rest), self._shard(name), body)
        raise UserError(f"{method} {shorten(path)}: this stand-in for a Qdrant server has no such call")

    def close(self) -> None:
        """Flush every collection."""
        for shard in self._shards.values():
            shard.close()

    def _collection(self, method: str, name: str, body: bytes) -> object:
        match method:
            case "GET":
                found = self._named(name)
                return info(self._state.collections[found], self._shards[found].count(None))
            case "PUT":
                made = qdrant.CreateCollection.model_validate_json(body)
                self._shards[name] = self._opened(name, made)
                self._state.collections[name] = made
                self._write()
            case "PATCH":
                made = self._state.collections[self._named(name)]
                made.metadata = (made.metadata or {}) | (
                    qdrant.UpdateCollection.model_validate_json(body).metadata or {}
                )
                self._write()
            case "DELETE":
                found = self._named(name)
                shard = self._shards.pop(found)
                del self._state.collections[found]
                self._state.aliases = {alias: to for alias, to in self._state.aliases.items() if to != found}
                self._write()
                # Last: even if removing its files fails, no client sees half a collection.
                shard.remove()
        return True

    def _points(self, method: str, call: str, shard: Shard, body: bytes) -> object:
        match method, call:
            case "PUT", "":
                written = qdrant.PointsList.model_validate_json(body)
                shard.upsert(written.points, written.update_filter)
                return _done()
            case "POST", "":
                asked = qdrant.PointRequest.model_validate_json(body)
                return shard.retrieve(asked.ids, asked.with_payload, bool(asked.with_vector))
            case "POST", "delete":
                given = json.loads(body)
                if "filter" in given:
                    shard.delete_by(qdrant.FilterSelector.model_validate(given).filter)
                else:
                    shard.delete(qdrant.PointIdsList.model_validate(given).points)
                return _done()
            case "POST", "count":
                return {"count": shard.count(qdrant.CountRequest.model_validate_json(body).filter)}
            case "POST", "scroll":
                return shard.scroll(qdrant.ScrollRequest.model_validate_json(body))
            case "POST", "query/batch":
                return shard.search(qdrant.QueryRequestBatch.model_validate_json(body).searches)
        raise UserError(f"{method} points/{shorten(call)}: this stand-in for a Qdrant server has no such call")

    def _change_aliases(self, asked: qdrant.ChangeAliasesOperation) -> bool:
        for action in asked.actions:
            match action:
                case qdrant.DeleteAliasOperation():
                    self._state.aliases.pop(action.delete_alias.alias_name, None)
                case qdrant.CreateAliasOperation():
                    made = action.create_alias
                    self._state.aliases[made.alias_name] = self._named(made.collection_name)
                case _:
                    raise UserError(
                        "this stand-in for a Qdrant server cannot rename aliases, only create and delete them"
                    )
        self._write()
        return True

    def _named(self, name: str) -> str:
        found = self._state.aliases.get(name, name)
        if found not in self._state.collections:
            raise NotFound(f"Not found: Collection `{shorten(name)}` doesn't exist!")
        return found

    def _shard(self, name: str) -> Shard:
        return self._shards[self._named(name)]

    def _opened(self, name: str, made: qdrant.CreateCollection) -> Shard:
        vectors = made.vectors
        if not isinstance(vectors, qdrant.VectorParams) or vectors.distance != qdrant.Distance.COSINE:
            raise UserError(f"collection {shorten(name)}: expected one unnamed cosine vector")
        return Shard.in_(self._folder, name, vectors.size)

    def _write(self) -> None:
        draft = self._folder / f"{STATE}.new"
        draft.write_text(self._state.model_dump_json(exclude_none=True), encoding="utf-8")
        draft.replace(self._folder / STATE)


def info(made: qdrant.CreateCollection, points: int) -> dict[str, object]:
    """The collection info that the server returns."""
    asked = made.hnsw_config or qdrant.HnswConfigDiff()
    params = qdrant.CollectionParams(
        vectors=made.vectors,
        shard_number=made.shard_number or 1,
        replication_factor=made.replication_factor,
        write_consistency_factor=made.write_consistency_factor,
        on_disk_payload=made.on_disk_payload,
    )
    config = qdrant.CollectionConfig(
        params=params,
        hnsw_config=qdrant.HnswConfig(
            m=asked.m or 16, ef_construct=asked.ef_construct or 100, full_scan_threshold=10_000
        ),
        optimizer_config=qdrant.OptimizersConfig(
            deleted_threshold=0.2, vacuum_min_vector_number=1_000, default_segment_number=0, flush_interval_sec=5
        ),
        quantization_config=made.quantization_config,
        metadata=made.metadata,
    )
    found = qdrant.CollectionInfo(
        status=qdrant.CollectionStatus.GREEN,
        optimizer_status=qdrant.OptimizersStatusOneOf.OK,
        points_count=points,
        segments_count=1,
        config=config,
        payload_schema={},
    )
    return found.model_dump(mode="json", exclude_none=True)


def _done() -> dict[str, object]:
    return {"operation_id": 0, "status": "completed"}


class Handler(BaseHTTPRequestHandler):
    """One connection, kept alive."""

    protocol_version = "HTTP/1.1"
    # No Nagle: head and body are two writes, and the second must not wait for an acknowledgement of the first.
    disable_nagle_algorithm = True
    respond: ClassVar[Callable[[str, str, bytes], tuple[int, object]]]

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length", "0"))
        status: int
        body: object
        if not 0 <= length <= MOST_BYTES:
            status, body = 413, _error(f"a request of {length} bytes is too large")
            self.close_connection = True
        else:
            status, body = type(self).respond(self.command, self.path.partition("?")[0], self.rfile.read(length))
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = _serve

    def log_message(self, format: str, *arguments: object) -> None:
        """Suppress access logs."""


def responder(qdrants: Qdrant, lock: threading.Lock) -> Callable[[str, str, bytes], tuple[int, object]]:
    """A function that answers requests with a status and a body."""

    def respond(method: str, path: str, body: bytes) -> tuple[int, object]:
        try:
            with lock:
                return 200, {"result": qdrants.answer(method, path, body), "status": "ok", "time": 0.0}
        except NotFound as error:
            return 404, _error(str(error))
        except (ValidationError, ValueError, UserError) as error:
            return 400, _error(shorten(str(error), 200))
        except Exception as error:  # any error of the engine: without a response the client would retry forever
            traceback.print_exc()
            return 500, _error(shorten(f"{type(error).__name__}: {error}", 200))

    return respond


def _error(words: str) -> Mapping[str, object]:
    return {"status": {"error": words}, "time": 0.0}


def serve(folder: Path, port: int) -> None:
    """Serve the collections in a folder until SIGTERM."""
    qdrants, lock = Qdrant(folder), threading.Lock()
    handler = type("Bound", (Handler,), {"respond": staticmethod(responder(qdrants, lock))})
    server = ThreadingHTTPServer((HOST, port), handler)
    server.daemon_threads = True
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever()
    with lock:
        qdrants.close()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]))
