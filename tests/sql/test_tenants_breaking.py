"""Two recommenders over the tables of two tenants in one database: whatever one does to his own tables, the other's goes on."""

from collections.abc import Iterator

import pytest

from dynrec_store import migrate
from tests.drain import Session, drain
from tests.sql import tenants
from tests.sql.tenants import ANT, BEE, MARKETS, acting, of

READS = (
    "recommend('{0}-market', '{0}-user1')",
    "trending('{0}-market')",
    "search('{0}-market', 'lamp')",
    "similar_items('{0}-market', '{0}-01')",
    "explain('{0}-market', '{0}-user1', '{0}-01')",
)
VIEWS = (
    "queue failures model_versions freshness status features encoders experiments experiment_arms measurements alerts"
)


@pytest.fixture
def own(connection: Session) -> Iterator[Session]:
    """Both markets, to be broken."""
    tenants.open_both(connection)
    yield connection
    tenants.close_both(connection)


BREAKS = {
    "dropped": "drop table market.products cascade",
    "interactions dropped": "drop table market.events cascade",
    "schema dropped": "drop schema market cascade",
    "renamed": "alter table market.products rename to goods",
    "key renamed": "alter table market.products rename id to key",
    "key of another type": "alter table market.products alter id type int using 1 + length(id) + ascii(right(id, 1)) * 100 + ascii(right(id, 2))",
    "column dropped": "alter table market.products drop title",
    "replaced by a view": "alter table market.products rename to goods; create view market.products as select 1 / 0 as id, 'x'::text as title",
    "not readable": "revoke all on market.products from tenant_ant",
    "a policy that fails": "alter table market.products enable row level security, force row level security; create policy p on market.products using (1 / (length(id) - length(id)) = 1)",
}


@pytest.mark.parametrize("how", sorted(BREAKS))
def test_one_who_breaks_his_own_breaks_nobody_elses(own: Session, database_url: str, how: str) -> None:
    drain(own)
    # workers give up on what fails alone; here one thread does all of their work
    own.execute("select dynrec.pause('ant-market')")
    with acting(own):
        own.execute(of(MARKETS[ANT], BREAKS[how]))
    with acting(own, BEE):
        own.execute(of(MARKETS[BEE], "update market.products set title = 'lamp of late' where id = 'bee-01'"))
        own.execute(of(MARKETS[BEE], "insert into market.events values ('bee-user9', 'bee-01', 'view', 1, now(), 'x')"))
        check(own, "bee")
    own.execute("select * from dynrec.doctor()")
    for view in VIEWS.split():
        own.execute(f"select * from dynrec.{view}".encode())
    migrate.upgrade(database_url)
    drain(own)
    with acting(own, BEE):
        check(own, "bee")
        assert own.execute("select count(*) from dynrec.search('bee-market', 'late')").fetchone() == (1,)
        assert own.execute("select source from dynrec.recommend('bee-market', 'bee-user9', k => 1)").fetchone() == (
            "personal",
        )


def check(connection: Session, who: str) -> None:
    """Reads and views of one tenant work."""
    for read in READS:
        assert connection.execute(f"select * from dynrec.{read.format(who)}".encode()).fetchall(), read
    for view in VIEWS.split():
        connection.execute(f"select * from dynrec.{view}".encode())
    connection.execute("select * from dynrec.doctor()")
