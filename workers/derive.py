"""Deriving vectors: what the other live models make of an item that was published, by towers or by another encoder.

Claim, read, compute, publish for each model, release. Killed anywhere between, the items are claimed again; what
was published twice is the same.
"""

import time
from collections.abc import Sequence
from functools import partial
from uuid import UUID

import numpy as np

from dynrec_store import models, queue
from dynrec_store.models import DerivedModel, DerivedRow, Floats
from dynrec_store.queue import Claim
from workers import tracing
from workers.context import Context, Tally
from workers.encode import encode_each
from workers.encoders import Encoder
from workers.leases import isolated, work_through


def recompute_derived(context: Context, recommender: str, *, live_only: bool = False) -> tuple[Tally, bool]:
    """Bring the vectors of the derived models up to date; returns what was done and whether more may wait."""
    size = context.claim_size(f"derived items of {recommender}")

    def claim() -> Claim | None:
        return context.call(queue.claim_batch, recommender, "derived", size.current, context.lease, live_only=live_only)

    def recompute(token: UUID) -> Tally:
        started = time.monotonic()
        done = sum(
            (_derive(context, token, model) for model in context.call(models.derived_models, recommender)), Tally()
        )
        entities = context.call(queue.leased_entities, token)
        context.call(models.release_derived, token, entities)
        size.record(len(entities), time.monotonic() - started)
        return done

    return work_through(context, recommender, "derived", claim, recompute, live_only=live_only)


def _derive(context: Context, token: UUID, model: DerivedModel) -> Tally:
    with tracing.span("read", model_version=model.model_id):
        rows = isolated(context, token, partial(_read, model=model.model_id)) or []
    if model.kind == "learned":
        return _by_towers(context, token, model, rows)
    encoder = context.encoder(model.encoding)
    return _by_encoder(context, token, model, rows, encoder) if encoder else _adopt(context, token, model, rows)


def _read(connection: queue.Connection, token: UUID, *, model: int) -> list[DerivedRow]:
    return models.read_derived(connection, token, model)


def _by_towers(context: Context, token: UUID, model: DerivedModel, rows: Sequence[DerivedRow]) -> Tally:
    there = [row for row in rows if row.embedding is not None]
    gone = [row.item_id for row in rows if row.embedding is None]
    with tracing.span("encode", model_version=model.model_id, items=len(there)):
        towers = context.towers(model.model_id) if there else None
        with context.computing.here():
            embeddings, contexts = towers.derive(there) if towers else ([], [])
    keys = [row.item_id for row in there]
    with tracing.span("publish", model_version=model.model_id):
        context.call(models.publish_derived, token, model.model_id, keys, embeddings, contexts)
        _remove(context, token, model, gone)
    return Tally(claimed=len(rows), published=len(rows))


def _adopt(context: Context, token: UUID, model: DerivedModel, rows: Sequence[DerivedRow]) -> Tally:
    there = {row.item_id: row.embedding.to_numpy() for row in rows if row.embedding is not None}
    with tracing.span("publish", model_version=model.model_id):
        context.call(models.publish_derived, token, model.model_id, list(there), list(there.values()), [])
        _remove(context, token, model, [row.item_id for row in rows if row.embedding is None])
    return Tally(claimed=len(rows), published=len(rows))


def _by_encoder(
    context: Context, token: UUID, model: DerivedModel, rows: Sequence[DerivedRow], encoder: Encoder
) -> Tally:
    texts = list(dict.fromkeys(row.content for row in rows if row.content is not None))
    with tracing.span("encode", encoder=encoder.name, texts=len(texts)), context.turns(encoder).turn():
        started = time.monotonic()
        with context.computing.here():
            encoded = encode_each(encoder, texts)
        context.count_encoding(encoder, len(texts), encoded.calls, time.monotonic() - started)
    for row in rows:
        if row.content in encoded.errors:
            context.call(queue.fail, token, [row.item_id], encoded.errors[row.content], charge=True)
    there = [row for row in rows if row.content in encoded.vectors]
    vectors: list[Floats] = [np.asarray(encoded.vectors[str(row.content)]) for row in there]
    with tracing.span("publish", model_version=model.model_id):
        context.call(models.publish_derived, token, model.model_id, [row.item_id for row in there], vectors, [])
        _remove(context, token, model, [row.item_id for row in rows if row.content is None])
    return Tally(
        claimed=len(rows),
        encoded=len(encoded.vectors),
        published=len(rows) - len(encoded.errors),
        failed=len(encoded.errors),
        calls=encoded.calls,
    )


def _remove(context: Context, token: UUID, model: DerivedModel, gone: Sequence[str]) -> None:
    if gone:
        context.call(models.publish_derived, token, model.model_id, gone, [None] * len(gone), [])
