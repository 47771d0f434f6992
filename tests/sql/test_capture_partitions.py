"""Partitioned sources: written through any level, rows that move, partitions that come and go."""

from datetime import UTC, datetime
from typing import LiteralString

import pytest

from tests.drain import Session
from tests.sql.shop import KINDS, Shop, kinds_argument

TABLES = """
    create schema "Parts";
    create table "Parts".items (id int primary key, title text, category text) partition by range (id);
    create table "Parts".low partition of "Parts".items for values from (minvalue) to (1000);
    create table "Parts".high partition of "Parts".items for values from (1000) to (5000) partition by list (id);
    create table "Parts".high_even partition of "Parts".high for values in (1000, 1002, 1004);
    create table "Parts".high_rest partition of "Parts".high default;
    create table "Parts".events (
        user_id uuid, item_id int, occurred_at timestamptz not null, kind text, value real) partition by range (occurred_at);
    create table "Parts".y2023 partition of "Parts".events for values from ('2023-01-01') to ('2024-01-01');
    create table "Parts".y2024 partition of "Parts".events for values from ('2024-01-01') to ('2025-01-01')
        partition by hash (user_id);
    create table "Parts".y2024_0 partition of "Parts".y2024 for values with (modulus 2, remainder 0);
    create table "Parts".y2024_1 partition of "Parts".y2024 for values with (modulus 2, remainder 1);
    insert into "Parts".items select i, 'item ' || i, 'c' || mod(i, 3) from generate_series(990, 1010) i;
    insert into "Parts".events
    select md5(mod(i, 4)::text)::uuid, 990 + mod(i, 20), '2023-10-01'::timestamptz + i * interval '1 day', 'view', 1
    from generate_series(1, 200) i;
"""
USER = "00000000-0000-0000-0000-000000000001"


@pytest.fixture
def parts(connection: Session) -> Shop:
    connection.execute(TABLES)
    connection.execute(
        """
        select * from dynrec.create_recommender('parts', '"Parts".items', text_columns => '{title}',
            categorical_columns => '{category}', interactions => '"Parts".events', kind_column => 'kind',
            value_column => 'value', kinds => %s, encoder => 'hashing')
        """,
        [kinds_argument(KINDS)],
    )
    shop = Shop(
        connection,
        "parts",
        'select id::text, title, category from "Parts".items',
        'select user_id::text, item_id::text, occurred_at, kind, value from "Parts".events',
    )
    shop.drain()
    return shop


def test_the_backfill(parts: Shop) -> None:
    assert parts.counts() == (21, 4)
    parts.assert_right()


@pytest.mark.parametrize("table", ['"Parts".items', '"Parts".high', '"Parts".high_rest'])
def test_items_written_through_any_level(parts: Shop, table: LiteralString) -> None:
    parts.execute(f"insert into {table} values (4001, 'fresh', 'c'), (4002, 'fresher', 'c')")
    parts.execute(f"update {table} set title = 'renamed' where id = 1007")
    parts.execute(f"delete from {table} where id = 1009")
    assert parts.queued() == {("item", "4001"), ("item", "4002"), ("item", "1007"), ("item", "1009")}
    parts.drain()
    parts.assert_right()
    parts.execute(f"update {table} set title = title")
    parts.execute(f"insert into {table} values (4001, '', '') on conflict do nothing")
    assert parts.queued() == set()
    parts.execute(
        f"merge into {table} t using (values (4001), (4003)) s (i) on s.i = t.id "
        "when matched then update set title = 'merged' when not matched then insert values (s.i, 'new', 'c')"
    )
    assert parts.queued() == {("item", "4001"), ("item", "4003")}
    parts.execute(f"truncate {table}")
    parts.drain()
    parts.assert_right()


@pytest.mark.parametrize("table", ['"Parts".events', '"Parts".y2024', '"Parts".y2024_0'])
def test_interactions_written_through_any_level(parts: Shop, table: LiteralString) -> None:
    (user,) = parts.execute('select user_id::text from "Parts".y2024_0 limit 1')[0]
    at = datetime(2024, 8, 1, tzinfo=UTC)
    parts.execute(
        f"insert into {table} values (%s, 1000, %s, 'purchase', 2), (%s, 1001, %s, 'view', null)", [user, at] * 2
    )
    assert parts.value("select count(*) from dynrec_data.change") == 2, "once each, though the parent has triggers, too"
    parts.execute(f"update {table} set item_id = 1002 where user_id = %s and item_id = 1001", [user])
    parts.execute(f"delete from {table} where user_id = %s and occurred_at < '2024-01-10'", [user])
    parts.drain()
    parts.assert_right()
    parts.execute(f"truncate {table}")
    parts.drain()
    parts.assert_right()


def test_rows_that_move_between_partitions(parts: Shop) -> None:
    parts.execute('update "Parts".items set id = 1500 where id = 990')
    parts.execute('update "Parts".items set id = 900 where id = 1002')
    assert parts.queued() == {("item", n) for n in ("990", "1500", "1002", "900")}
    parts.execute(
        "update \"Parts\".events set occurred_at = occurred_at + interval '1 year' where occurred_at < '2023-11-01'"
    )
    parts.execute("""update "Parts".events set user_id = %s where item_id = 995""", [USER])
    parts.drain()
    parts.assert_right()


def attach(parts: Shop) -> None:
    parts.execute(
        """
        create table "Parts".late (id int primary key, title text, category text);
        insert into "Parts".late values (6000, 'late', 'c'), (6001, 'later', 'c');
        alter table "Parts".items attach partition "Parts".late for values from (6000) to (7000);
        create table "Parts".y2025 (user_id uuid, item_id int, occurred_at timestamptz not null, kind text, value real);
        insert into "Parts".y2025 values ('00000000-0000-0000-0000-000000000001', 6000, '2025-03-01', 'purchase', 1);
        alter table "Parts".events attach partition "Parts".y2025 for values from ('2025-01-01') to ('2026-01-01');
        """
    )


def test_partitions_attached_later(parts: Shop) -> None:
    attach(parts)
    assert parts.queued() == set()
    findings = parts.execute(
        "select subject, severity, finding, remedy from dynrec.doctor() where finding like '%trigger%'"
    )
    assert findings
    assert all(subject == "parts" and severity == "error" for subject, severity, _, _ in findings)
    assert any("y2025" in finding for _, _, finding, _ in findings)
    for remedy in {remedy for _, _, _, remedy in findings}:
        parts.connection.execute(remedy.encode())
    assert parts.execute("select finding from dynrec.doctor() where finding like '%trigger%'") == []
    parts.drain()
    assert parts.counts() == (23, 5)
    parts.assert_right()
    parts.execute("update \"Parts\".late set title = 'captured' where id = 6001")
    parts.execute('delete from "Parts".y2025')
    assert parts.queued() == {("item", "6001"), ("user", USER)}
    parts.drain()
    parts.assert_right()


def test_partitions_detached(parts: Shop) -> None:
    parts.execute('alter table "Parts".items detach partition "Parts".low')
    parts.execute('drop table "Parts".y2023')
    assert "995" not in {item for item, _, _ in parts.recommend(USER, k=30, exclude_seen=False)}
    parts.execute("select dynrec.refresh('parts')")
    parts.drain()
    parts.assert_right()


def test_a_detached_partition_is_let_go(parts: Shop) -> None:
    parts.execute('alter table "Parts".items detach partition "Parts".low')
    parts.execute('alter table "Parts".events detach partition "Parts".y2023')
    ((severity, remedy),) = parts.execute(
        "select severity, remedy from dynrec.doctor() where finding like '%trigger%y2023%' group by severity, remedy"
    )
    assert severity == "error"
    parts.connection.execute(remedy.encode())
    assert parts.execute("select finding from dynrec.doctor() where finding like '%trigger%'") == []
    parts.drain()
    parts.assert_right()
    parts.execute("""update "Parts".low set title = 'elsewhere'""")
    parts.execute("""insert into "Parts".y2023 values (%s, 1000, '2023-05-05', 'view', 1)""", [USER])
    parts.execute('truncate "Parts".low, "Parts".y2023')
    assert parts.queued() == set()


def test_a_foreign_key_that_cascades_into_partitions(parts: Shop) -> None:
    parts.execute('delete from "Parts".events where item_id not in (select id from "Parts".items)')
    parts.execute('alter table "Parts".events add foreign key (item_id) references "Parts".items on delete cascade')
    parts.drain()
    parts.execute('delete from "Parts".items where id in (995, 1000)')
    parts.drain()
    parts.assert_right()


def test_an_inheritance_parent_is_refused(connection: Session) -> None:
    connection.execute("create table parent (id int primary key, title text); create table child () inherits (parent)")
    with pytest.raises(Exception, match="inheritance"):
        connection.execute(
            "select dynrec.create_recommender('p', 'public.parent', text_columns => '{title}', encoder => 'hashing')"
        )
