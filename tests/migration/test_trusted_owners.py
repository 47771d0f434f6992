"""An upgrade from a version that read everybody's tables."""

from collections.abc import Iterator

import psycopg
import pytest

from dynrec_store import migrate
from tests.migration import released

OWNER = "owner_of_before"


@pytest.fixture
def owned_url(release_url: str) -> Iterator[str]:
    """The database of the first release, some of whose tables are of a role without rights."""
    released.clear_the_way(release_url)
    with psycopg.connect(release_url, autocommit=True) as connection:
        connection.execute(f"create role {OWNER}".encode())
        for (table,) in connection.execute("select items::text from dynrec_data.recommender where name = 'shop'"):
            connection.execute(f"alter table {table} owner to {OWNER}".encode())
        yield release_url
        connection.execute(f"reassign owned by {OWNER} to postgres; drop role {OWNER}".encode())


def test_who_owned_watched_tables_is_trusted(owned_url: str) -> None:
    migrate.upgrade(owned_url)
    with psycopg.connect(owned_url, autocommit=True) as connection:
        assert connection.execute("select owner from dynrec_data.trusted_owner").fetchall() == [(OWNER,)]
        said = connection.execute("select subject, severity from dynrec.doctor() where finding like '%is trusted%'")
        assert said.fetchall() == [("shop", "warning")]
    assert released.work_off(owned_url) == []
