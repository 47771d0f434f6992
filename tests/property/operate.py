"""What operators do to a recommender that is in use."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from psycopg.errors import DeadlockDetected, LockNotAvailable

from dynrec_store import migrate
from dynrec_store.exceptions import BusyError
from tests.property import shop
from tests.property.shop import Connection

OTHER_KINDS = '{"view": {"weight": 2, "half_life": "1 day"}, "buy": {"weight": 1}, "*": {"weight": -1}}'


@dataclass(frozen=True)
class Operator:
    """Changes declarations at random; `restore` brings back the one that everything is compared with."""

    url: str
    connection: Connection
    random: random.Random

    def act(self) -> str:
        """One random change; returns its name."""
        action = self.random.choice(ACTIONS)
        try:
            action(self)
        except (BusyError, DeadlockDetected, LockNotAvailable) as refused:  # of triggers on tables that are written to
            return f"{action.__name__}: {type(refused).__name__}"
        return action.__name__

    def restore(self) -> None:
        """As it was declared."""
        self.connection.execute("select dynrec.resume(%s)", [shop.NAME])
        self.connection.execute(
            "select dynrec.alter_recommender(%s, text_columns => '{title}', kinds => %s)", [shop.NAME, shop.DECLARED]
        )
        drop_other(self)


def alter_kinds(operator: Operator) -> None:
    kinds = operator.random.choice([shop.DECLARED, OTHER_KINDS])
    operator.connection.execute("select dynrec.alter_recommender(%s, kinds => %s)", [shop.NAME, kinds])


def alter_columns(operator: Operator) -> None:
    columns = operator.random.choice([["title"], ["title", "note"], ["note"]])
    operator.connection.execute("select dynrec.alter_recommender(%s, text_columns => %s)", [shop.NAME, columns])


def alter_options(operator: Operator) -> None:
    half_life = operator.random.choice(["7 days", "1 day"])
    operator.connection.execute(
        "select dynrec.alter_recommender(%s, options => jsonb_build_object('trending_half_life', %s::text))",
        [shop.NAME, half_life],
    )
    operator.connection.execute(
        'select dynrec.alter_recommender(%s, options => \'{"trending_half_life": "7 days"}\')', [shop.NAME]
    )


def pause(operator: Operator) -> None:
    operator.connection.execute("select dynrec.pause(%s)", [shop.NAME])
    operator.connection.execute("select dynrec.resume(%s)", [shop.NAME])


def declare_other(operator: Operator) -> None:
    operator.connection.execute(
        """
        select dynrec.create_recommender('other', 'item', text_columns => '{title}', interactions => 'event',
          kind_column => 'kind', value_column => 'value', encoder => 'tiny')
        where not exists (select from dynrec_data.recommender where name = 'other')
        """
    )


def drop_other(operator: Operator) -> None:
    operator.connection.execute(
        "select dynrec.drop_recommender(name) from dynrec_data.recommender where name = 'other'"
    )


def deploy(operator: Operator) -> None:
    """A new version of sql/ is migrated to."""
    operator.connection.execute("update dynrec_data.code set hash = 'older'")
    migrate.upgrade(operator.url)


ACTIONS: list[Callable[[Operator], None]] = [
    alter_kinds,
    alter_columns,
    alter_options,
    pause,
    declare_other,
    drop_other,
    deploy,
]
