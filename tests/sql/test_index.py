"""The vector index: when it is made, and that reads go through it."""

import re
from collections.abc import Callable

import numpy as np
import psycopg
import pytest

from tests.drain import Session
from tests.sql.plans import plans
from tests.sql.shop import Shop, call

READS: dict[str, Callable[[Session], object]] = {
    "recommend": lambda many: call(many, "many", "recommend", user_id="1"),
    "recommend, excluding many": lambda many: call(
        many, "many", "recommend", user_id="1", exclude_items=[str(n) for n in range(500)]
    ),
    "recommend, diverse": lambda many: call(many, "many", "recommend", user_id="1", diversity=0.5),
    "recommend, filter that keeps most": lambda many: call(
        many, "many", "recommend", user_id="1", filter="price > 5000"
    ),
    "recommend, filter with arguments": lambda many: call(
        many, "many", "recommend", user_id="1", filter="price > (args ->> 'p')::int", filter_args={"p": 100}
    ),
    "similar_items": lambda many: call(many, "many", "similar_items", item="5", k=20),
    "recommend_for_items": lambda many: call(many, "many", "recommend_for_items", item_ids=["5", "6"], k=20),
    "search": lambda many: call(many, "many", "search", query_vector="[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]"),
    "as_of": lambda many: call(
        many, "many", "recommend", user_id="1", as_of=many.execute("select clock_timestamp()").fetchall()[0][0]
    ),
}


@pytest.mark.parametrize("name", READS)
def test_reads_go_through_the_index(many: Session, name: str) -> None:
    for _ in range(7):  # the server changes to generic plans after five executions
        with plans(many) as messages:
            assert len(READS[name](many)) >= 10  # type: ignore[arg-type]
        executed = [line for plan in messages for line in plan.splitlines() if "never executed" not in line]
        assert any("Index Scan using item_vector_1_hnsw" in line for line in executed)
        whole = [line for line in executed if re.search(r"Seq Scan on (item_vector_1|item_content|events)\b", line)]
        assert whole == [] or name == "recommend, diverse"  # a hundred vectors of few: a matter of cost


def test_a_filter_that_keeps_little_is_exact(many: Session) -> None:
    with plans(many) as messages:
        rows = call(many, "many", "similar_items", item="5", k=10, filter="price % 1000 = 7")
    assert "item_vector_1_hnsw" not in "\n".join(messages)
    expected = many.execute(
        "select i.id::text from items i, items q where q.id = 5 and i.price % 1000 = 7 order by i.embedding <=> q.embedding limit 10"
    ).fetchall()
    assert [item for item, _, _ in rows] == [row[0] for row in expected]


def test_the_index_finds_nearly_what_an_exact_search_finds(many: Session) -> None:
    hits = 0
    for item in range(100, 120):
        rows = call(many, "many", "similar_items", item=str(item), k=10)
        expected = many.execute(
            "select i.id::text from items i, items q where q.id = %s and i.id <> q.id order by i.embedding <=> q.embedding limit 10",
            [item],
        ).fetchall()
        hits += len({one for one, _, _ in rows} & {row[0] for row in expected})
    assert hits >= 0.9 * 200


def test_what_is_left_out_does_not_begin_the_scan_anew(many: Session) -> None:
    def pages(excluded: list[str]) -> int:
        (row,) = many.execute(
            """
            explain (analyze, buffers, format json)
            select * from dynrec.recommend('many', '1', 400, exclude_items => %s, exclude_seen => false)
            """,
            [excluded],
        ).fetchall()
        return int(row[0][0]["Plan"]["Shared Hit Blocks"])

    nearest = [item for item, _, _ in call(many, "many", "recommend", user_id="1", k=20, exclude_seen=False)]
    for _ in range(3):  # plans are made, and what they read of the catalogue is known
        everything, without = pages([]), pages(nearest)
    assert without < 1.2 * everything


def statements(shop: Shop) -> list[str]:
    return [row[0] for row in shop.execute("select statement from dynrec._index_statements()")]


def test_the_index_waits_for_the_backfill(shop: Shop) -> None:
    shop.execute("select dynrec.refresh('shop')")
    assert statements(shop) == []
    shop.execute("select dynrec._run_task()")
    assert statements(shop) == []
    shop.drain()
    made = statements(shop)
    assert [statement.split()[0] for statement in made] == ["create", "vacuum"]
    for statement in made:
        shop.connection.execute(statement.encode())
    assert statements(shop) == []
    assert shop.execute("select indexed from dynrec.model_versions") == [(True,)]
    assert len(shop.call("similar_items", item="1", k=11)) == 11


def test_a_broken_index_is_made_again(shop: Shop) -> None:
    for statement in statements(shop):
        shop.connection.execute(statement.encode())
    shop.execute("update pg_index set indisvalid = false where indexrelid = 'dynrec_data.item_vector_1_hnsw'::regclass")
    for expected in (["drop"], ["create", "vacuum"]):
        made = statements(shop)
        assert [statement.split()[0] for statement in made] == expected
        for statement in made:
            shop.connection.execute(statement.encode())
    assert statements(shop) == []


def test_no_index_over_nothing(shop: Shop) -> None:
    shop.execute("truncate shop.products")
    shop.drain()
    assert statements(shop) == []


def test_vectors_too_long_for_an_index(connection: Session) -> None:
    connection.execute("create table items (id int primary key, embedding vector(2001))")
    connection.execute(
        "insert into items select i, array_fill(i::real, array[2001])::vector from generate_series(1, 3) i"
    )
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="2001"):
        connection.execute("select dynrec.create_recommender('long', 'public.items', vector_column => 'embedding')")


def test_recall_is_that_of_an_exact_search(many: Session) -> None:
    ids, vectors = zip(
        *many.execute("select item_id, embedding::text from dynrec_data.item_vector").fetchall(), strict=True
    )
    matrix = np.array([text.strip("[]").split(",") for text in vectors], dtype=np.float32)
    shares = []
    for item, query in many.execute(
        "select item_id, embedding::text from dynrec_data.item_vector order by hashtextextended(item_id, 5), item_id limit 30"
    ).fetchall():
        products = matrix @ matrix[ids.index(item)]
        best = {ids[n] for n in np.argsort(-products)[:300]}
        found = many.execute("select item_id from dynrec_data.nearest_m1(%s::vector, 300, '{}')", [query]).fetchall()
        shares.append(len(best & {one for (one,) in found}) / 300)
    model, recall, error, queries = many.execute("select * from dynrec.index_recall('many', 300, 30, 5)").fetchall()[0]
    assert (model, queries) == (1, 30)
    assert recall == pytest.approx(np.mean(shares), abs=0.002)
    assert error == pytest.approx(np.std(shares, ddof=1) / np.sqrt(30), abs=0.005)
    assert 0.9 < recall < 1


def test_recall_where_all_is_found_or_nothing_is(shop: Shop) -> None:
    assert shop.execute("select recall, queries from dynrec.index_recall('shop')") == [(1, 12)]
    shop.execute("delete from shop.products")
    shop.drain()
    assert shop.execute("select recall, queries from dynrec.index_recall('shop')") == [(None, 0)]
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="sample is out of range: '0'"):
        shop.execute("select dynrec.index_recall('shop', sample => 0)")
