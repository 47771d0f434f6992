"""How tests declare recommenders."""

from typing import Any

from psycopg import sql
from psycopg.types.json import Jsonb

from tests.drain import Session


def declare(connection: Session, name: str, **arguments: Any) -> tuple[Any, ...]:
    """Call create_recommender with the hashing encoder; its row."""
    given = {"encoder": "hashing", "name": name, **arguments}
    given = {key: Jsonb(value) if isinstance(value, dict) else value for key, value in given.items()}
    named = sql.SQL(", ").join(sql.SQL("{} => {}").format(sql.Identifier(key), sql.Placeholder(key)) for key in given)
    row = connection.execute(sql.SQL("select * from dynrec.create_recommender({})").format(named), given).fetchone()
    assert row is not None
    return row
