"""The upkeep of the vector indexes: what is done after churn, how seldom, and after what went wrong."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from dynrec_store import database, queue
from dynrec_store.exceptions import DynrecError
from tests.drain import Session, drain
from workers.maintenance import build_indexes

ITEMS = 1500

INDEXES = """
    select c.relname from pg_index i join pg_class c on c.oid = i.indexrelid
    where i.indrelid = 'dynrec_data.item_vector_1'::regclass and c.relname ~ 'hnsw' order by 1
"""


@pytest.fixture
def churn(connection: Session) -> Session:
    """A recommender over 1500 vectors, indexed."""
    connection.execute(
        """
        create table items (id int primary key, embedding vector(3));
        insert into items select i, array[i, 1, 2]::vector from generate_series(1, 1500) i;
        select dynrec.create_recommender('churn', 'public.items', vector_column => 'embedding');
        """
    )
    drain(connection, batch_size=2000)
    assert tend(connection) == ["create", "vacuum (analyze)"]
    return connection


@pytest.fixture
def other(database_url: str) -> Iterator[Session]:
    with database.connect(database_url) as connection:
        yield connection


def replace(connection: Session, items: int = ITEMS) -> None:
    """Give items other vectors."""
    connection.execute(
        "update items set embedding = array[random() - 0.5, random() - 0.5, random() - 0.5]::vector where id <= %s",
        [items],
    )
    drain(connection, batch_size=2000)
    count(connection)


def count(connection: Session) -> None:
    """Let the server's statistics be those of now."""
    connection.execute("select pg_stat_force_next_flush()")
    connection.execute("select pg_stat_clear_snapshot()")


def tend(connection: Session) -> list[str]:
    """Do what a worker does for the indexes; how the statements began."""
    done = []
    while work := queue.begin_index_work(connection):
        queue.execute_index_statement(connection, work.statement)
        queue.end_index_work(connection, work, succeeded=True)
        count(connection)
        done.append(work.statement.partition(" dynrec_data")[0].partition(" index ")[0])
    return done


def waited(connection: Session) -> None:
    """The pause after a build is over."""
    connection.execute(
        "update dynrec_data.vector_index set not_before = now(), begun_at = begun_at - interval '2 hours'"
    )


@contextmanager
def open_transaction(connection: Session, statement: str, isolation: str) -> Iterator[None]:
    connection.execute(f"begin isolation level {isolation}".encode())
    connection.execute(statement.encode())
    try:
        yield
    finally:
        connection.execute("rollback")


def test_after_churn_the_index_is_rebuilt_before_the_vacuum(churn: Session) -> None:
    replace(churn)
    assert tend(churn) == ["reindex", "vacuum (analyze)"]
    assert tend(churn) == []


def test_a_storm_is_not_followed_by_builds_without_end(churn: Session) -> None:
    replace(churn)
    tend(churn)
    # of the time from the beginning of the build until another may begin it took a quarter, together with the vacuum
    ((share,),) = churn.execute(
        """
        select extract(epoch from built_at - begun_at) / extract(epoch from not_before - begun_at)
        from dynrec_data.vector_index
        """
    ).fetchall()
    assert 0 < share < 0.25
    churn.execute("update dynrec_data.vector_index set not_before = now() + interval '1 minute'")
    replace(churn)
    assert tend(churn) == []
    waited(churn)
    assert tend(churn) == ["reindex", "vacuum (analyze)"]


def test_what_cannot_be_vacuumed_is_not_rebuilt_again_and_again(churn: Session, other: Session) -> None:
    with open_transaction(other, "select pg_current_xact_id()", "read committed"):
        replace(churn)
        assert tend(churn) == ["reindex", "vacuum (analyze)"]
        ((dead,),) = churn.execute(
            "select n_dead_tup from pg_stat_all_tables where relid = 'dynrec_data.item_vector_1'::regclass"
        ).fetchall()
        assert dead >= ITEMS  # the transaction holds back the vacuum
        waited(churn)
        assert tend(churn) == []


def test_a_vacuum_leaves_the_index_alone_that_churned_again(churn: Session) -> None:
    replace(churn)
    work = queue.begin_index_work(churn)
    assert work is not None
    assert work.step == 3
    queue.execute_index_statement(churn, work.statement)
    replace(churn, 1200)  # as long as the build went on
    queue.end_index_work(churn, work, succeeded=True)
    count(churn)
    assert tend(churn) == ["vacuum (analyze, index_cleanup off)"]
    waited(churn)
    assert tend(churn) == ["reindex", "vacuum (analyze)"]


def test_entries_do_not_pile_up_in_a_storm_without_end(churn: Session) -> None:
    replace(churn)
    for cleaned in (False, True):
        work = queue.begin_index_work(churn)
        assert work is not None
        queue.execute_index_statement(churn, work.statement)
        replace(churn)
        queue.end_index_work(churn, work, succeeded=True)
        count(churn)
        assert tend(churn) == ["vacuum (analyze)" if cleaned else "vacuum (analyze, index_cleanup off)"]
        waited(churn)


# After its build a rebuild waits for those who may need the old rows; after it took the old index's place, for those who may use that.
@pytest.mark.parametrize(
    ("isolation", "statement", "left"),
    [
        ("repeatable read", "select 1", "item_vector_1_hnsw_ccnew"),
        ("read committed", "select from dynrec_data.item_vector_1", "item_vector_1_hnsw_ccold"),
    ],
)
def test_what_a_killed_rebuild_left_is_dropped(
    churn: Session, other: Session, database_url: str, isolation: str, statement: str, left: str
) -> None:
    replace(churn)
    with (
        open_transaction(other, statement, isolation),
        queue.connect(database_url, application_name="rebuilder") as worker,
    ):
        thread = threading.Thread(target=broken_off, args=[worker])
        thread.start()
        while left not in indexes(churn) or not waits(churn, "rebuilder"):
            time.sleep(0.01)
        churn.execute("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'rebuilder'")
        thread.join()
    assert indexes(churn) == ["item_vector_1_hnsw", left]
    assert tend(churn) == ["drop"]
    assert indexes(churn) == ["item_vector_1_hnsw"]
    waited(churn)
    assert tend(churn) == ["reindex", "vacuum (analyze)"]


def broken_off(worker: queue.Connection) -> None:
    with pytest.raises(DynrecError):
        build_indexes(worker)


def indexes(connection: Session) -> list[str]:
    return [name for (name,) in connection.execute(INDEXES.encode()).fetchall()]


def waits(connection: Session, who: str) -> bool:
    """Whether a session waits for the end of a transaction."""
    return connection.execute(
        "select count(*) > 0 from pg_locks l join pg_stat_activity a using (pid) where a.application_name = %s and not l.granted",
        [who],
    ).fetchall() == [(True,)]


def test_whoever_works_on_an_index_is_left_alone(churn: Session, other: Session) -> None:
    replace(churn)
    with open_transaction(other, "lock dynrec_data.item_vector_1 in share update exclusive mode", "read committed"):
        assert tend(churn) == []
    assert tend(churn) == ["reindex", "vacuum (analyze)"]


def test_a_build_does_not_wait_for_a_transaction_for_ever(
    churn: Session, other: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "INDEX_PATIENCE", "100ms")
    replace(churn)
    with open_transaction(other, "select 1", "repeatable read"), pytest.raises(DynrecError, match="lock timeout"):
        build_indexes(churn)
    assert churn.execute("show lock_timeout").fetchall() == [("0",)]
    assert tend(churn) == ["drop"]
    assert tend(churn) == []  # it failed: not at once
    ((again,),) = churn.execute(
        "select greatest(not_before, begun_at + interval '10 seconds') > now() from dynrec_data.vector_index where attempts = 1"
    ).fetchall()
    assert again
    waited(churn)
    assert tend(churn) == ["reindex", "vacuum (analyze)"]
    assert churn.execute("select attempts from dynrec_data.vector_index").fetchall() == [(0,)]


def test_an_index_that_cannot_be_built_holds_up_no_other(
    churn: Session, other: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "INDEX_PATIENCE", "100ms")
    churn.execute(
        """
        create table things (id int primary key, embedding vector(3));
        insert into things select i, array[i, 1, 2]::vector from generate_series(1, 20) i;
        select dynrec.create_recommender('things', 'public.things', vector_column => 'embedding');
        """
    )
    drain(churn)
    replace(churn)
    with open_transaction(other, "select from dynrec_data.item_vector_1", "read committed"):
        with pytest.raises(DynrecError, match="lock timeout"):
            build_indexes(churn)  # the drop of the old index of churn
        with pytest.raises(DynrecError, match="lock timeout"):
            build_indexes(churn)  # which is left for the end
    assert churn.execute("select dynrec._has_vector_index(2)").fetchall() == [(True,)]
