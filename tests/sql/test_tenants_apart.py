"""Two recommenders over the tables of two tenants in one database: neither knows of the other or uses what is the other's."""

from collections.abc import Iterator

import psycopg
import pytest

from dynrec_store import database
from tests.conftest import MakeDatabase
from tests.sql import asking, tenants
from tests.sql.asking import leaked, leaks, relations_read
from tests.sql.tenants import ANT, BEE, MARKETS, Market, acting


@pytest.fixture(scope="module")
def apart(make_database: MakeDatabase, template: str) -> Iterator[Market]:
    """Both markets; the one of ant."""
    with database.connect(make_database(template)) as connection:
        yield tenants.open_both(connection)[ANT]
        tenants.close_both(connection)


def test_nothing_tells_of_the_other_tenant(apart: Market) -> None:
    given = {"model": apart.model, "since": apart.since, "recommender": MARKETS[ANT], "schema": '"ant-market"'}
    apart.connection.execute("analyze")
    with acting(apart.connection):
        found = relations_read(apart.connection)
        said = asking.asked(apart.connection, given)
    # the catalogs, and with them the code of others, are open to all: names of tables and columns, nothing of their rows
    assert {call: line for call, line in leaks(said).items() if "permission denied for schema" not in line} == {}
    assert {name: line for name, text in found.items() if (line := leaked(text, ""))} == {}
    told = {name for name, text in found.items() if "ant-" in text}
    assert {f"dynrec_data.{name}" for name in ("impression", "exposure", "dead_letter")} <= told
    assert {f"dynrec_data.{name}" for name in ("user_vector", "item_vector", "item_content", "item_popularity")} <= told
    assert {name for name, texts in said.items() if all(text.startswith("error") for text in texts.values())} & {
        name for name in said if name.startswith("dynrec.") and not name.startswith("dynrec._")
    } == set()


def test_the_other_tenant_is_told_of_what_is_his(apart: Market) -> None:
    with acting(apart.connection, BEE):
        assert leaked(relations_read(apart.connection)["dynrec_data.impression"], "") is not None
        assert apart.connection.execute("select recommender from dynrec.status").fetchall() == [("bee-market",)]


@pytest.mark.parametrize(
    "statement",
    [
        "select dynrec.log_impressions('bee-market', 'bee-user1', '{bee-01}')",
        "select dynrec.log_impressions('ant-market', 'ant-user1', '{ant-01}', experiment => 'trial', arm => 'nothing')",
        "select dynrec.log_exposure('bee-market', 'trial', 'bee-user1')",
        """insert into dynrec_data.impression (recommender_id, user_id, shown_at, item_ids, first_position)
           select m, 'bee-user1', now(), '{bee-01}', 1 from generate_series(1, 9) m""",
        "insert into dynrec_data.exposure (experiment_id, user_id, arm, exposed_at) select m, 'x', 1, now() from generate_series(1, 9) m",
        "select dynrec.drop_recommender('ant-market')",
        "select dynrec.pause('bee-market')",
        "select dynrec.stop_experiment('bee-market', 'trial')",
        "select dynrec._claim('bee-market', 'item', 1, '1 s')",
        "select dynrec._maintain()",
        "select dynrec._queue(2, 'item', '{bee-01}', 0::smallint)",
        "select dynrec_data.publish_users_2(gen_random_uuid())",
        "select dynrec_data.source_items_2('{bee-01}')",
        "select * from dynrec_data.interactions_all_2()",
        "update dynrec_data.recommender set paused = true",
        "delete from dynrec_data.impression",
        "select * from dynrec_data.model_artefact",
        "select dynrec_data.capture_items_2()",
        """create trigger mine after insert on "ant-market".products for each row execute function dynrec_data.capture_items_2()""",
    ],
)
def test_what_is_refused(apart: Market, statement: str) -> None:
    with acting(apart.connection), pytest.raises(psycopg.Error) as caught:
        apart.connection.execute(statement.encode())
    # of the code of another, which the catalogs show to all, an error may quote names
    told = "" if "permission denied for schema" in str(caught.value) else tenants.told(caught.value)
    assert leaked(told, statement) is None
    assert not isinstance(caught.value, psycopg.errors.SyntaxError)


def test_exposures_of_the_other_tenant_stay_as_they_are(apart: Market) -> None:
    count = """select count(*) from dynrec_data.exposure e join dynrec_data.experiment x on x.id = e.experiment_id
        join dynrec_data.recommender r on r.id = x.recommender_id where r.name = 'bee-market' and exposed_at > '-infinity'"""
    before = apart.connection.execute(count).fetchone()
    with acting(apart.connection):
        apart.connection.execute("begin; update dynrec_data.exposure set exposed_at = '-infinity'; reset role")
        assert apart.connection.execute(count).fetchone() == before != (0,)
