"""A shop without alerts, and how measurements that raise some are noted."""

from collections.abc import Sequence
from typing import LiteralString

import pytest

from tests.sql.shop import Shop

Alert = tuple[str | None, str, str]


@pytest.fixture
def quiet(shop: Shop) -> Shop:
    """A shop where all is well."""
    shop.execute("select dynrec._beat('d', 'dispatcher', '{}'), dynrec._beat('w', 'worker', '{}')")
    assert alerts(shop) == []
    return shop


def alerts(shop: Shop) -> list[Alert]:
    rows = shop.execute("select recommender, severity, alert from dynrec.alerts order by 1, 3, finding")
    assert shop.value("select count(*) from dynrec.alerts where finding is null or remedy is null") == 0
    return [(recommender, severity, alert) for recommender, severity, alert in rows]


def told(shop: Shop, alert: str) -> list[tuple[str, str]]:
    """Finding and remedy of the alerts of a kind."""
    rows = shop.execute("select finding, remedy from dynrec.alerts where alert = %s order by 1", [alert])
    return [(finding, remedy) for finding, remedy in rows]


def note(
    shop: Shop,
    metric: str,
    values: Sequence[float],
    part: str = "all",
    at_k: int = 10,
    error: float | None = 0.0,
    model: int = 1,
) -> None:
    """Measurements of the last days, the newest last."""
    with shop.connection.cursor() as cursor:
        cursor.executemany(
            """
            insert into dynrec_data.measurement (recommender_id, metric, at_k, slice, measured_at, model_id, period_from, value, standard_error, n)
            select r.id, %s, %s, %s, now() - make_interval(days => %s), %s, now() - make_interval(days => %s), %s, %s, 500
            from dynrec_data.recommender r where r.name = %s
            """,
            [
                (metric, at_k, part, len(values) - n, model, len(values) - n + 1, value, error, shop.name)
                for n, value in enumerate(values)
            ],
        )


FELL: list[Alert] = [("shop", "warning", "quality fell")]


def watch(shop: Shop) -> None:
    shop.execute("select dynrec.watch('shop')")
    shop.execute("update dynrec_data.measurement set n = 500 where metric = 'psi'")  # as of a larger shop


MEASURED: LiteralString = (
    "update dynrec_data.recommender set measured_at = now() - %s::interval, created_at = now() - %s::interval"
)


def fail(shop: Shop) -> int:
    model = int(shop.value("select dynrec.stage_model('shop')"))
    shop.execute("select dynrec._training_begins(%s)", [model])
    shop.execute("select dynrec._training_failed(%s, 'out of memory')", [model])
    return model


FAILED: list[Alert] = [("shop", "error", "training failed")]


def expose(shop: Shop, *users: int) -> None:
    for arm, count in enumerate(users, start=1):
        shop.execute(
            "insert into dynrec_data.exposure (experiment_id, user_id, arm, exposed_at) "
            "select e.id, %s || n, %s, now() from dynrec_data.experiment e, generate_series(1, %s) n",
            [f"arm {arm} user ", arm, count],
        )
