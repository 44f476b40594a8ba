"""One collection on Qdrant's engine: requests of Qdrant's API translated to the engine's types."""

import hashlib
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Self, cast

import qdrant_edge as edge
from qdrant_client import models as qdrant

from tagbus.stream.errors import UserError

Condition = (
    edge.FieldCondition
    | edge.IsEmptyCondition
    | edge.IsNullCondition
    | edge.HasIdCondition
    | edge.HasVectorCondition
    | edge.NestedCondition
    | edge.Filter
)


class Shard:
    """The points of a collection, on disk: a confirmed write survives a kill of the process."""

    def __init__(self, folder: Path, dimension: int) -> None:
        self._folder = folder
        if folder.exists():
            self._shard = edge.EdgeShard.load(str(folder))
            return
        # Created beside and renamed: a process killed meanwhile leaves no incomplete shard.
        draft = folder.with_suffix(".new")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        vectors = edge.EdgeVectorParams(size=dimension, distance=edge.Distance.Cosine)
        edge.EdgeShard.create(str(draft), edge.EdgeConfig(vectors=vectors)).close()
        draft.rename(folder)
        self._shard = edge.EdgeShard.load(str(folder))

    @classmethod
    def in_(cls, folder: Path, name: str, dimension: int) -> Self:
        """The collection of that name. The name comes over the wire, so the path uses its hash."""
        return cls(folder / hashlib.blake2b(name.encode(), digest_size=16).hexdigest(), dimension)

    def close(self) -> None:
        """Flush and close it."""
        self._shard.flush()
        self._shard.close()

    def remove(self) -> None:
        """Close it and delete its folder."""
        self._shard.close()
        shutil.rmtree(self._folder)

    def index(self, field: str, kind: qdrant.PayloadSchemaType) -> None:
        """Create an index of a field; an existing one is no error."""
        kinds = {
            qdrant.PayloadSchemaType.KEYWORD: edge.PayloadSchemaType.Keyword,
            qdrant.PayloadSchemaType.INTEGER: edge.PayloadSchemaType.Integer,
        }
        if kind not in kinds:
            raise UserError(f"field {field}: expected an index of keywords or integers")
        if field not in self._shard.info().payload_schema:
            self._shard.update(edge.UpdateOperation.create_field_index(field, kinds[kind]))

    def upsert(self, points: Iterable[qdrant.PointStruct], unless: qdrant.Filter | None) -> None:
        """Write points. Existing points are replaced only if they match `unless`, the API's update_filter."""
        given = [edge.Point(_id(one.id), cast("edge.Vector", one.vector), one.payload) for one in points]
        self._shard.update(edge.UpdateOperation.upsert_points(given, translated(unless)))

    def delete(self, ids: Iterable[object]) -> None:
        """Remove points; a missing one is no error."""
        self._shard.update(edge.UpdateOperation.delete_points([_id(one) for one in ids]))

    def delete_by(self, which: qdrant.Filter) -> None:
        """Remove the points that match a filter."""
        self._shard.update(edge.UpdateOperation.delete_points_by_filter(_filter(which)))

    def count(self, which: qdrant.Filter | None) -> int:
        """The number of points that match a filter."""
        return self._shard.count(edge.CountRequest(exact=True, filter=translated(which)))

    def retrieve(self, ids: Iterable[object], payload: object, vector: bool) -> list[dict[str, object]]:  # noqa: FBT001 - the API's
        """The existing points among these ids."""
        found = self._shard.retrieve([_id(one) for one in ids], with_payload=_wanted(payload), with_vector=vector)
        return [_record(one) for one in found]

    def scroll(self, asked: qdrant.ScrollRequest) -> dict[str, object]:
        """A page of points by id, and the start of the next page."""
        request = edge.ScrollRequest(
            offset=None if asked.offset is None else _id(asked.offset),
            limit=asked.limit or 10,
            filter=translated(asked.filter),
            with_payload=_wanted(asked.with_payload),
            with_vector=bool(asked.with_vector),
        )
        found, following = self._shard.scroll(request)
        return {"points": [_record(one) for one in found], "next_page_offset": following and str(following)}

    def search(self, asked: Iterable[qdrant.QueryRequest]) -> list[dict[str, object]]:
        """The nearest points of each query, by exact search."""
        exact = edge.SearchParams(exact=True)
        requests = [
            edge.QueryRequest(
                limit=one.limit or 10,
                query=edge.Query.Nearest(_nearest(one)),
                with_payload=_wanted(one.with_payload),
                filter=translated(one.filter),
                params=exact,
            )
            for one in asked
        ]
        found = self._shard.query_batch(edge.QueryBatchRequest(requests))
        return [{"points": [_record(one) | {"score": one.score, "version": 0} for one in points]} for points in found]


def translated(given: qdrant.Filter | None) -> edge.Filter | None:
    """A filter of the API as the engine's type. Raises UserError for a condition that tagbus never sends."""
    return None if given is None else _filter(given)


def _filter(given: qdrant.Filter) -> edge.Filter:
    return edge.Filter(
        must=_conditions(given.must), should=_conditions(given.should), must_not=_conditions(given.must_not)
    )


def _conditions(given: object) -> list[Condition] | None:
    if given is None:
        return None
    return [_condition(one) for one in (given if isinstance(given, list) else [given])]


def _condition(one: object) -> Condition:
    match one:
        case qdrant.Filter():
            return _filter(one)
        case qdrant.HasIdCondition(has_id=ids):
            return edge.HasIdCondition({_id(each) for each in ids})
        case qdrant.IsEmptyCondition(is_empty=field):
            return edge.IsEmptyCondition(field.key)
        case qdrant.FieldCondition(key=key, match=qdrant.MatchAny(any=values)):
            return edge.FieldCondition(key, match=edge.MatchAny(values))
        case qdrant.FieldCondition(key=key, match=qdrant.MatchValue(value=value)):
            return edge.FieldCondition(key, match=edge.MatchValue(value))
        case qdrant.FieldCondition(key=key, range=qdrant.Range() as span):
            return edge.FieldCondition(key, range=edge.RangeFloat(gte=span.gte, gt=span.gt, lte=span.lte, lt=span.lt))
    raise UserError(f"condition {type(one).__name__}: this stand-in for a Qdrant server does not support it")


def _nearest(asked: qdrant.QueryRequest) -> list[float]:
    match asked.query:
        case [float(), *_] as vector:
            return cast(list[float], vector)
        case qdrant.NearestQuery(nearest=[float(), *_] as vector):
            return cast(list[float], vector)
    raise UserError("query: expected a vector")


def _id(given: object) -> int | str:
    return given if isinstance(given, int) else str(given)


def _wanted(given: object) -> bool | list[str]:
    match given:
        case list():
            return [str(one) for one in given]
        case qdrant.PayloadSelectorInclude(include=fields):
            return fields
    return bool(given)


def _record(one: edge.Record | edge.ScoredPoint) -> dict[str, object]:
    given = one.id
    found: dict[str, object] = {"id": given if isinstance(given, int) else str(given), "payload": one.payload}
    return found if one.vector is None else found | {"vector": one.vector}
