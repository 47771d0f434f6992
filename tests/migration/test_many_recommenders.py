"""Migrating takes a lock for everything that it touches, and the server has room for so many."""

from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import psycopg
import pytest

from dynrec_store import code, migrate
from dynrec_store.exceptions import MigrationError
from tests.migration import released


def test_too_many_for_the_servers_locks_are_refused_at_once(release_url: str, dump_schema: Callable[..., str]) -> None:
    released.clear_the_way(release_url)
    before = dump_schema(release_url)
    with (
        patch("dynrec_store.migrate.LOCKS_EACH_BEFORE_RIGHTS", 10_000),
        pytest.raises(MigrationError, match=r"takes about \d+ locks.*max_locks_per_transaction = \d+'"),
    ):
        migrate.upgrade(release_url)
    assert dump_schema(release_url) == before
    migrate.upgrade(release_url)


def test_no_more_locks_are_taken_than_are_asked_for(release_url: str) -> None:
    released.clear_the_way(release_url)
    taken = 0

    def applied(cursor: psycopg.Cursor[tuple[int]], folder: Path, vector_schema: str) -> None:
        nonlocal taken
        apply(cursor, folder, vector_schema)
        row = cursor.execute(
            "select count(distinct (locktype, relation, classid, objid)) from pg_locks where pid = pg_backend_pid()"
        ).fetchone()
        assert row is not None
        (taken,) = row

    apply = code.apply
    with patch("dynrec_store.code.apply", applied):
        migrate.upgrade(release_url)
    with psycopg.connect(release_url) as connection:
        row = connection.execute("select count(*) from dynrec_data.recommender").fetchone()
        assert row is not None
    assert 0 < taken <= migrate.LOCKS + row[0] * migrate.LOCKS_EACH_BEFORE_RIGHTS
