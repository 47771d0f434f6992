# ruff: noqa: A002 - the argument is called filter in SQL, and so it is here
"""The reading functions of schema dynrec for SQLAlchemy's select(), with typed columns.

    r = recommend("shop", user_id=42, k=10)
    select(Product, r.c.rank, r.c.score)
        .join(r, r.c.item_id == cast(Product.id, Text))
        .order_by(r.c.rank)

They run in the session's own transaction, so that they see what it has not committed yet. Keys are text, as they are
in schema dynrec. Each argument may be a value or an expression; where one names a column of another table of the
query, put `.lateral()` behind the call. An argument that is None is left out. What the arguments mean is written at
dynrec_store.store.FeatureStore and in the comments of the SQL functions.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import ArrayLike
from pgvector.sqlalchemy import VECTOR
from sqlalchemy import (
    ARRAY,
    Boolean,
    ColumnElement,
    DateTime,
    Double,
    Function,
    Integer,
    TableValuedAlias,
    Text,
    column,
    func,
    literal,
    literal_column,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeEngine

PlainKey = str | int | UUID
Key = PlainKey | ColumnElement[Any]

_TIME = DateTime(timezone=True)

# Of every argument, for the values that are bound.
_ARGUMENTS: Mapping[str, TypeEngine[Any]] = {
    "recommender": Text(),
    "user_id": Text(),
    "item": Text(),
    "item_id": Text(),
    "item_ids": ARRAY(Text()),
    "query": Text(),
    "query_vector": VECTOR(),
    "k": Integer(),
    "filter": Text(),
    "filter_args": JSONB(),
    "exclude_items": ARRAY(Text()),
    "exclude_seen": Boolean(),
    "by_model": Integer(),
    "experiment": Text(),
    "diversity": Double(),
    "as_of": _TIME,
}

_RECOMMENDATION: Mapping[str, TypeEngine[Any]] = {
    "item_id": Text(),
    "rank": Integer(),
    "score": Double(),
    "source": Text(),
    "model_version": Integer(),
}
_EXPLANATION: Mapping[str, TypeEngine[Any]] = {
    "because_item_id": Text(),
    "kind": Text(),
    "occurred_at": _TIME,
    "weight": Double(),
    "similarity": Double(),
    "contribution": Double(),
    "reason": Text(),
}
_VERSION: Mapping[str, TypeEngine[Any]] = {
    "version": Integer(),
    "valid_from": _TIME,
    "valid_to": _TIME,
    "created_at": _TIME,
    "replaced_at": _TIME,
    "embedding": VECTOR(),
    "content_hash": Text(),
    "features": JSONB(),
    "is_current": Boolean(),
}
_DRIFT: Mapping[str, TypeEngine[Any]] = {"version": Integer(), "valid_from": _TIME, "cosine_distance": Double()}


def recommend(
    recommender: str,
    user_id: Key,
    *,
    k: int | None = None,
    filter: str | None = None,
    filter_args: Mapping[str, Any] | None = None,
    exclude_items: Sequence[PlainKey] | None = None,
    exclude_seen: bool | None = None,
    diversity: float | None = None,
    as_of: datetime | None = None,
    by_model: int | None = None,
    experiment: str | None = None,
) -> TableValuedAlias:
    """The best items for a user: item_id, rank, score, source, model_version."""
    return _table("recommend", _RECOMMENDATION, locals())


def recommend_for_items(
    recommender: str,
    item_ids: Sequence[PlainKey],
    *,
    k: int | None = None,
    filter: str | None = None,
    filter_args: Mapping[str, Any] | None = None,
    exclude_items: Sequence[PlainKey] | None = None,
    diversity: float | None = None,
    as_of: datetime | None = None,
) -> TableValuedAlias:
    """The best items for a session of which only these items are known: item_id, rank, score, source, model_version."""
    return _table("recommend_for_items", _RECOMMENDATION, locals())


def similar_items(
    recommender: str,
    item: Key,
    *,
    k: int | None = None,
    filter: str | None = None,
    filter_args: Mapping[str, Any] | None = None,
    exclude_items: Sequence[PlainKey] | None = None,
    diversity: float | None = None,
    as_of: datetime | None = None,
) -> TableValuedAlias:
    """The nearest items to an item: item_id, rank, score, source, model_version."""
    return _table("similar_items", _RECOMMENDATION, locals())


def trending(
    recommender: str,
    *,
    k: int | None = None,
    filter: str | None = None,
    filter_args: Mapping[str, Any] | None = None,
    exclude_items: Sequence[PlainKey] | None = None,
    as_of: datetime | None = None,
) -> TableValuedAlias:
    """The most popular items: item_id, rank, score, source, model_version."""
    return _table("trending", _RECOMMENDATION, locals())


def search(
    recommender: str,
    query: str | ColumnElement[str] | None = None,
    *,
    query_vector: ArrayLike | None = None,
    k: int | None = None,
    filter: str | None = None,
    filter_args: Mapping[str, Any] | None = None,
    exclude_items: Sequence[PlainKey] | None = None,
) -> TableValuedAlias:
    """Items for a text (by its words alone) and a vector of the recommender's encoder, whichever is given, fused.

    FeatureStore.search makes the vector from the text; here the caller does. Columns as those of `recommend`.
    """
    return _table("search", _RECOMMENDATION, locals())


def explain(
    recommender: str, user_id: Key, item_id: Key, *, k: int | None = None, as_of: datetime | None = None
) -> TableValuedAlias:
    """What speaks for an item: because_item_id, kind, occurred_at, weight, similarity, contribution, reason."""
    return _table("explain", _EXPLANATION, locals())


def item_history(recommender: str, item_id: Key) -> TableValuedAlias:
    """The versions of an item; columns as the fields of dynrec_store.results.ItemVersion."""
    return _table("item_history", _VERSION, locals())


def drift(recommender: str, item_id: Key) -> TableValuedAlias:
    """How far an item's vector moved with each version: version, valid_from, cosine_distance."""
    return _table("drift", _DRIFT, locals())


def item_vector_at(recommender: str, item_id: Key, as_of: datetime | None = None) -> Function[Any]:
    """The vector of an item as known at a moment (default: now), with pgvector's operators."""
    return _function("item_vector_at", locals(), returns=VECTOR())


def user_vector_at(recommender: str, user_id: Key, as_of: datetime | None = None) -> Function[Any]:
    """The vector of a user as known at a moment (default: now), with pgvector's operators."""
    return _function("user_vector_at", locals(), returns=VECTOR())


def _table(name: str, columns: Mapping[str, TypeEngine[Any]], arguments: Mapping[str, object]) -> TableValuedAlias:
    typed = (column(one, kind) for one, kind in columns.items())
    return _function(name, arguments).table_valued(*typed).alias()


def _function(name: str, arguments: Mapping[str, object], *, returns: TypeEngine[Any] | None = None) -> Function[Any]:
    named = [
        literal_column(argument).op("=>")(_bound(argument, value))
        for argument, value in arguments.items()
        if value is not None
    ]
    return getattr(func.dynrec, name)(*named, type_=returns)  # type: ignore[no-any-return]


def _bound(argument: str, value: object) -> ColumnElement[Any]:
    if isinstance(value, ColumnElement):
        return value
    kind = _ARGUMENTS[argument]
    if isinstance(kind, Text):
        value = str(value)
    elif isinstance(kind, ARRAY):
        value = [str(key) for key in value]  # type: ignore[attr-defined]
    elif isinstance(kind, VECTOR):
        value = np.asarray(value, dtype=np.float32)
    return literal(value, kind)
