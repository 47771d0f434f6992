"""A shop for experiments, and what their tests share."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from dynrec_store import database
from dynrec_store.experiments import Experiment
from dynrec_store.store import FeatureStore
from tests.conftest import MakeDatabase
from tests.learned import backfill, stage
from tests.sql.shop import NOON, Event, Shop, create_shop

TWO = [{"arm": "red"}, {"arm": "blue"}]
HOUR = timedelta(hours=1)


@dataclass
class Lab:
    """A shop whose experiments have names of their own, each used by one test."""

    shop: Shop
    url: str
    store: FeatureStore
    model: int  # in the shadow

    def create(self, name: str, arms: Any = TWO, recommender: str = "shop", ago: timedelta | None = None, **more: Any) -> Experiment:  # fmt: skip
        """The experiment as Python sees it; it began so long `ago`."""
        create(self.shop, name, arms, recommender, **more)
        if ago is not None:
            self.shop.execute(
                """
                with moved as (update dynrec_data.experiment set started_at = started_at - %s where name = %s returning id)
                update dynrec_data.experiment_traffic t set since = since - %s from moved where t.experiment_id = moved.id
                """,
                [ago, name, ago],
            )
        return self.store.experiment(recommender, name)

    def now(self) -> datetime:
        moment: datetime = self.shop.value("select clock_timestamp()")
        return moment

    def arms(self, function: str, experiment: Experiment, users: Sequence[object]) -> list[str | None]:
        """What a function of recommender, experiment and user says for each user."""
        rows = self.shop.execute(
            f"select dynrec.{function}(%s, %s, u) from unnest(%s::text[]) with ordinality as a (u, n) order by n",
            [experiment.recommender, experiment.name, list(map(str, users))],
        )
        return [arm for (arm,) in rows]

    def exposures(self, name: str) -> dict[str, tuple[int, datetime]]:
        """Arm and time of each user."""
        rows = self.shop.execute(
            "select x.user_id, x.arm, x.exposed_at from dynrec_data.exposure x join dynrec_data.experiment e on e.id = x.experiment_id where e.name = %s",
            [name],
        )
        return {user: (arm, moment) for user, arm, moment in rows}

    def answer(self, user: str, **arguments: Any) -> list[tuple[Any, ...]]:
        """Item, source, model version and score of each row."""
        named = "".join(f", {name} => %({name})s" for name in arguments)
        return self.shop.execute(
            f"select item_id, source, model_version, score from dynrec.recommend('shop', %(user)s, 8{named}) order by rank",
            {"user": user, **arguments},
        )


def about(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The same rows, scores a moment later."""
    return [(*row, pytest.approx(score, abs=1e-4)) for *row, score in rows]


def create(shop: Shop, name: Any, arms: Any = TWO, recommender: str = "shop", **more: Any) -> None:
    named = "".join(f", {option} => %({option})s" for option in more)
    given = {"recommender": recommender, "name": name, "arms": None if arms is None else Jsonb(arms), **more}
    shop.execute(f"select dynrec.create_experiment(%(recommender)s, %(name)s, %(arms)s{named})", given)


def log(shop: Shop, *impressions: dict[str, Any]) -> None:
    given = [{"item_ids": ["1", "2"], **shown} for shown in impressions]
    assert shop.value("select dynrec.log_impressions('shop', %s)", [Jsonb(given)]) == len(given)


def shown(shop: Shop, user: str) -> list[tuple[str | None, str | None]]:
    """Experiment and arm of each list of a user."""
    return shop.execute("select experiment, arm from dynrec_data.impression where user_id = %s order by shown_at", [user])  # fmt: skip


@pytest.fixture(scope="module")
def lab(make_database: MakeDatabase, template: str) -> Iterator[Lab]:
    url = make_database(template)
    with database.connect(url) as connection, FeatureStore.connect(url) as store:
        shop = create_shop(connection, products=12)
        shop.add_events(Event(f"u{n % 20}", str(1 + n * 5 % 12), NOON + n * HOUR, "view") for n in range(60))
        for key in ("bigint", "uuid"):
            shop.execute(f"create table shop.{key} (user_id {key}, item_id bigint, occurred_at timestamptz)")
            shop.execute(
                "select dynrec.create_recommender(%s, 'shop.products', text_columns => '{title}', interactions => %s, encoder => 'hashing')",
                [key, f"shop.{key}"],
            )
        shop.drain()
        model = stage(connection)
        backfill(connection)
        yield Lab(shop, url, store, model)
