"""Working on what is leased, and giving back what failed: charged to the rows at fault, or to nobody."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

import structlog
from structlog.contextvars import bound_contextvars

from dynrec_store import queue
from dynrec_store.exceptions import BusyError, ConnectionFailedError, DatabaseError, DynrecError
from dynrec_store.queue import Claim, Connection, Kind
from workers import tracing
from workers.context import Context, Tally
from workers.exceptions import EncoderError

T = TypeVar("T")

TIME_BOX = 0.5  # seconds after which a loop begins no other batch: what is left queues up behind the other recommenders
ROWS_FAULT = ("22", "23", "54")  # classes of SQLSTATE: bad data, a constraint, a limit of the server exceeded

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Done:
    """What was made of a batch."""

    tally: Tally
    then: Callable[[], object] | None = None  # what follows from it, once it is noted


def work_through(
    context: Context,
    recommender: str,
    kind: Kind,
    claim: Callable[[], Claim | None],
    recompute: Callable[[Claim], Done],
    *,
    live_only: bool,
) -> tuple[Tally, bool]:
    """Claim batches and recompute them until nothing is left or the time is up. `live_only`: `claim` is.

    Returns what was done and whether more may wait; a batch that is given back ends the loop.
    """
    total, until = Tally(), time.monotonic() + TIME_BOX
    while time.monotonic() < until:
        began = tracing.now()
        batch = None if context.stopping.is_set() else claim()
        if batch is None:
            return total, False
        if not live_only:
            context.loops.claimed(recommender, kind, backfill=batch.backfill_ages is not None)
        done, goes_on = work_on(context, recommender, kind, batch, recompute, began)
        total += done
        if not goes_on:
            return total, False
    return total, True


def work_on(
    context: Context, recommender: str, kind: Kind, batch: Claim, recompute: Callable[[Claim], Done], began: int
) -> tuple[Tally, bool]:
    """Recompute a batch whose claim began then (ns), and do what follows from it.

    Returns what was done, and False if nothing was: a fault that is not of the rows (model, device, disk, a dropped
    column) gives the batch back uncharged. When the connection is lost for good the lease expires.
    """
    with (
        bound_contextvars(recommender=recommender, kind=kind, lease=str(batch.token)),
        tracing.batch(began, recommender=recommender, kind=kind, lease=str(batch.token), entities=batch.entities),
    ):
        claimed_at = time.monotonic()
        try:
            done = recompute(batch)
        except (ConnectionFailedError, BusyError):
            raise
        except (EncoderError, DatabaseError) as error:
            return give_back(context, batch.token, error), False
        _note(context, recommender, kind, batch, done.tally, time.monotonic() - claimed_at)
    if done.then is not None:
        done.then()
    return done.tally, True


def _note(context: Context, recommender: str, kind: Kind, batch: Claim, done: Tally, seconds: float) -> None:
    """Tell the log and the metrics what became of a batch, `seconds` after it was claimed."""
    context.count(done)
    meters = context.meters
    meters.add("batches", 1, recommender=recommender, kind=kind)
    meters.add("claimed", batch.entities, recommender=recommender, kind=kind)
    meters.add("published", min(done.published, batch.entities), recommender=recommender, kind=kind)
    # where some failed it is not known which of the ages were theirs: failures have numbers of their own
    if done.published >= batch.entities:
        for lane, ages in (("live", batch.live_ages), ("backfill", batch.backfill_ages)):
            meters.fresh([age + seconds for age in ages or ()], recommender=recommender, kind=kind, lane=lane)
    log.info(
        "batch_published",
        entities=batch.entities,
        published=done.published,
        failed=done.failed,
        encoded=done.encoded,
        first_change=batch.first_change,
        last_change=batch.last_change,
        captured_at=batch.captured_at.isoformat(),
        ms=round(1000 * seconds, 1),
        lag_ms=round(1000 * (seconds + max([*(batch.live_ages or ()), *(batch.backfill_ages or ())], default=0)), 1),
    )


def isolated(context: Context, token: UUID, work: Callable[[Connection, UUID], T]) -> T | None:
    """Do a statement on a lease; None if in the end nothing of it was left.

    Where the lease has an entity that the statement fails at, half of it is given back, again and again, until
    the statement succeeds or the entity at fault stands alone.
    """
    while True:
        try:
            return context.call(work, token)
        except DatabaseError as error:
            if not is_rows_fault(error):
                raise
            entities = context.call(queue.leased_entities, token)
            if len(entities) <= 1:
                context.call(queue.fail, token, entities, str(error), charge=True)
                return None
            context.call(queue.fail, token, entities[len(entities) // 2 :], str(error), charge=False)


def give_back(context: Context, token: UUID, error: DynrecError) -> Tally:
    """Give a whole lease back, charged to nobody."""
    entities = context.call(queue.leased_entities, token)
    log.error("batch_given_back", entities=len(entities), reason=str(error))
    context.call(queue.fail, token, entities, str(error), charge=False)
    return Tally(claimed=len(entities), failed=len(entities))


def is_rows_fault(error: DatabaseError) -> bool:
    """Whether PostgreSQL refused some row, and would take others."""
    return error.sqlstate is not None and error.sqlstate.startswith(ROWS_FAULT)
