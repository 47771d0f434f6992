"""Versions of items: gapless, never overlapping, kept as long as they are to be kept."""

from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import psycopg
import pytest

from tests.drain import from_text
from tests.reference import document
from tests.sql.shop import NOON, Event, Shop, assert_close
from workers.encoders.base import content_hash
from workers.encoders.hashing import HashingEncoder

COLUMNS = "version, valid_from, valid_to, created_at, replaced_at, embedding::text, content_hash, features, is_current"


def history(shop: Shop, item: str) -> list[dict[str, Any]]:
    rows = shop.connection.execute(f"select {COLUMNS} from dynrec.item_history('shop', %s)".encode(), [item]).fetchall()
    names = [name.split("::")[0] for name in COLUMNS.split(", ")]
    return [dict(zip(names, row, strict=True)) for row in rows]


def assert_gapless(versions: list[dict[str, Any]]) -> None:
    """Each version begins where the one before ended, in the world and in the store."""
    assert [version["version"] for version in versions] == list(range(1, len(versions) + 1))
    for before, after in pairwise(versions):
        assert before["valid_to"] == after["valid_from"]
        assert before["replaced_at"] == after["created_at"]
        assert before["valid_from"] < before["valid_to"]
        assert before["created_at"] < before["replaced_at"]
        assert not before["is_current"]
    for version in versions:
        assert version["valid_from"] <= version["created_at"]


def rename(shop: Shop, item: int, title: str, price: int = 1) -> None:
    shop.execute("update shop.products set title = %s, price = %s where id = %s", [title, price, item])
    shop.drain()


def test_every_version_with_what_it_was_made_of(shop: Shop) -> None:
    titles = ["one", "two", "three", "two"]
    for price, title in enumerate(titles):
        rename(shop, 1, title, price)
    versions = history(shop, "1")
    assert_gapless(versions)
    assert len(versions) == 5
    assert versions[-1]["is_current"]
    assert versions[-1]["valid_to"] is None
    assert versions[-1]["replaced_at"] is None
    for price, (title, version) in enumerate(zip(titles, versions[1:], strict=True)):
        text = document(title, "c1")
        assert version["content_hash"] == content_hash(text).hex()
        assert version["features"] == {"price": price, "category": "c1"}
        assert_close({"v": from_text(version["embedding"])}, {"v": HashingEncoder().encode([text])[0]})


def test_features_alone_make_no_version_of_the_vector(shop: Shop) -> None:
    rename(shop, 1, "one", 1)
    rename(shop, 1, "one", 2)
    rename(shop, 1, "two", 3)
    versions = history(shop, "1")
    assert [version["features"]["price"] for version in versions] == [1, 1, 3]
    assert_gapless(versions)


def test_deleted_and_back(shop: Shop) -> None:
    rename(shop, 1, "one")
    shop.execute("delete from shop.products where id = 1")
    shop.drain()
    gone = history(shop, "1")
    assert_gapless(gone)
    assert [version["is_current"] for version in gone] == [False, False]
    shop.execute("insert into shop.products (id, title) values (1, 'again')")
    shop.drain()
    versions = history(shop, "1")
    assert versions[:2] == gone
    assert versions[2]["valid_from"] > gone[1]["valid_to"]
    assert [version["version"] for version in versions] == [1, 2, 3]


def test_transactions_that_commit_in_another_order_than_they_wrote(shop: Shop, database_url: str) -> None:
    with psycopg.connect(database_url) as slow:
        slow.execute("update shop.products set title = 'slow' where id = 1")
        rename(shop, 2, "quick")
        slow.execute("update shop.products set title = 'slow ' || id where id = 3")
        slow.commit()
    shop.drain()
    rename(shop, 1, "last")
    for item in ("1", "2", "3"):
        assert_gapless(history(shop, item))
    shop.assert_items_right()


def test_drift(shop: Shop) -> None:
    for title in ("one", "two", "three four five"):
        rename(shop, 1, title)
    vectors = [from_text(version["embedding"]) for version in history(shop, "1")]
    rows = shop.execute("select version, valid_from, cosine_distance from dynrec.drift('shop', '1')")
    assert [row[0] for row in rows] == [1, 2, 3, 4]
    assert rows[0][2] is None
    for number in (1, 2, 3):
        before, after = vectors[number - 1], vectors[number]
        assert before is not None
        assert after is not None
        assert rows[number][2] == pytest.approx(1 - float(before @ after), abs=1e-5)
    assert shop.execute("select * from dynrec.drift('shop', 'nothing')") == []


def test_the_vector_of_a_moment(shop: Shop) -> None:
    moments: list[datetime] = []
    for title in ("one", "two", "three"):
        rename(shop, 1, title)
        moments.append(shop.value("select clock_timestamp()"))
    versions = history(shop, "1")
    at = "select dynrec.item_vector_at('shop', '1', %s)::text"
    for moment, version in zip(moments, versions[1:], strict=True):
        assert shop.value(at, [moment]) == version["embedding"]
    for version in versions:
        assert shop.value(at, [version["created_at"]]) == version["embedding"], "the first moment belongs to a version"
    assert shop.value(at, [versions[0]["created_at"] - timedelta(microseconds=1)]) is None
    assert shop.value("select dynrec.item_vector_at('shop', '1')::text") == versions[-1]["embedding"]
    for unknown in ("999", "abc", ""):
        assert shop.value("select dynrec.item_vector_at('shop', %s)", [unknown]) is None
        assert history(shop, unknown) == []


def test_the_user_vector_of_a_moment(shop: Shop) -> None:
    seen = []
    for number in range(1, 6):
        shop.add_events([Event("u", str(number), NOON + timedelta(days=number), "view")])
        if number % 2:
            shop.drain()
        seen.append((shop.value("select clock_timestamp()"), shop.user_vectors(["u"])["u"]))
    shop.execute("delete from shop.events where user_id = 'u'")
    shop.drain()
    for moment, vector in seen:
        found = from_text(shop.value("select dynrec.user_vector_at('shop', 'u', %s)::text", [moment]))
        assert found is not None
        assert vector is not None
        assert np.abs(found - vector).max() < 1e-4
    assert shop.value("select dynrec.user_vector_at('shop', 'u')") is None
    assert shop.value("select dynrec.user_vector_at('shop', 'u', now())") is None


def test_retention(shop: Shop) -> None:
    shop.execute("select dynrec.alter_recommender('shop', options => '{\"retention\": \"10 days\"}')")
    shop.add_events([Event("u", "1", NOON, "view")])
    for title in ("one", "two", "three"):
        rename(shop, 1, title)
        shop.add_events([Event("u", "2", NOON, "view")])
        shop.drain()
    before = history(shop, "1")
    assert len(before) == 4
    for table in ("item_vector_history", "item_content_history", "user_vector_history"):
        shop.connection.execute(
            f"""
            with ranked as (select valid_to, row_number() over (order by valid_to) as place from dynrec_data.{table})
            update dynrec_data.{table} h set valid_to = h.valid_to - interval '11 days', valid_from = h.valid_from - interval '11 days'
            from ranked r where r.valid_to = h.valid_to and r.place = 1
            """.encode()
        )
    sizes = [
        shop.value("select count(*) from dynrec_data.item_vector_history"),
        shop.value("select count(*) from dynrec_data.user_vector_history"),
    ]
    shop.execute("select dynrec._maintain()")
    assert shop.value("select count(*) from dynrec_data.item_vector_history") == sizes[0] - 1
    assert shop.value("select count(*) from dynrec_data.user_vector_history") == sizes[1] - 1
    kept = history(shop, "1")
    assert [version["embedding"] for version in kept] == [version["embedding"] for version in before[1:]]
    assert_gapless(kept)
    shop.execute("select dynrec._maintain()")
    assert len(history(shop, "1")) == 3
    shop.assert_right()


def test_partitions_are_made_ahead(shop: Shop) -> None:
    shop.execute("select dynrec._maintain()")
    for parent in ("item_vector_history", "item_content_history", "user_vector_history"):
        bounds = shop.execute(
            "select pg_get_expr(c.relpartbound, c.oid) from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = %s::regclass",
            [f"dynrec_data.{parent}"],
        )
        assert len(bounds) >= 4
        covered = shop.value(
            "select bool_and(to_regclass(format('dynrec_data.%%s_%%s', %s::text, to_char(now() + m * interval '1 month', 'YYYY_MM'))) is not null) "
            "from generate_series(0, 2) m",
            [parent],
        )
        assert covered
    rename(shop, 1, "one")
    assert shop.execute("select * from dynrec_data.item_vector_history_default") == []
    assert shop.value("select count(*) from dynrec.doctor() where subject = 'history'") == 0


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "America/Los_Angeles"])
def test_partitions_do_not_depend_on_the_time_zone(shop: Shop, zone: str) -> None:
    shop.execute("select set_config('timezone', %s, false)", [zone])
    shop.execute("select dynrec._ensure_history_partitions(14)")
    shop.execute("set timezone = 'Asia/Tokyo'")
    shop.execute("select dynrec._ensure_history_partitions(15)")
    rename(shop, 1, "one")
    assert shop.execute("select * from dynrec_data.item_vector_history_default") == []


def test_what_is_due_is_found_without_reading_all_of_history(shop: Shop) -> None:
    shop.execute("select dynrec._maintain()")
    shop.execute(
        """
        insert into dynrec_data.impression (recommender_id, user_id, shown_at, item_ids, first_position)
        select 1, 'u' || g, now() + interval '40 days' + make_interval(secs => g), array['1', '2', '3'], 1
        from generate_series(1, 60000) g
        """
    )
    shop.connection.execute("vacuum analyze dynrec_data.impression")
    ((size,),) = shop.execute(
        "select sum(pg_relation_size(relid)) / 8192 from pg_partition_tree('dynrec_data.impression')"
    )
    (((explained,),),) = shop.execute(
        "explain (analyze, buffers, timing off, format json) select dynrec._forget_old_history()"
    )
    read = explained["Plan"]["Shared Hit Blocks"] + explained["Plan"]["Shared Read Blocks"]
    assert size > 500
    assert read < size / 2
