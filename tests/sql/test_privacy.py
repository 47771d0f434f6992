"""Users who are exported and forgotten: nothing is left, nothing comes back, nobody else is touched."""

import threading
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from dynrec_store import database
from tests.conftest import Prepare
from tests.drain import Session, claim, drain
from tests.learned import backfill, stage
from tests.sql.shop import NOON, Event, Shop, create_shop, open_shop

TABLES = [
    "user_vector", "user_vector_history", "change", "lease", "retry", "dead_letter", "impression", "exposure", "item_popularity",
    "item_popularity_history", "measurement", "task", "model_version", "item_vector_history", "heartbeat", "forgotten_user",
]  # fmt: skip
ALICE, BOB = "alice-7f3a", "bob"


def events(user: str, first: int, count: int) -> list[Event]:
    return [
        Event(user, str(1 + (first + n) % 12), NOON + timedelta(hours=n), ["view", "purchase"][n % 2], 1.5)
        for n in range(count)
    ]


def get_to_know(connection: Session) -> None:
    """Alice and Bob have vectors by two model versions, a history, waiting changes, lists and exposures."""
    shop = open_shop(connection)
    shop.add_events(events(ALICE, 0, 6) + events(BOB, 3, 9))
    shop.drain()
    stage(shop.connection)
    backfill(shop.connection)
    shop.execute('select dynrec.create_experiment(\'shop\', \'colours\', \'[{"arm": "red"}, {"arm": "blue"}]\')')
    for user in (ALICE, BOB):
        impressions = [
            {"user_id": user, "item_ids": ["1", "2"], "experiment": "colours"},
            {"user_id": user, "item_ids": ["3"]},
        ]
        shop.execute("select dynrec.log_impressions('shop', %s)", [Jsonb(impressions)])
    shop.add_events(events(ALICE, 6, 1) + events(BOB, 1, 1))
    shop.drain()
    shop.add_events(events(ALICE, 7, 2) + events(BOB, 2, 2))


@pytest.fixture
def beginning(request: pytest.FixtureRequest, prepared: Prepare, beginning: str) -> str:
    return prepared(get_to_know).name if "known" in request.fixturenames else beginning


@pytest.fixture
def known(shop: Shop) -> Shop:
    return shop


def mentions(shop: Shop, text: str) -> list[str]:
    """The tables that contain a text anywhere in a row."""
    return [
        table
        for table in TABLES
        if shop.value(f"select exists (select from dynrec_data.{table} t where strpos(t::text, %s) > 0)", [text])
    ]


def popularity(shop: Shop) -> dict[str, tuple[int, float]]:
    """Count and score of each item, as at one moment."""
    rows = shop.execute(
        "select item_id, event_count, score * dynrec._decay(dynrec._age('2024-04-01', reference_time), 604800)"
        " from dynrec_data.item_popularity where event_count <> 0"
    )
    return {item: (count, score) for item, count, score in rows}


def alone(connection: Session, shop: Shop) -> Shop:
    """A shop with the same events but for those of Alice."""
    other = create_shop(connection, products=12)
    other.add_events(event for event in shop.events() if event.user != ALICE)
    other.drain()
    return other


def test_everything_held_is_exported(known: Shop) -> None:
    exported = known.value("select dynrec.export_user('shop', %s)", [ALICE])
    held = exported["held"]
    assert {name: len(rows) for name, rows in held.items() if name != "history"} == {
        "vectors": 2, "changes": 2, "leases": 0, "retries": 0,
        "dead_letters": 0, "fingerprints": 0, "outbox": 0, "impressions": 2, "exposures": 1,
    }  # fmt: skip
    assert len(held["history"]) >= 2
    assert exported["forgotten_at"] is None
    assert ALICE in str(held)
    assert BOB not in str(held)
    nobody = known.value("select dynrec.export_user('shop', 'nobody')")
    assert set(map(str, nobody["held"].values())) == {"[]"}


def test_nothing_of_a_forgotten_user_is_left(known: Shop, make_database: Any, template: str) -> None:
    claim(known.connection, "shop", "user")
    known.execute(
        "insert into dynrec_data.dead_letter (recommender_id, kind, entity, attempts, error) values (1, 'user', %s, 5, 'x')",
        [ALICE],
    )
    assert {"user_vector", "user_vector_history", "change", "lease", "dead_letter", "impression", "exposure"} <= set(
        mentions(known, ALICE)
    )
    before = known.value("select dynrec.export_user('shop', %s)", [ALICE])["held"]
    receipt = known.value("select dynrec.forget_user('shop', %s)", [ALICE])
    assert mentions(known, ALICE) == []
    assert receipt["removed"] == {name: len(rows) for name, rows in before.items()}
    assert receipt["model_versions"] == [2]
    assert known.execute("select model_version, forgotten_users from dynrec.model_versions order by 1") == [
        (1, 0),
        (2, 1),
    ]
    assert known.value("select dynrec.verify_forgotten('shop', %s, %s)", [ALICE, Jsonb(receipt)])
    known.execute("select dynrec._fail(token, array[entity], 'x', false) from dynrec_data.lease")
    known.drain()
    with database.connect(make_database(template)) as connection:
        other = popularity(alone(connection, known))
    left = popularity(known)
    assert {item: count for item, (count, _) in left.items()} == {item: count for item, (count, _) in other.items()}
    assert {item: score for item, (_, score) in left.items()} == pytest.approx(
        {item: score for item, (_, score) in other.items()}, abs=1e-6
    )


def test_nothing_comes_back(known: Shop) -> None:
    receipt = known.value("select dynrec.forget_user('shop', %s)", [ALICE])
    known.add_events(events(ALICE, 2, 3))
    known.execute("update shop.events set value = 3 where user_id = %s", [ALICE])
    known.execute("update shop.events set user_id = %s where user_id = %s and item_id = 4", [ALICE, BOB])
    known.execute("delete from shop.events where user_id = %s and item_id = 1", [ALICE])
    known.execute(
        "select dynrec.log_impressions('shop', %s)",
        [Jsonb([{"user_id": ALICE, "item_ids": ["1"], "experiment": "colours"}])],
    )
    known.execute("select dynrec.log_exposure('shop', 'colours', %s)", [ALICE])
    known.execute("select dynrec.refresh('shop')")
    known.execute("select * from dynrec.alter_recommender('shop', options => '{\"half_life\": \"3 days\"}')")
    known.drain()
    backfill(known.connection)
    assert mentions(known, ALICE) == []
    assert known.value("select dynrec.verify_forgotten('shop', %s, %s)", [ALICE, Jsonb(receipt)])
    stranger = [row[0] for row in known.recommend("stranger", k=5)]
    assert [row[0] for row in known.recommend(ALICE, k=5)] == stranger
    assert {source for _, _, source in known.recommend(ALICE, k=5)} <= {"trending", "fallback"}
    moment = known.value("select clock_timestamp()")
    assert known.execute("select * from dynrec.recommend('shop', %s, 3, as_of => %s)", [ALICE, moment])
    assert (
        known.value(
            "select count(*) from dynrec.training_examples('shop', '2024-01-01', '2030-01-01') where user_id = %s",
            [ALICE],
        )
        == 0
    )
    assert known.value("select count(because_item_id) from dynrec.explain('shop', %s, '1')", [ALICE]) == 0


def test_the_others_are_as_they_were(known: Shop) -> None:
    before = known.value("select dynrec.export_user('shop', %s)", [BOB])["held"]
    lists = known.recommend(BOB, k=8)
    known.execute("select dynrec.forget_user('shop', %s)", [ALICE])
    assert known.value("select dynrec.export_user('shop', %s)", [BOB])["held"] == before
    assert [row[0] for row in known.recommend(BOB, k=8)] == [row[0] for row in lists]
    known.add_events(events(BOB, 5, 2))
    assert known.value("select count(*) from dynrec.queue where kind = 'user'") > 0
    known.drain()
    count = "select event_count from dynrec_data.user_vector where user_id = %s and model_id = 1"
    assert known.value(count, [BOB]) == 14


@pytest.mark.parametrize(
    "change", [{"digest": 1}, {"forgotten_at": "2020-01-01"}, {"removed": {}}, {"user_hash": "00"}]
)
def test_a_receipt_that_was_altered_is_none(known: Shop, change: dict[str, Any]) -> None:
    receipt = known.value("select dynrec.forget_user('shop', %s)", [ALICE])
    assert not known.value("select dynrec.verify_forgotten('shop', %s, %s)", [ALICE, Jsonb(receipt | change)])
    assert not known.value("select dynrec.verify_forgotten('shop', %s, %s)", [BOB, Jsonb(receipt)])
    again = known.value("select dynrec.forget_user('shop', %s)", [ALICE])
    assert set(again["removed"].values()) == {0}
    assert not known.value("select dynrec.verify_forgotten('shop', %s, %s)", [ALICE, Jsonb(receipt)])
    assert known.value("select dynrec.verify_forgotten('shop', %s, %s)", [ALICE, Jsonb(again)])


def test_what_a_running_transaction_had_captured_is_given_up(known: Shop, database_url: str) -> None:
    """Its trigger ran before the user was forgotten, it commits after."""
    with database.connect(database_url) as late:
        late.execute("begin isolation level repeatable read")
        late.execute("insert into shop.events (user_id, item_id, kind) values (%s, 5, 'purchase')", [ALICE])
        before = popularity(known)
        known.execute("select dynrec.forget_user('shop', %s)", [ALICE])
        late.execute("insert into shop.events (user_id, item_id, kind) values (%s, 5, 'purchase')", [ALICE])
        late.execute("commit")
    assert mentions(known, ALICE) == ["change"]
    known.drain()
    assert mentions(known, ALICE) == []
    assert popularity(known)["5"][0] <= before["5"][0]
    assert known.value("select count(*) from dynrec_data.lease") == 0


def test_a_publish_that_runs_meanwhile_leaves_nothing(known: Shop, database_url: str) -> None:
    token = claim(known.connection, "shop", "user")
    with database.connect(database_url) as worker, database.connect(database_url) as clerk:
        worker.execute("begin")
        worker.execute("select dynrec._publish_users(%s)", [token])
        done = threading.Thread(target=lambda: clerk.execute("select dynrec.forget_user('shop', %s)", [ALICE]))
        done.start()
        done.join(0.5)
        assert done.is_alive(), "it waits for the publish"
        worker.execute("commit")
        done.join(30)
    assert mentions(known, ALICE) == []
    known.drain()
    assert mentions(known, ALICE) == []


def test_a_lease_from_before_publishes_nothing(known: Shop) -> None:
    token = claim(known.connection, "shop", "user")
    known.execute("select dynrec.forget_user('shop', %s)", [ALICE])
    known.execute("select dynrec._publish_users(%s)", [token])
    assert mentions(known, ALICE) == []
    assert known.value("select count(*) from dynrec_data.user_vector where user_id = %s", [BOB]) == 2


def test_keys_of_other_types(connection: Session) -> None:
    connection.execute(
        """
        create table things (id int primary key, title text);
        create table acts (user_id bigint, item_id int, occurred_at timestamptz default now());
        create index on acts (user_id); create index on acts (item_id);
        insert into things select n, 'thing ' || n from generate_series(1, 5) n;
        insert into acts values (7, 1), (7, 2), (8, 1);
        select dynrec.create_recommender('things', 'public.things', text_columns => '{title}', interactions => 'public.acts', encoder => 'hashing');
        """
    )
    drain(connection)
    row = connection.execute("select dynrec.forget_user('things', ' 007')").fetchone()
    assert row
    assert row[0]["removed"]["vectors"] == 1
    connection.execute("select dynrec.log_impressions('things', 'session 9', '{1}')")
    session = connection.execute("select dynrec.forget_user('things', 'session 9')").fetchone()
    assert session
    assert session[0]["removed"]["impressions"] == 1
    assert session[0]["model_versions"] == []
    connection.execute("insert into acts values (7, 3), (8, 3)")
    drain(connection)
    assert connection.execute("select user_id from dynrec_data.user_vector").fetchall() == [("8",)]
    assert connection.execute("select dynrec.verify_forgotten('things', '7', %s)", [Jsonb(row[0])]).fetchone() == (
        True,
    )


def test_bad_arguments(shop: Shop) -> None:
    shop.execute(
        "select dynrec.create_recommender('still', 'shop.products', text_columns => '{title}', encoder => 'hashing')"
    )
    for statement, message in (
        ("select dynrec.forget_user('shop', null)", "user_id is missing"),
        ("select dynrec.forget_user('still', 'u')", "holds nothing of users: 'still'"),
        ("select dynrec.export_user('still', 'u')", "holds nothing of users: 'still'"),
        ("select dynrec.verify_forgotten('shop', 'u', '[]')", "receipt: not a JSON object"),
    ):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match=message):
            shop.execute(statement)


def test_a_user_who_comes_again(shop: Shop) -> None:
    shop.add_events(events(ALICE, 0, 6) + events(BOB, 3, 9))
    shop.drain()
    shop.add_events(events(ALICE, 6, 1))
    shop.drain()
    receipt = shop.value("select dynrec.forget_user('shop', %s)", [ALICE])
    shop.execute("delete from shop.events where id = (select min(id) from shop.events where user_id = %s)", [ALICE])
    shop.add_events(events(ALICE, 1, 2))
    left = shop.value("select count(*) from shop.events where user_id = %s", [ALICE])
    assert shop.value("select dynrec.readmit_user('shop', %s)", [ALICE]) == left
    assert shop.value("select dynrec.verify_forgotten('shop', %s, %s)", [ALICE, Jsonb(receipt)]) is False
    assert shop.value("select count(*) from dynrec_data.user_vector_history where user_id = %s", [ALICE]) == 0
    shop.add_events(events(ALICE, 5, 1))
    shop.drain()
    shop.assert_right()
    counted = popularity(shop)
    shop.execute("select dynrec._rebuild_popularity(id) from dynrec_data.recommender where name = 'shop'")
    rebuilt = popularity(shop)
    assert counted.keys() == rebuilt.keys()
    assert all(counted[item] == pytest.approx(rebuilt[item]) for item in rebuilt)
    shop.execute("select dynrec.forget_user('shop', %s)", [ALICE])
    assert mentions(shop, ALICE) == []


def test_only_a_forgotten_user_is_readmitted(known: Shop) -> None:
    known.execute("select dynrec.forget_user('shop', %s)", [BOB])
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=f"not a user who was forgotten: '{ALICE}'"):
        known.execute("select dynrec.readmit_user('shop', %s)", [ALICE])
    assert known.value("select dynrec.readmit_user('shop', %s)", [BOB]) == 12
    assert "forgotten_user" not in known.value(
        "select pg_get_functiondef('dynrec_data.interactions_1(text[])'::regprocedure)"
    )
