"""The option vector_index: what the index holds, that lists are compared by the vectors all the same, and switching."""

import threading
from collections.abc import Callable, Iterator

import numpy as np
import psycopg
import pytest

from dynrec_store import database
from tests import learned
from tests.conftest import MakeDatabase
from tests.drain import Session, drain
from tests.sql.plans import plans
from tests.sql.shop import Shop, call

INDEXES = {"full": "item_vector_{}_hnsw", "half": "item_vector_{}_hnsw_half", "binary": "item_vector_{}_hnsw_binary"}
QUERY = [1.0 + n % 5 for n in range(32)]

READS: dict[str, Callable[[Session, str], object]] = {
    "recommend": lambda shops, kind: call(shops, kind, "recommend", user_id="1"),
    "diverse": lambda shops, kind: call(shops, kind, "recommend", user_id="1", diversity=0.5),
    "filtered": lambda shops, kind: call(shops, kind, "recommend", user_id="1", filter="price > 500"),
    "similar_items": lambda shops, kind: call(shops, kind, "similar_items", item="5", k=20),
    "recommend_for_items": lambda shops, kind: call(shops, kind, "recommend_for_items", item_ids=["5", "6"], k=20),
    "search": lambda shops, kind: call(shops, kind, "search", query_vector=str(QUERY)),
    "as_of": lambda shops, kind: call(
        shops, kind, "recommend", user_id="1", as_of=shops.execute("select clock_timestamp()").fetchall()[0][0]
    ),
}


def statements(connection: Session, recommender: str) -> list[str]:
    """What the index of a recommender needs."""
    rows = connection.execute(
        "select statement from dynrec._index_statements() where recommender = %s", [recommender]
    ).fetchall()
    return [row[0] for row in rows]


def tend(connection: Session, recommender: str) -> list[str]:
    """Do what the index of a recommender needs now; the first word of each statement that it took."""
    done = statements(connection, recommender)
    for statement in done:
        connection.execute(statement.encode())
    return [statement.split()[0] for statement in done]


def indexes(connection: Session, model: int) -> set[str]:
    """The HNSW indexes of a model version."""
    rows = connection.execute(
        "select indexname from pg_indexes where tablename = %s and indexdef like '%%hnsw%%'", [f"item_vector_{model}"]
    ).fetchall()
    return {row[0] for row in rows}


@pytest.fixture(scope="module")
def shops(make_database: MakeDatabase, template: str) -> Iterator[Session]:
    """Recommenders full, half and binary (models 1, 2, 3) over the same six thousand clustered items; left as they are."""
    draw = np.random.default_rng(7)
    centres = draw.normal(size=(60, 32))
    with database.connect(make_database(template)) as connection:
        connection.execute(
            """
            create table items (id int primary key, price int, embedding vector(32));
            create table events (user_id int, item_id int, occurred_at timestamptz);
            create index on events (user_id);
            create index on events (item_id);
            insert into events select 1 + i / 5, 1 + i * 7 % 6000, now() from generate_series(1, 1000) i;
            """
        )
        with connection.cursor() as cursor, cursor.copy("copy items from stdin") as copy:
            for n in range(1, 6001):
                copy.write_row((n, n, str((centres[n % 60] + draw.normal(size=32)).tolist())))
        connection.execute("analyze")
        for kind in INDEXES:
            connection.execute(
                "select dynrec.create_recommender(%s, 'public.items', vector_column => 'embedding', interactions => 'public.events', "
                "options => jsonb_build_object('vector_index', %s::text))",
                [kind, kind],
            )
        drain(connection, batch_size=10_000)
        for kind in INDEXES:
            assert tend(connection, kind) == ["create", "vacuum"]
        yield connection


@pytest.mark.parametrize("kind", INDEXES)
@pytest.mark.parametrize("name", READS)
def test_reads_go_through_the_index(shops: Session, kind: str, name: str) -> None:
    model = 1 + list(INDEXES).index(kind)
    for _ in range(7):  # the server changes to generic plans after five executions
        with plans(shops) as messages:
            assert len(READS[name](shops, kind)) >= 10  # type: ignore[arg-type]
        executed = [line for plan in messages for line in plan.splitlines() if "never executed" not in line]
        assert any(f"Index Scan using {INDEXES[kind].format(model)} " in line for line in executed)


@pytest.mark.parametrize("kind", INDEXES)
@pytest.mark.parametrize("k", [10, 100])
def test_lists_are_compared_by_the_vectors(shops: Session, kind: str, k: int) -> None:
    """Scores are exact and in order, and nearly all of the nearest are found."""
    found = 0
    for item in range(100, 130):
        rows = call(shops, kind, "similar_items", item=str(item), k=k)
        exact = shops.execute(
            "select i.id::text, 1 - (i.embedding <=> q.embedding) from items i, items q where q.id = %s and i.id <> q.id order by 2 desc",
            [item],
        ).fetchall()
        scores: dict[str, float] = dict(exact)
        assert [score for _, score, _ in rows] == pytest.approx([scores[one] for one, _, _ in rows], abs=1e-5)
        assert [score for _, score, _ in rows] == sorted((score for _, score, _ in rows), reverse=True)
        found += len({one for one, _, _ in rows} & {one for one, _ in exact[:k]})
    assert found >= 0.95 * 30 * k


@pytest.mark.parametrize("kind", INDEXES)
def test_recall_is_measured_through_the_index(shops: Session, kind: str) -> None:
    with plans(shops) as messages:
        ((model, recall, queries),) = shops.execute(
            "select model_version, recall, queries from dynrec.index_recall(%s, 20, 50)", [kind]
        ).fetchall()
    assert queries == 50
    assert recall > 0.95
    assert any(f"Index Scan using {INDEXES[kind].format(model)} " in message for message in messages)


@pytest.mark.parametrize("kind", ["half", "binary"])
def test_smaller_is_smaller(shops: Session, kind: str) -> None:
    model = 1 + list(INDEXES).index(kind)
    full, smaller = (
        shops.execute("select pg_relation_size(%s)", [f"dynrec_data.{name}"]).fetchall()[0][0]
        for name in (INDEXES["full"].format(1), INDEXES[kind].format(model))
    )
    assert smaller < 0.9 * full


@pytest.mark.parametrize("bad", ['"float16"', "null", "2", '"Half"'])
def test_what_no_index_holds_is_refused(shop: Shop, bad: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=r"options\.vector_index") as caught:
        shop.execute("select dynrec.alter_recommender('shop', options => %s::jsonb)", [f'{{"vector_index": {bad}}}'])
    assert caught.value.diag.message_hint == (
        "Give full (vectors as they are stored), half (in half precision) or binary (three bits of each number)."
    )


def test_a_switch_leaves_no_moment_without_an_index(shop: Shop) -> None:
    connection = shop.connection
    tend(connection, "shop")

    def read_through() -> set[str]:
        with plans(connection) as messages:
            assert len(call(connection, "shop", "similar_items", item="1", k=5)) == 5
        return {kind for kind, name in INDEXES.items() if f"using {name.format(1)} " in "\n".join(messages)}

    for before, after in [("full", "binary"), ("binary", "half"), ("half", "full")]:
        shop.execute(
            "select dynrec.alter_recommender('shop', options => jsonb_build_object('vector_index', %s::text))", [after]
        )
        create, vacuum, use = statements(connection, "shop")
        assert read_through() == {before}
        connection.execute(use.encode())  # not before there is something to use
        assert read_through() == {before}
        connection.execute(create.encode())
        connection.execute(vacuum.encode())
        assert shop.execute("select indexed, vector_index from dynrec.model_versions") == [(True, before)]
        assert read_through() == {before}
        assert indexes(connection, 1) == {INDEXES[before].format(1), INDEXES[after].format(1)}
        connection.execute(use.encode())
        assert shop.execute("select indexed, vector_index from dynrec.model_versions") == [(True, after)]
        assert read_through() == {after}
        assert tend(connection, "shop") == ["drop"]
        assert indexes(connection, 1) == {INDEXES[after].format(1)}
        assert read_through() == {after}
        assert statements(connection, "shop") == []


def test_whoever_changes_their_mind_keeps_what_there_was(shop: Shop) -> None:
    tend(shop.connection, "shop")
    shop.execute("select dynrec.alter_recommender('shop', options => '{\"vector_index\": \"binary\"}')")
    shop.connection.execute(statements(shop.connection, "shop")[0].encode())
    shop.execute(
        "update pg_index set indisvalid = false where indexrelid = 'dynrec_data.item_vector_1_hnsw_binary'::regclass"
    )
    findings = [row[0] for row in shop.execute("select finding from dynrec.doctor() where subject = 'shop'")]
    assert "index dynrec_data.item_vector_1_hnsw_binary is invalid: building it was interrupted" in findings
    shop.execute("select dynrec.alter_recommender('shop', options => '{\"vector_index\": \"full\"}')")
    assert tend(shop.connection, "shop") == ["drop"]
    assert indexes(shop.connection, 1) == {"item_vector_1_hnsw"}


def test_an_interrupted_build_is_begun_again(shop: Shop) -> None:
    tend(shop.connection, "shop")
    shop.execute("select dynrec.alter_recommender('shop', options => '{\"vector_index\": \"half\"}')")
    shop.connection.execute(statements(shop.connection, "shop")[0].encode())
    shop.execute(
        "update pg_index set indisvalid = false where indexrelid = 'dynrec_data.item_vector_1_hnsw_half'::regclass"
    )
    assert tend(shop.connection, "shop") == ["drop"]
    assert tend(shop.connection, "shop") == ["create", "vacuum", "select"]
    assert tend(shop.connection, "shop") == ["drop"]
    assert shop.execute("select indexed, vector_index from dynrec.model_versions") == [(True, "half")]


def test_readers_and_writers_notice_nothing_of_a_switch(database_url: str, shop: Shop) -> None:
    tend(shop.connection, "shop")
    ended, failures, lists = threading.Event(), [], []

    def read() -> None:
        with database.connect(database_url) as connection:
            while not ended.is_set():
                try:
                    lists.append(len(call(connection, "shop", "similar_items", item="1", k=5)))
                except psycopg.Error as error:
                    failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for kind in ("half", "binary", "full") * 2:
            shop.execute(
                "select dynrec.alter_recommender('shop', options => jsonb_build_object('vector_index', %s::text))",
                [kind],
            )
            shop.execute("update shop.products set title = title || ' again' where id = 3")
            shop.drain()
            tend(shop.connection, "shop")
            tend(shop.connection, "shop")
            assert shop.execute("select indexed, vector_index from dynrec.model_versions") == [(True, kind)]
            shop.assert_items_right()
    finally:
        ended.set()
        for reader in readers:
            reader.join()
    assert failures == []
    assert set(lists) == {5}


def test_the_lengths_of_a_learned_models_vectors_count(shop: Shop) -> None:
    shop.execute("select dynrec.alter_recommender('shop', options => '{\"vector_index\": \"binary\"}')")
    model = learned.stage(shop.connection)
    learned.backfill(shop.connection)
    tend(shop.connection, "shop")
    assert shop.execute("select kind, indexed, vector_index from dynrec.model_versions order by model_version") == [
        ("content", True, "binary"),
        ("learned", True, "half"),
    ]
    shop.execute("select dynrec.promote_model('shop', %s)", [model])
    assert len(shop.call("similar_items", item="1", k=5)) == 5
    ((recall,),) = shop.execute("select recall from dynrec.index_recall('shop')")
    assert recall == 1


def test_low_recall_of_a_small_index_has_a_further_remedy(shop: Shop) -> None:
    shop.execute("select dynrec.alter_recommender('shop', options => '{\"vector_index\": \"binary\"}')")
    tend(shop.connection, "shop")
    shop.execute(
        "insert into dynrec_data.measurement (recommender_id, metric, at_k, slice, measured_at, model_id, value, n) "
        "values (1, 'index_recall_at_k', 10, 'all', now(), 1, 0.8, 50)"
    )
    ((remedy,),) = shop.execute("select remedy from dynrec.alerts where alert = 'index recall is low'")
    assert remedy.startswith("reindex index concurrently dynrec_data.item_vector_1_hnsw_binary; if it stays low: ")
    shop.execute(remedy.split("stays low: ")[1])
    assert shop.value("select options ->> 'vector_index' from dynrec_data.recommender") == "half"


def test_a_wider_probe_looks_at_more_and_finds_more(make_database: MakeDatabase, template: str) -> None:
    draw = np.random.default_rng(3)
    with database.connect(make_database(template)) as connection:
        connection.execute("create table items (id int primary key, embedding vector(256))")
        with connection.cursor() as cursor, cursor.copy("copy items from stdin") as copy:
            for n in range(1, 8001):
                copy.write_row(
                    (n, str(draw.normal(size=256).tolist()))
                )  # without clusters, where a graph has it hardest
        connection.execute(
            """
            select dynrec.create_recommender('wide', 'public.items', vector_column => 'embedding')
            """
        )
        drain(connection, batch_size=10_000)
        tend(connection, "wide")
        queries = [str(draw.normal(size=256).tolist()) for _ in range(40)]

        def searched(query: str) -> set[str]:
            return {item for item, _, _ in call(connection, "wide", "search", query_vector=query, k=10)}

        def nearest(query: str) -> set[str]:
            statement = "select id::text from items order by embedding <=> %s limit 10"
            return {str(row[0]) for row in connection.execute(statement, [query]).fetchall()}

        found = {}
        for probe in (100, 400):
            connection.execute(
                "select dynrec.alter_recommender('wide', options => jsonb_build_object('vector_probe', %s::int))",
                [probe],
            )
            found[probe] = sum(len(searched(query) & nearest(query)) for query in queries)
            assert len(call(connection, "wide", "similar_items", item="1", k=10, filter="id % 2 = 0")) == 10
        assert found[100] < found[400] > 0.95 * 10 * len(queries)


@pytest.mark.parametrize("probe", ["99", "1001", "150.5", "true", "null", '"100"'])
def test_what_no_probe_can_be(shops: Session, probe: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=r"options\.vector_probe") as caught:
        shops.execute(
            "select dynrec.alter_recommender('full', options => jsonb_build_object('vector_probe', %s::jsonb))", [probe]
        )
    assert caught.value.diag.message_hint == "Give 100 to 1000: more finds more of the nearest, and takes longer."
