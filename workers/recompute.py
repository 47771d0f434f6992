"""Recomputing vectors: claim, read, encode, publish.

Several threads of a process run these loops at once. The model computes for one of them at a time, in turns, and
meanwhile the others publish what they have and claim what comes next: that is the whole pipeline, and a single
change passes through it without changing threads.
"""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from uuid import UUID, uuid4

import structlog

from dynrec_store import queue
from dynrec_store.exceptions import DatabaseError
from dynrec_store.queue import Claim, Encoding, ItemRow, Published
from workers import tracing
from workers.batch_size import BatchSize
from workers.context import Context, Tally
from workers.derive import derive_published
from workers.encode import Encoded, encode_each
from workers.encoders import Encoder, content_hash
from workers.exceptions import EncoderError
from workers.leases import Done, give_back, is_rows_fault, isolated, work_through

log = structlog.get_logger(__name__)


def recompute_items(context: Context, recommender: str, *, live_only: bool = False) -> tuple[Tally, bool]:
    """Bring the vectors of changed items up to date; after a live change those of all models that are made of them.

    Returns what was done and whether more may wait.
    """
    size = context.claim_size(f"items of {recommender}")
    try:
        encoding = _meet(context, recommender)
    except EncoderError as error:
        return _refuse(context, recommender, error), False

    def claim() -> Claim | None:
        nonlocal encoding  # of this batch: other threads may hold one that is for another encoder
        batch, encoding = context.call(queue.claim_items, recommender, size.current, context.lease, live_only=live_only)
        context.encodings[recommender] = encoding
        return batch

    def recompute(batch: Claim) -> Done:
        began = time.monotonic()
        encoder = context.encoder(encoding)
        derived = uuid4()
        if encoder:
            tally, derives = _recompute_batch(context, batch.token, derived, encoder, size)
        else:
            tally, derives = _adopt_batch(context, batch.token, derived, size)
        then = partial(derive_published, context, recommender, batch, derived, derives, began) if derives else None
        return Done(tally, then)

    return work_through(context, recommender, "item", claim, recompute, live_only=live_only)


def _meet(context: Context, recommender: str) -> Encoding:
    """Load the encoder of a recommender that is new here before anything is claimed: that may take long."""
    known = context.encodings.get(recommender)
    if known is not None:
        return known
    encoding: Encoding = context.call(queue.encoding, recommender)
    context.encoder(encoding)
    context.encodings[recommender] = encoding
    return encoding


def recompute_users(context: Context, recommender: str, *, live_only: bool = False) -> tuple[Tally, bool]:
    """Fold new interactions into the vectors of users; returns as recompute_items."""
    size = context.claim_size(f"users of {recommender}")

    def claim() -> Claim | None:
        return context.call(queue.claim_batch, recommender, "user", size.current, context.lease, live_only=live_only)

    def recompute(batch: Claim) -> Done:
        started = time.monotonic()
        with tracing.span("publish"):
            published = isolated(context, batch.token, queue.publish_users) or 0
        size.record(published, time.monotonic() - started)
        return Done(Tally(claimed=published, published=published))

    return work_through(context, recommender, "user", claim, recompute, live_only=live_only)


def _recompute_batch(
    context: Context, token: UUID, derived: UUID, encoder: Encoder, size: BatchSize
) -> tuple[Tally, int]:
    """Returns what was done, and how many items are leased by `derived` now."""
    claimed_at = time.monotonic()
    with tracing.span("read"):
        rows = isolated(context, token, queue.read_items) or []
    texts = list(dict.fromkeys(row.content for row in rows if row.needs_vector and row.content is not None))
    started = time.monotonic()
    with tracing.span("encode", encoder=encoder.name, texts=len(texts)):
        encoded = _encode(context, encoder, texts)
    encoded_at = time.monotonic()
    with tracing.span("publish"):
        published = _publish(context, token, derived, rows, encoded)
    published_at = time.monotonic()
    # a batch that waits for others is not too large
    size.record(len(rows), published_at - claimed_at - encoded.waited)
    tally = Tally(
        claimed=len(rows),
        encoded=len(encoded.vectors) - encoded.reused,
        saved=sum(row.content is not None for row in rows) - len(texts) + encoded.reused,
        published=sum(item.outcome in ("published", "unchanged", "removed") for item in published.values()),
        failed=len(rows) - len(published),
        calls=encoded.calls,
    )
    log.debug(
        "items_recomputed",
        rows=len(rows),
        texts=len(texts),
        encode_ms=round(1000 * (encoded_at - started - encoded.waited), 1),
        waited_ms=round(1000 * encoded.waited, 1),
        publish_ms=round(1000 * (published_at - encoded_at), 1),
    )
    return tally, sum(item.derives for item in published.values())


def _encode(context: Context, encoder: Encoder, texts: Sequence[str]) -> Encoded:
    """Encode in turns: texts of one length together, as they are padded, and others' texts between."""
    encoded = Encoded()
    waiting = sorted(texts, key=len)
    size = context.turn_size(encoder)
    recent = context.recent[encoder]
    while waiting:
        now, waiting = waiting[: size.current], waiting[size.current :]
        asked = time.monotonic()
        with context.turns(encoder).turn():
            started = time.monotonic()
            known = recent.known(now)
            unknown = [text for text in now if text not in known]
            with context.computing.here():
                computed = encode_each(encoder, unknown)
            recent.keep(computed.vectors)
            if unknown:
                size.record(len(unknown), time.monotonic() - started)
                context.count_encoding(encoder, len(unknown), computed.calls, time.monotonic() - started)
        encoded |= computed | Encoded(known, reused=len(known), waited=started - asked)
    return encoded


def _adopt_batch(context: Context, token: UUID, derived: UUID, size: BatchSize) -> tuple[Tally, int]:
    """Returns as _recompute_batch."""
    started = time.monotonic()
    publish = partial(queue.publish_adopted, derived=derived, lease=context.lease)
    with tracing.span("publish"):
        published, derives = isolated(context, token, publish) or (0, 0)
    size.record(published, time.monotonic() - started)
    return Tally(claimed=published, published=published), derives


def _publish(
    context: Context, token: UUID, derived: UUID, rows: Sequence[ItemRow], encoded: Encoded
) -> Mapping[str, Published]:
    """Publish what was encoded and charge the rows whose text could not be; returns what became of each other item."""
    good = []
    for row in rows:
        error = encoded.errors.get(row.content) if row.needs_vector and row.content is not None else None
        if error is None:
            good.append(row)
        else:
            context.call(queue.fail, token, [row.item_id], error, charge=True)
    return _publish_rows(context, token, derived, good, encoded)


def _publish_rows(
    context: Context, token: UUID, derived: UUID, rows: Sequence[ItemRow], encoded: Encoded
) -> dict[str, Published]:
    """Publish rows; where PostgreSQL refuses them, half and half, until the row at fault stands alone."""
    if not rows:
        return {}
    vectors = {row.content: encoded.vectors[row.content] for row in rows if row.content in encoded.vectors}
    hashes = [content_hash(text) for text in vectors]
    try:
        return context.call(queue.publish_items, token, rows, hashes, list(vectors.values()), derived, context.lease)
    except DatabaseError as error:
        if not is_rows_fault(error):
            raise
        if len(rows) == 1:
            context.call(queue.fail, token, [rows[0].item_id], str(error), charge=True)
            return {}
    half = len(rows) // 2
    return _publish_rows(context, token, derived, rows[:half], encoded) | _publish_rows(
        context, token, derived, rows[half:], encoded
    )


def _refuse(context: Context, recommender: str, error: EncoderError) -> Tally:
    """Give the next batch back with what is wrong with the model, so that dynrec.failures shows it."""
    token = context.call(queue.claim, recommender, "item", context.settings.batch_size, context.lease)
    return give_back(context, token, error) if token else Tally()
