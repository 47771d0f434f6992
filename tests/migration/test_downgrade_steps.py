"""From this version back to every revision and forth again, with data in place."""

import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from alembic.script import ScriptDirectory

from dynrec_store import migrate
from dynrec_store.resources import resource_folder
from tests.migration import released
from tests.property.shop import ACTIONS, Writer

_, *OLDER = [script.revision for script in ScriptDirectory(str(resource_folder("migrations"))).walk_revisions()]

# Schema dynrec is empty between the two: nobody can call it.
OF_SOURCES = [action for action in ACTIONS if not action.__name__.startswith("refresh")]


@pytest.fixture
def bare_url(release_url: str) -> str:
    """The database of the first release without what a user built on it."""
    with psycopg.connect(release_url, autocommit=True) as connection:
        connection.execute("drop schema app cascade")
    return release_url


@pytest.mark.parametrize("revision", OLDER)
def test_back_and_forth(bare_url: str, revision: str, dump_schema: Callable[..., str]) -> None:
    migrate.upgrade(bare_url)
    assert released.work_off(bare_url) == []
    catalog, declarations = dump_schema(bare_url), released.declarations(bare_url)
    migrate.downgrade(bare_url, revision)
    with psycopg.connect(bare_url, autocommit=True) as connection:
        writer = Writer(connection, random.Random(int(revision)), only=OF_SOURCES)
        for _ in range(40):
            with suppress(psycopg.errors.UniqueViolation):
                writer.act()
    migrate.upgrade(bare_url)
    assert (dump_schema(bare_url), released.declarations(bare_url)) == (catalog, declarations)
    assert released.work_off(bare_url) == []


def test_the_first_revision_has_its_tables_and_options_again(bare_url: str, dump_schema: Callable[..., str]) -> None:
    def state() -> tuple[set[str], list[Any]]:
        # a column that comes back comes last
        lines = {line.rstrip(",") for line in dump_schema(bare_url, "--table=dynrec_data.*").splitlines()}
        with psycopg.connect(bare_url, autocommit=True) as connection:
            return lines, connection.execute("select options from dynrec_data.recommender order by id").fetchall()

    before = state()
    migrate.upgrade(bare_url)
    migrate.downgrade(bare_url, "0001")
    assert state() == before
