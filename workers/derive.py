"""Deriving vectors: what the other live models make of an item that was published, by towers or by another encoder.

Read, compute, publish for each model, release with the last. Who published a live change has the lease already;
what comes of a backfill is claimed. Killed anywhere between, the items are claimed again; what was published twice
is the same.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from uuid import UUID

import numpy as np

from dynrec_store import models, queue
from dynrec_store.exceptions import BusyError, ConnectionFailedError, DatabaseError, DynrecError
from dynrec_store.models import DerivedModel, DerivedRow, Floats
from dynrec_store.queue import Claim
from workers import tracing
from workers.context import Context, Tally
from workers.encode import encode_each
from workers.encoders import Encoder
from workers.exceptions import EncoderError
from workers.leases import Done, isolated, work_on, work_through


def recompute_derived(context: Context, recommender: str, *, live_only: bool = False) -> tuple[Tally, bool]:
    """Bring the vectors of the derived models up to date; returns what was done and whether more may wait."""
    size = context.claim_size(f"derived items of {recommender}")

    def claim() -> Claim | None:
        return context.call(queue.claim_batch, recommender, "derived", size.current, context.lease, live_only=live_only)

    def recompute(batch: Claim) -> Done:
        started = time.monotonic()
        done = _recompute(context, recommender, batch)
        size.record(batch.entities, time.monotonic() - started)
        return done

    return work_through(context, recommender, "derived", claim, recompute, live_only=live_only)


def derive_published(
    context: Context, recommender: str, published: Claim, token: UUID, entities: int, since: float
) -> None:
    """Make the other models' vectors of items that were published just now and are leased again by `token`.

    `since`: when `published` was claimed, seconds of the monotonic clock.
    """
    ages = [age + time.monotonic() - since for age in published.live_ages or ()]
    # where some are not among them it is not known whose ages these are
    live_ages = ages if len(ages) == entities else None
    batch = replace(published, token=token, entities=entities, live_ages=live_ages, backfill_ages=None)
    work_on(context, recommender, "derived", batch, partial(_recompute, context, recommender), tracing.now())


def _recompute(context: Context, recommender: str, batch: Claim) -> Done:
    """Raise the first fault of a model after the others have had their turn; the lease stays then."""
    live = context.call(models.derived_models, recommender)
    if not live:  # the last has been retired
        context.call(models.release_derived, batch.token)
    done = Tally()
    fault: DynrecError | None = None
    for model in live:
        try:
            done += _derive(context, batch.token, model, last=model is live[-1] and fault is None)
        except (ConnectionFailedError, BusyError):
            raise
        except (EncoderError, DatabaseError) as error:
            fault = fault or error
    if fault is not None:
        raise fault
    return Done(done)


def _derive(context: Context, token: UUID, model: DerivedModel, *, last: bool) -> Tally:
    with tracing.span("read", model_version=model.model_id):
        rows = isolated(context, token, partial(_read, model=model.model_id)) or []
    if model.kind == "learned":
        return _by_towers(context, token, model, rows, last=last)
    encoder = context.encoder(model.encoding)
    if encoder is None:
        return _adopt(context, token, model, rows, last=last)
    return _by_encoder(context, token, model, rows, encoder, last=last)


def _read(connection: queue.Connection, token: UUID, *, model: int) -> list[DerivedRow]:
    return models.read_derived(connection, token, model)


def _by_towers(context: Context, token: UUID, model: DerivedModel, rows: Sequence[DerivedRow], *, last: bool) -> Tally:
    there = [row for row in rows if row.embedding is not None]
    with tracing.span("encode", model_version=model.model_id, items=len(there)):
        towers = context.towers(model.model_id) if there else None
        with context.computing.here():
            embeddings, contexts = towers.derive(there) if towers else ([], [])
    vectors = {row.item_id: embedding for row, embedding in zip(there, embeddings, strict=True)}
    return _publish(context, token, model, rows, vectors, contexts, last=last)


def _adopt(context: Context, token: UUID, model: DerivedModel, rows: Sequence[DerivedRow], *, last: bool) -> Tally:
    vectors = {row.item_id: row.embedding.to_numpy() for row in rows if row.embedding is not None}
    return _publish(context, token, model, rows, vectors, [], last=last)


def _by_encoder(
    context: Context, token: UUID, model: DerivedModel, rows: Sequence[DerivedRow], encoder: Encoder, *, last: bool
) -> Tally:
    texts = list(dict.fromkeys(row.content for row in rows if row.content is not None))
    with tracing.span("encode", encoder=encoder.name, texts=len(texts)), context.turns(encoder).turn():
        started = time.monotonic()
        with context.computing.here():
            encoded = encode_each(encoder, texts)
        context.count_encoding(encoder, len(texts), encoded.calls, time.monotonic() - started)
    bad = {row.item_id: encoded.errors[row.content] for row in rows if row.content in encoded.errors}
    for item_id, error in bad.items():
        context.call(queue.fail, token, [item_id], error, charge=True)
    good = [row for row in rows if row.item_id not in bad]
    vectors = {row.item_id: np.asarray(encoded.vectors[row.content]) for row in good if row.content is not None}
    done = _publish(context, token, model, good, vectors, [], last=last)
    return done + Tally(claimed=len(bad), encoded=len(encoded.vectors), failed=len(bad), calls=encoded.calls)


def _publish(
    context: Context,
    token: UUID,
    model: DerivedModel,
    rows: Sequence[DerivedRow],
    vectors: Mapping[str, Floats],
    contexts: Sequence[Floats],
    *,
    last: bool,
) -> Tally:
    """Store the vectors (of the first items, in their order) and contexts; items without one are removed."""
    gone = [row.item_id for row in rows if row.item_id not in vectors]
    no_contexts = [np.zeros(1, dtype=np.float32)] * (len(contexts) // max(len(vectors), 1) * len(gone))
    items, embeddings = [*vectors, *gone], [*vectors.values(), *(None for _ in gone)]
    with tracing.span("publish", model_version=model.model_id):
        context.call(
            models.publish_derived,
            token,
            model.model_id,
            items,
            embeddings,
            [*contexts, *no_contexts],
            releases=last,
        )
    return Tally(claimed=len(rows), published=len(rows))
