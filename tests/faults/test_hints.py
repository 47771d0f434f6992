"""Hints may come twice, out of order, invented and malformed: they only ever say that it is worth looking."""

import random
from collections.abc import Sequence

import psutil
import psycopg
import pytest
from celery import Celery

from dynrec_store.settings import Settings
from tests.faults.load import Load, until
from tests.faults.nursery import Nursery
from tests.property import shop
from workers.celery_app import (
    MAINTAIN,
    MAINTENANCE,
    QUEUE_OF,
    RECOMPUTE_DERIVED,
    RECOMPUTE_ITEMS,
    RECOMPUTE_USERS,
    RUN_TASKS,
    TRAIN_MODEL,
    make_app,
)

pytestmark = [pytest.mark.faults, pytest.mark.slow]

Hint = tuple[str, Sequence[object]]

OF_RECOMMENDERS = [RECOMPUTE_ITEMS, RECOMPUTE_DERIVED, RECOMPUTE_USERS]
VALID: list[Hint] = [(RUN_TASKS, []), (MAINTAIN, []), *((task, [shop.NAME]) for task in OF_RECOMMENDERS)]
NAMES: list[object] = ["no such shop", "", "\0", "'; drop table item; --", "x" * 10_000, None, 17, 1e300, ["shop"], {}]
INVENTED: list[Hint] = [
    *((task, [name]) for task in OF_RECOMMENDERS for name in NAMES),
    *((task, arguments) for task in OF_RECOMMENDERS for arguments in ([], [shop.NAME, shop.NAME])),
    *((TRAIN_MODEL, [model]) for model in (0, 1, -1, 10**30, None, "x", [2])),
    (RUN_TASKS, ["now"]),
    ("dynrec.no_such_task", [shop.NAME]),
]


def send(app: Celery, dice: random.Random, hint: Hint) -> None:
    """Send a hint once or more, for now, later or before now."""
    task, arguments = hint
    for _ in range(dice.choice([1, 1, 5])):
        app.send_task(
            task, arguments, queue=QUEUE_OF.get(task, MAINTENANCE), countdown=dice.choice([None, None, 0.5, -5, 1.5])
        )


@pytest.mark.parametrize("broker_url", ["redis"], indirect=True)
def test_hints_are_duplicated_and_invented(broker_url: str, nursery: Nursery, load: Load, rounds: int) -> None:
    dice = random.Random(load.seed)
    app = make_app(Settings(broker_url=broker_url, _env_file=None))  # type: ignore[call-arg]
    processes = [nursery.start(role) for role in nursery.roles]
    with load.going_on(writers=2, readers=1), psycopg.connect(load.url, autocommit=True) as connection:
        for _ in range(3 * rounds):
            flood = [*VALID * 30, *INVENTED]
            dice.shuffle(flood)
            for hint in flood:
                send(app, dice, hint)
                load.ledger.inflict("hint duplicated or invented")
            # those that were sent last have arrived
            until(connection, "select dynrec.wait_until_fresh('shop', '100 ms') is not null")
    assert load.differences() == []
    app.close()
    assert all(psutil.pid_exists(process) for process in processes)
