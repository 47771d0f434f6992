"""FeatureStore against a real database."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray
from sqlalchemy import create_engine

from dynrec_store import database
from dynrec_store.exceptions import (
    ConfigurationError,
    ConnectionFailedError,
    DatabaseError,
    InvalidArgumentError,
    NotMigratedError,
    UnknownNameError,
)
from dynrec_store.queue import Encoding
from dynrec_store.results import Alteration, Recommendation
from dynrec_store.store import FeatureStore
from tests.drain import drain
from workers.encoders.hashing import HashingEncoder


@pytest.fixture
def store(shop_url: str) -> Iterator[FeatureStore]:
    with FeatureStore.connect(shop_url) as opened:
        yield opened


def ids(rows: list[Recommendation]) -> list[str]:
    assert [row.rank for row in rows] == list(range(1, len(rows) + 1))
    return [row.item_id for row in rows]


def test_recommends_what_is_like_the_last_purchase(store: FeatureStore) -> None:
    rows = store.recommend("shop", 42, k=2)
    assert rows[0].item_id == "2"
    assert rows[0].source == "personal"
    with pytest.raises(FrozenInstanceError):
        rows[0].rank = 5  # type: ignore[misc]


def test_an_interaction_that_was_just_committed_counts(store: FeatureStore, shop_url: str) -> None:
    with database.connect(shop_url) as connection:
        connection.execute("insert into purchase (user_id, item_id, kind) values (7, 4, 'buy')")
    assert store.recommend("shop", "7", k=1)[0].item_id == "3"


def test_arguments_of_lists_reach_the_database(store: FeatureStore) -> None:
    cheap = store.recommend("shop", 42, filter="price < (args->>'top')::int", filter_args={"top": 30})
    assert set(ids(cheap)) == {"3", "4"}
    assert "1" in ids(store.recommend("shop", 42, exclude_seen=False))
    assert "2" not in ids(store.recommend("shop", 42, exclude_items=[2], diversity=0.5))
    before = datetime.now(UTC) - timedelta(days=1)
    assert store.recommend("shop", 42, as_of=before) == []  # there were no items then


def test_other_lists(store: FeatureStore) -> None:
    assert store.similar_items("shop", 3, k=1)[0].item_id == "4"
    assert store.recommend_for_items("shop", [3], k=1)[0].item_id == "4"
    assert store.trending("shop", k=1)[0].item_id == "3"


def test_evaluates_a_moment(store: FeatureStore, shop_url: str) -> None:
    begin = datetime.now(UTC)
    with database.connect(shop_url) as connection:
        connection.execute("insert into purchase (user_id, item_id, kind) values (42, 2, 'buy'), (43, 2, 'buy')")
    end = datetime.now(UTC)
    lists = {one.user_id: one for one in store.evaluation_lists("shop", begin, end, k=2, user_ids=["42", "43"])}
    assert lists.keys() == {"42", "43"}
    assert lists["42"].recommended == ids(store.recommend("shop", 42, k=2, as_of=begin))
    assert (lists["42"].relevant, lists["42"].is_new, len(lists["42"].scores)) == (["2"], False, 2)
    rows = {(row.metric, row.at_k): row for row in store.evaluate("shop", begin, end, k=[1, 5], category=None)}
    assert (rows["recall_at_k", 5].value, rows["recall_at_k", 5].n) == (1, 2)
    assert rows["hit_rate_at_k", 1].value >= 0.5
    compared = store.compare_models("shop", begin, end, 1, 1)
    assert {(row.difference, row.wins, row.losses) for row in compared} == {(0, 0, 0)}
    with pytest.raises(InvalidArgumentError, match="had no vectors"):
        store.evaluate("shop", begin - timedelta(days=1), end)


def test_recall_of_the_index(store: FeatureStore) -> None:
    found = store.index_recall("shop", k=3, sample=4)
    assert (found.model_version, found.recall, found.queries) == (1, 1, 4)


def test_notes_what_was_shown(store: FeatureStore, shop_url: str) -> None:
    begin = datetime.now(UTC)
    shown = ids(store.recommend("shop", 42, k=2))
    assert store.log_impressions("shop", [{"user_id": 42, "item_ids": shown, "surface": "home"}]) == 1
    with database.connect(shop_url) as connection:
        connection.execute("insert into purchase (user_id, item_id, kind) values (42, %s, 'buy')", [shown[1]])
    (found,) = store.online_metrics(
        "shop", begin, datetime.now(UTC), by=["surface"], within=timedelta(hours=1), conversion_kinds=["buy"]
    )
    assert (found.surface, found.lists, found.impressions, found.users) == ("home", 1, 2, 1)
    assert (found.click_through, found.conversion, found.click_through_error) == (0.5, 0.5, None)
    with pytest.raises(InvalidArgumentError, match="impression 1: item_ids"):
        store.log_impressions("shop", [{"user_id": 42}])


def test_explains_by_the_purchase_that_speaks_for_it(store: FeatureStore) -> None:
    (because,) = store.explain("shop", 42, 2, k=1)
    assert because.because_item_id == "1"
    assert because.kind == "buy"
    assert "red running shoes" in because.reason


def test_vectors_and_versions(store: FeatureStore, shop_url: str) -> None:
    with database.connect(shop_url) as connection:
        connection.execute("update product set title = 'a red bicycle' where id = 1")
        drain(connection)
    first, second = store.item_history("shop", 1)
    assert (first.is_current, second.is_current) == (False, True)
    assert second.features == {"price": 40}
    now = store.item_vector_at("shop", 1)
    assert now is not None
    assert now.dtype == np.float32
    np.testing.assert_allclose(now, HashingEncoder().encode(["a red bicycle"])[0], atol=1e-6)
    assert second.embedding is not None
    np.testing.assert_array_equal(second.embedding, now)
    before, after = store.drift("shop", 1)
    assert before.cosine_distance is None
    assert after.cosine_distance is not None
    assert 0 < after.cosine_distance <= 2
    user = store.user_vector_at("shop", 42)
    assert user is not None
    assert np.linalg.norm(user) == pytest.approx(1, abs=1e-5)
    assert store.user_vector_at("shop", 999) is None


def test_search_by_words_and_by_meaning(store: FeatureStore) -> None:
    assert ids(store.search("shop", "hat", text_only=True)) == ["3", "4"]
    assert store.search("shop", "green hat", k=1)[0].item_id == "3"  # the recommender's own encoder
    vector = HashingEncoder().encode(["a long coat"])[0]
    assert store.search("shop", query_vector=vector, k=1)[0].item_id == "5"
    with pytest.raises(InvalidArgumentError, match="256 dimensions"):
        store.search("shop", query_vector=[1.0, 2.0])
    with pytest.raises(InvalidArgumentError, match=r"query_vector: .*\(1, 256\)"):
        store.search("shop", query_vector=[vector])


def test_vectors_of_a_pgvector_that_is_not_on_the_search_path(shop_vector_elsewhere_url: str) -> None:
    with FeatureStore.connect(shop_vector_elsewhere_url) as store:
        vector = store.item_vector_at("shop", 5)
        assert vector is not None
        assert vector.shape == (256,)
        assert store.search("shop", query_vector=vector, k=1)[0].item_id == "5"


def test_search_takes_the_applications_encoder(shop_url: str) -> None:
    asked: list[tuple[Encoding, str]] = []

    def encode(encoding: Encoding, text: str) -> NDArray[np.float32]:
        asked.append((encoding, text))
        vector: NDArray[np.float32] = HashingEncoder().encode(["a long coat"])[0]
        return vector

    with FeatureStore.connect(shop_url, encode=encode) as store:
        assert store.search("shop", "something for the rain", k=1)[0].item_id == "5"
    assert asked == [(Encoding("hashing", "hashing", "", 256, adopted=False), "something for the rain")]


def test_search_of_adopted_vectors_wants_the_vector(shop_url: str) -> None:
    with database.connect(shop_url) as connection, FeatureStore.connect(shop_url) as store:
        connection.execute("create table adopted (id int primary key, embedding vector(3))")
        connection.execute("insert into adopted values (1, '[1,0,0]'), (2, '[0,1,0]')")
        store.create_recommender("adopted", "public.adopted", vector_column="embedding")
        drain(connection)
        assert store.search("adopted", query_vector=[1, 0, 0], k=1)[0].item_id == "1"
        with pytest.raises(InvalidArgumentError, match="query_vector"):
            store.search("adopted", "shoes")


def test_alter_counts_before_it_changes(store: FeatureStore) -> None:
    wanted: dict[str, Any] = {"text_columns": ["title", "price"]}
    assert store.alter_recommender("shop", **wanted, dry_run=True) == Alteration(5, 0)
    assert store.queue() == []
    assert store.alter_recommender("shop", **wanted).items_to_recompute == 5
    assert [(line.kind, line.entities) for line in store.queue() if line.kind == "item"] == [("item", 5)]


def test_refresh_and_waiting(store: FeatureStore, shop_url: str) -> None:
    assert store.wait_until_fresh("shop", timeout=0)
    assert store.refresh("shop", item_ids=[1, 2], user_ids=[42]) == 3
    assert not store.wait_until_fresh("shop", timeout=0.01)
    with database.connect(shop_url) as connection:
        drain(connection)
    assert store.wait_until_fresh("shop", timeout=0)
    assert store.retry_failed() == 0
    assert store.failures() == []


def test_operating_views(store: FeatureStore) -> None:
    store.pause("shop")
    (status,) = store.status()
    assert (status.recommender, status.paused, status.items, status.dispatchers) == ("shop", True, "public.product", 0)
    store.resume("shop")
    assert not store.status()[0].paused
    assert {(line.kind, line.entities, line.stale) for line in store.freshness()} == {("item", 5, 0), ("user", 3, 0)}
    (model,) = store.model_versions()
    assert (model.encoder, model.items, model.users, model.dimension) == ("hashing", 5, 3, 256)
    assert "dispatcher" in {finding.subject for finding in store.doctor() if finding.severity == "error"}


def test_encoders(store: FeatureStore) -> None:
    store.register_encoder("small", family="hashing", model="", dimension=16)
    known = {one.encoder: one for one in store.encoders()}
    assert known["small"].dimension == 16
    assert (known["hashing"].recommenders, known["small"].recommenders) == (1, 0)


def test_drop(store: FeatureStore) -> None:
    store.drop_recommender("shop")
    assert store.status() == []
    with pytest.raises(UnknownNameError):
        store.recommend("shop", 42)


def test_errors_name_the_value_and_the_remedy(store: FeatureStore) -> None:
    with pytest.raises(UnknownNameError, match=r"'shoop'.*\nDeclared are: 'shop'") as unknown:
        store.recommend("shoop", 42)
    assert unknown.value.hint == "Declared are: 'shop'."
    with pytest.raises(InvalidArgumentError, match="0"):
        store.recommend("shop", 42, k=0)
    with pytest.raises(DatabaseError, match="999"):
        store.similar_items("shop", 999)
    with pytest.raises(DatabaseError):
        store.recommend("shop", 42, filter="no_such_column")
    assert store.recommend("shop", 42, k=1)  # an error leaves nothing behind


def test_says_what_a_database_without_dynrec_needs(empty_database_url: str) -> None:
    with (
        FeatureStore.connect(empty_database_url) as store,
        pytest.raises(NotMigratedError, match="dynrec migrate"),
    ):
        store.recommend("shop", 42)


def test_connect_fails_at_once(shop_url: str) -> None:
    with pytest.raises(ConnectionFailedError, match="nowhere"):
        FeatureStore.connect(shop_url + "_nowhere")


def test_uses_the_applications_engine(shop_url: str) -> None:
    engine = create_engine(database.psycopg_url(shop_url).replace("postgresql://", "postgresql+psycopg://"))
    with FeatureStore(engine) as store:
        assert store.recommend("shop", 42, k=1)[0].item_id == "2"
        assert store.refresh("shop", item_ids=[1]) == 1
    with FeatureStore(engine) as again:  # still open, and what was queued is committed
        assert [line.entities for line in again.queue()] == [1]
    engine.dispose()


def test_refuses_an_engine_of_another_driver() -> None:
    engine = create_engine("sqlite://")
    with pytest.raises(ConfigurationError, match=r"pysqlite.*psycopg"):
        FeatureStore(engine)


def test_uses_the_applications_pool(shop_url: str) -> None:
    class Pool:
        """As psycopg_pool.ConnectionPool, of one connection."""

        @contextmanager
        def connection(self) -> Iterator[psycopg.Connection[Any]]:
            with psycopg.connect(shop_url) as connection:
                yield connection

    store = FeatureStore(Pool())
    assert store.recommend("shop", 42, k=1)[0].item_id == "2"
    assert store.refresh("shop", item_ids=[1]) == 1
    assert [line.entities for line in store.queue()] == [1]


def test_the_call_after_a_lost_connection_works(store: FeatureStore, shop_url: str) -> None:
    assert store.recommend("shop", 42)
    with database.connect(shop_url) as connection:
        connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'dynrec store'"
        )
    assert store.recommend("shop", 42)


def test_a_connection_lost_in_a_call_is_an_error_of_dynrec(store: FeatureStore) -> None:
    with pytest.raises(ConnectionFailedError):
        store.recommend("shop", 42, filter="pg_terminate_backend(pg_backend_pid())")
    assert store.recommend("shop", 42)
