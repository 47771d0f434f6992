"""What a look at the queue, a claim, a publish and the audience of an item read grows with what waits, not with its square.

The planner is told that the tables are empty, as it often believes, for they are empty again and again.
"""

from typing import Any, LiteralString

import pytest

from tests.sql.shop import Shop

USERS = 500
CHANGES = 20_000  # of few users: most are of leased ones
PER_ROW = 2  # buffers for a change that is looked at, at most
PER_USE = 10  # the same for one that is used up
FULL: LiteralString = (
    "insert into shop.events (user_id, item_id) select 'u' || i %% %s, 1 + i %% 12 from generate_series(1, %s) i"
)


@pytest.fixture
def storm(shop: Shop) -> Shop:
    """Many changes of few users wait, a half of the users is leased, and the statistics know of nothing."""
    shop.execute("alter table dynrec_data.change set (autovacuum_enabled = off)")
    shop.execute("alter table dynrec_data.lease set (autovacuum_enabled = off)")
    shop.execute(FULL, [USERS, USERS])
    shop.drain()
    for number in range(2):
        shop.execute(FULL, [USERS, CHANGES])
        if number == 0:
            shop.execute("select dynrec._claim('shop', 'user', 100000, '1 hour')")
            shop.execute("delete from dynrec_data.change")
            shop.execute("delete from dynrec_data.lease")
            shop.execute("analyze dynrec_data.change, dynrec_data.lease")
    shop.execute("select dynrec._claim('shop', 'user', %s, '1 hour')", [USERS // 2])
    return shop


def buffers(shop: Shop, statement: LiteralString) -> int:
    """Pages that a statement read, each as often as it was read."""
    plan: dict[str, Any] = shop.value("explain (analyze, buffers, format json) " + statement)[0]["Plan"]
    return int(plan["Shared Hit Blocks"]) + int(plan["Shared Read Blocks"])


def test_a_look_at_the_queue(storm: Shop) -> None:
    assert buffers(storm, "select * from dynrec._pending_work()") < PER_ROW * CHANGES
    ((work, backlog, leased),) = storm.execute("select work, backlog, leased from dynrec._pending_work()")
    assert (work, backlog, leased) == ("user", 1000, 1)


def test_a_claim(storm: Shop) -> None:
    assert buffers(storm, "select dynrec._claim('shop', 'user', 1000, '1 hour')") < PER_ROW * CHANGES
    assert storm.value("select count(*) from dynrec_data.lease") == USERS


def test_the_audience_of_items(storm: Shop) -> None:
    statement: LiteralString = """
        select dynrec._refresh_audience(r.id, array(select i::text from generate_series(1, 12) i))
        from dynrec_data.recommender r"""
    assert buffers(storm, statement) < PER_ROW * CHANGES
    assert storm.value("select count(*) from dynrec_data.change where op = 'refresh'") == USERS


def test_publishing_users(storm: Shop) -> None:
    token = storm.value("select dynrec._claim('shop', 'user', 1000, '1 hour')")
    assert buffers(storm, f"select dynrec._publish_users('{token}')") < PER_USE * CHANGES / 2
    assert storm.value("select count(*) from dynrec_data.change") == CHANGES / 2
