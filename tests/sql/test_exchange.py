"""Another encoder under a recommender in use: what comes with a promotion, what is not lost in it, what is refused."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import LiteralString

import numpy as np
import psycopg
import pytest

from dynrec_store import database, queue
from tests.drain import Encodes, claim, publish, read, run_tasks
from tests.learned import backfill, derive, make_config, stage
from tests.sql.shop import NOON, Event, Shop
from tests.workers.support import until
from workers.encoders.hashing import HashingEncoder

OLD, NEW = HashingEncoder(256), HashingEncoder(16)
STATES = "select model_version, state from dynrec.model_versions where state <> 'retired'"


@pytest.fixture
def events(shop: Shop) -> Shop:
    shop.add_events(Event(f"u{n % 4}", str(1 + n % 9), NOON, "view") for n in range(20))
    shop.drain()
    return shop


def stage_encoder(shop: Shop) -> int:
    """A content space of 16 dimensions, complete in the shadow."""
    shop.execute("select dynrec.register_encoder('small', 'hashing', '', 16)")
    space: int = shop.value("select dynrec.stage_model('shop', encoder => 'small')")
    backfill(shop.connection)
    assert dict(shop.execute(STATES))[space] == "shadow"
    return space


def promote(shop: Shop, model: int | None = None) -> int:
    promoted: int = shop.value("select dynrec.promote_model('shop', %s)", [model])
    return promoted


def in_use(shop: Shop) -> tuple[int, int]:
    """The model version that answers, and the one that a search answers from."""
    ((answers, *_),) = shop.execute("select distinct model_version from dynrec.recommend('shop', 'u1')")
    ((searches, *_),) = shop.execute("select distinct model_version from dynrec.search('shop', 'lamp')")
    return answers, searches


def catch_up(shop: Shop, encoder: Encodes) -> None:
    """All that waits, with the recommender's encoder of the moment, until it leaves nothing to do."""
    for _ in range(3):
        shop.drain(encoder)
        derive(shop.connection, "shop")
    assert shop.queued() == set()


def assert_encoded(shop: Shop, space: int, encoder: Encodes) -> None:
    """Every item has, in this space, the vector of the text that its row has now."""
    texts = shop.texts()
    rows = shop.execute("select item_id, embedding::text from dynrec_data.item_vector where model_id = %s", [space])
    stored = {item: np.array(json.loads(vector)) for item, vector in rows}
    assert stored.keys() == texts.keys()
    for item, vector in zip(texts, encoder.encode(list(texts.values())), strict=True):
        np.testing.assert_allclose(stored[item], vector, atol=1e-6)


def refused(shop: Shop, statement: LiteralString, message: str, *arguments: object) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=message):
        shop.execute(statement, arguments)


def test_a_learned_model_brings_its_content_space_and_takes_it_back(events: Shop) -> None:
    first = stage(events.connection)
    backfill(events.connection)
    promote(events)
    space = stage_encoder(events)
    second = stage(events.connection, make_config(1), base_model=space)
    backfill(events.connection)
    assert in_use(events) == (first, 1)
    assert promote(events) == second
    assert in_use(events) == (second, space)
    assert dict(events.execute(STATES)) == {1: "standby", first: "standby", space: "standby", second: "active"}
    events.execute("update shop.products set title = 'wholly other' where id = 2")
    catch_up(events, NEW)
    assert_encoded(events, space, NEW)
    assert_encoded(events, 1, OLD)
    assert events.value("select dynrec.rollback_model('shop')") == first
    assert in_use(events) == (first, 1)
    events.execute("update shop.products set title = 'another still' where id = 3")
    catch_up(events, OLD)
    assert_encoded(events, space, NEW)
    assert_encoded(events, 1, OLD)
    assert events.value("select dynrec.rollback_model('shop')") == second
    assert in_use(events) == (second, space)


def test_a_content_space_that_a_model_is_made_of_stays(events: Shop) -> None:
    space = stage_encoder(events)
    staged = events.value("select dynrec.stage_model('shop', base_model => %s)", [space])
    refused(events, "select dynrec.retire_model('shop', %s)", f"model version {staged} is made of its vectors", space)
    events.execute("select dynrec.retire_model('shop', %s)", [staged])
    model = stage(events.connection, base_model=space)
    backfill(events.connection)
    promote(events, model)
    refused(events, "select dynrec.retire_model('shop', %s)", "is in use", space)
    events.execute("select dynrec.rollback_model('shop')")
    refused(events, "select dynrec.retire_model('shop', %s)", f"model version {model} is made of its vectors", space)


@pytest.mark.parametrize("learned", [False, True])
def test_what_waited_for_the_other_space_is_not_lost(events: Shop, *, learned: bool) -> None:
    """A text that was published in the old space alone when the new one took over."""
    space = stage_encoder(events)
    model = space
    if learned:
        model = stage(events.connection, base_model=space)
        backfill(events.connection)
    events.execute("update shop.products set title = 'wholly other' where id in (2, 3)")
    events.execute("delete from shop.products where id = 4")
    events.drain()
    # one of them is being derived, and its worker is late
    token = claim(events.connection, "shop", "derived", 1)
    promote(events, model)
    ((outcome,),) = events.execute(
        "select outcome from dynrec._publish_derived(%s, %s, '{2}', array[%s::text]::vector[], '{}')",
        [token, space, "[" + ",".join(["0.25"] * 16) + "]"],
    )
    assert outcome == "superseded"
    catch_up(events, NEW)
    assert_encoded(events, space, NEW)
    assert_encoded(events, 1, OLD)


def test_what_was_encoded_for_the_other_space_is_given_up(events: Shop) -> None:
    space = stage_encoder(events)
    events.execute("update shop.products set title = 'wholly other' where id = 2")
    token = claim(events.connection, "shop", "item")
    assert token is not None
    rows = read(events.connection, token)
    promote(events, space)
    assert publish(events.connection, token, rows, OLD) == {"2": "superseded"}
    catch_up(events, NEW)
    assert_encoded(events, space, NEW)
    assert_encoded(events, 1, OLD)


def claim_items(connection: queue.Connection) -> tuple[int, str | None]:
    """How many items a worker gets, and what it encodes them by."""
    batch, encoding = queue.claim_items(connection, "shop", 10, timedelta(hours=1), live_only=False)
    return (batch.entities if batch else 0), encoding.encoder


def test_nothing_is_claimed_in_the_middle_of_an_exchange(events: Shop, database_url: str) -> None:
    space = stage_encoder(events)
    events.execute("update shop.products set title = 'wholly other' where id = 2")
    with (
        queue.connect(database_url, application_name="test") as worker,
        database.connect(database_url, autocommit=False) as admin,
    ):
        admin.execute("select dynrec.promote_model('shop', %s)", [space])
        assert claim_items(worker) == (0, "hashing")
        admin.commit()
        assert claim_items(worker) == (1, "small")


def test_an_exchange_waits_for_claims(events: Shop, database_url: str) -> None:
    space = stage_encoder(events)
    events.execute("update shop.products set title = 'wholly other' where id = 2")
    with ThreadPoolExecutor(1) as pool, database.connect(database_url, autocommit=False) as worker:
        token = claim(worker, "shop", "item")
        promoting = pool.submit(promote, events, space)
        with database.connect(database_url) as observer:
            waits = b"select exists (select from pg_locks where locktype = 'advisory' and not granted)"
            until(lambda: observer.execute(waits).fetchone() == (True,))
        worker.commit()
        promoting.result()
        assert worker.execute("select dynrec._leased_entities(%s)", [token]).fetchone() == ([],)


def test_a_claim_that_began_before_an_exchange_encodes_by_the_new_encoder(events: Shop, database_url: str) -> None:
    space = stage_encoder(events)
    events.execute("update shop.products set title = 'wholly other' where id = 2")
    # claims stop at their first step, with the snapshot that they began with, while somebody has this lock
    events.execute("""
        create or replace function dynrec._is_staying(recommender_id int) returns boolean language sql
        as $$ select pg_advisory_xact_lock_shared(1) is not null $$""")
    waits = b"select exists (select from pg_locks where locktype = 'advisory' and not granted)"
    with ThreadPoolExecutor(1) as pool, queue.connect(database_url, application_name="test") as worker:
        events.execute("select pg_advisory_lock(1)")
        claiming = pool.submit(claim_items, worker)
        until(lambda: events.connection.execute(waits).fetchone() == (True,))
        promote(events, space)
        events.execute("select pg_advisory_unlock(1)")
        assert claiming.result() == (1, "small")


def test_nothing_goes_back_to_an_encoder_by_itself(events: Shop) -> None:
    space = stage_encoder(events)
    late = stage(events.connection, options={"promote": True})
    promote(events, space)
    backfill(events.connection, encoder=NEW)
    assert dict(events.execute(STATES))[late] == "shadow"
    assert in_use(events) == (space, space)


def test_a_model_of_another_encoder_is_promoted_by_itself_where_that_was_asked_for(events: Shop) -> None:
    space = stage_encoder(events)
    model = stage(events.connection, base_model=space, options={"promote": True})
    backfill(events.connection)
    assert in_use(events) == (model, space)


def test_an_exchange_needs_to_see_what_was_claimed_meanwhile(events: Shop) -> None:
    space = stage_encoder(events)
    with pytest.raises(psycopg.errors.InvalidTransactionState, match="cannot be exchanged under repeatable read"):
        events.connection.execute(
            f"begin isolation level repeatable read; select dynrec.promote_model('shop', {space})".encode()
        )
    events.execute("rollback")
    assert promote(events, space) == space


def test_training_waits_for_the_vectors_of_its_encoder(events: Shop) -> None:
    space = stage_encoder(events)
    staged = {
        events.value("select dynrec.stage_model('shop')"),
        events.value("select dynrec.stage_model('shop', base_model => %s)", [space]),
    }
    waiting = "select model_id from dynrec._staged_models()"
    assert {model for (model,) in events.execute(waiting)} == staged
    events.execute("select * from dynrec.alter_recommender('shop', text_columns => '{title}', numeric_columns => '{}')")
    events.drain()
    assert {model for (model,) in events.execute(waiting)} == {min(staged)}
    backfill(events.connection)
    assert {model for (model,) in events.execute(waiting)} == staged


def test_what_another_encoder_fails_at_reaches_the_model_in_use(events: Shop) -> None:
    model = stage(events.connection)
    backfill(events.connection)
    space = stage_encoder(events)
    beside = stage(events.connection, base_model=space)
    order = [model for (model,) in events.execute("select model_id from dynrec._derived_models('shop')")]
    assert order == [model, space, beside]


def test_what_a_model_cannot_be_made_of(events: Shop) -> None:
    space = stage_encoder(events)
    learned = stage(events.connection)
    staging = "select dynrec.stage_model('shop', base_model => %s)"
    refused(events, staging, "no such model version: '99'", 99)
    refused(events, staging, f"model version {learned} is a learned one", learned)
    refused(events, "select dynrec.stage_model('shop', encoder => 'small', base_model => %s)", "base_model", space)
    refused(events, "select dynrec.stage_model('shop', continue_active => true, base_model => 1)", "base_model")
    events.execute("select dynrec.retire_model('shop', %s)", [space])
    refused(events, staging, "no vectors to learn from: it is retired", space)
    again = events.value("select dynrec.stage_model('shop', encoder => 'small')")
    refused(events, staging, "no vectors to learn from: it is backfilling", again)


def outdated(shop: Shop) -> int:
    """How many items an alteration that changes nothing of them would recompute."""
    statement = "select items_to_recompute from dynrec.alter_recommender('signs', options => '{}', dry_run => true)"
    return int(shop.value(statement))


@pytest.fixture
def signs(shop: Shop) -> Shop:
    """A recommender that went from an adopted vector column to an encoder; of items 1 and 2 something changed since."""
    shop.execute("""
        create table signs (id int primary key, title text, direction vector(3));
        insert into signs select i, 'sign ' || i, array[i, 1, 0]::vector from generate_series(1, 5) i;
        select dynrec.register_encoder('small', 'hashing', '', 16);
        select dynrec.create_recommender('signs', 'public.signs', text_columns => '{title}', vector_column => 'direction')""")
    signs = Shop(shop.connection, "signs", "", None)
    signs.drain()
    signs.execute("select dynrec.stage_model('signs', encoder => 'small')")
    backfill(signs.connection, "signs")
    signs.execute("select dynrec.promote_model('signs')")
    assert outdated(signs) == 0
    signs.execute("update signs set title = 'other' where id = 1")
    signs.execute("update signs set direction = '[0,3,4]' where id = 2")
    backfill(signs.connection, "signs", NEW)
    return signs


def test_an_alteration_recomputes_nothing_for_an_exchange(signs: Shop) -> None:
    assert outdated(signs) == 0
    signs.execute("select dynrec.rollback_model('signs')")
    assert outdated(signs) == 0
    signs.execute("update signs set title = 'another' where id in (2, 3)")
    backfill(signs.connection, "signs", NEW)
    assert outdated(signs) == 0
    signs.execute("select dynrec.rollback_model('signs')")
    assert outdated(signs) == 0
    signs.execute("update signs set title = title || '!'")
    backfill(signs.connection, "signs", NEW)
    adopted = signs.value("select min(model_version) from dynrec.model_versions where recommender = 'signs'")
    signs.execute("select dynrec.retire_model('signs', %s)", [adopted])
    assert outdated(signs) == 0


def test_what_nobody_captured_is_found_after_an_exchange(signs: Shop) -> None:
    """Texts, and vectors that a space on standby adopts, whether the stored hash covers the vector or not."""
    signs.execute("set session_replication_role = replica")
    signs.execute("update signs set title = 'unheard' where id in (1, 3)")
    signs.execute("update signs set direction = '[0,0,1]' where id in (2, 4)")
    signs.execute("set session_replication_role = origin")
    assert outdated(signs) == 4
    signs.execute("select * from dynrec.alter_recommender('signs', options => '{}')")
    assert {entity for kind, entity in signs.queued() if kind == "item"} == {"1", "2", "3", "4"}
    backfill(signs.connection, "signs", NEW)
    assert outdated(signs) == 0
    signs.execute("select dynrec.rollback_model('signs')")
    vectors = signs.item_vectors(["2", "4"])
    assert all(vector is not None and vector.tolist() == [0, 0, 1] for vector in vectors.values())


def test_a_batch_finds_after_an_exchange_what_moved_and_that_alone(signs: Shop) -> None:
    signs.execute("""
        select * from dynrec.alter_recommender('signs', options => '{"capture": "batch", "batch_every": "1 hour"}')""")
    backfill(signs.connection, "signs", NEW)

    def batch() -> set[tuple[str, str]]:
        signs.execute("update dynrec_data.recommender set batched_at = now() - interval '1 hour' where name = 'signs'")
        signs.execute("select dynrec._queue_batches()")
        run_tasks(signs.connection)
        return signs.queued()

    assert batch() == set()
    signs.execute("update signs set direction = '[0,0,1]' where id in (2, 4)")
    assert batch() == {("item", "2"), ("item", "4")}
    backfill(signs.connection, "signs", NEW)
    assert batch() == set()
