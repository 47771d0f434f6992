"""From a change to the vector of a learned model: by who published, at once, and by others where that goes wrong."""

from datetime import timedelta
from uuid import UUID, uuid4

import numpy as np
import psycopg
import pytest
from pgvector.psycopg import register_vector

from dynrec_store import models, queue
from dynrec_store.settings import Settings
from tests.conftest import Prepare
from tests.workers.support import Connection, drained, until
from tests.workers.worded import let_a_model_answer, worded_shop
from workers.context import Context
from workers.derive import recompute_derived
from workers.encoders import content_hash
from workers.encoders.hashing import HashingEncoder
from workers.exceptions import ModelUnavailable
from workers.inprocess import running
from workers.learning.run import train
from workers.recompute import recompute_items

LONG = timedelta(hours=1)
SMALL: dict[str, object] = {"epochs": 1, "learned": 8, "content": 8}


def begin(connection: Connection) -> None:
    """A shop where a learned model answers, and nothing waits."""
    let_a_model_answer(worded_shop(connection), SMALL)


@pytest.fixture
def beginning(prepared: Prepare) -> str:
    return prepared(begin).name


@pytest.fixture
def shop(connection: Connection) -> Connection:
    register_vector(connection)
    return connection


def learned(connection: Connection, item: str) -> np.ndarray | None:
    """The vector that the learned model has of an item."""
    row = connection.execute(
        "select v.embedding from dynrec_data.item_vector v join dynrec_data.recommender r on r.active_model_id = v.model_id "
        "where v.item_id = %s",
        [item],
    ).fetchone()
    return None if row is None else np.asarray(row[0].to_numpy())


def waiting(connection: Connection) -> list[tuple[str, int]]:
    """Kind and lane of the changes of items that wait or are worked on."""
    statement = "select kind, lane from dynrec_data.change where kind in ('item', 'derived') order by id"
    return connection.execute(statement).fetchall()


def published(context: Context, derived: UUID | None) -> dict[str, queue.Published]:
    """What becomes of the items that wait, encoded by hand."""
    claim, _ = context.call(queue.claim_items, "shop", 100, LONG, live_only=False)
    assert claim is not None
    rows = context.call(queue.read_items, claim.token)
    texts = list({row.content for row in rows if row.content is not None and row.needs_vector})
    vectors = list(HashingEncoder(256).encode(texts)) if texts else []
    return context.call(queue.publish_items, claim.token, rows, list(map(content_hash, texts)), vectors, derived, LONG)


def test_who_publishes_a_change_makes_the_learned_vector_as_well(shop: Connection, context: Context) -> None:
    before = learned(shop, "red-lamp")
    shop.execute("update products set title = 'wholly other' where id = 'red-lamp'")
    shop.execute("insert into products values ('ninth-lamp', 'ninth lamp', 'lamp', 9)")
    shop.execute("delete from products where id = 'old-lamp'")
    tally, more = recompute_items(context, "shop")
    assert (tally.published, more) == (3, False)
    assert waiting(shop) == []
    after, there = learned(shop, "red-lamp"), learned(shop, "ninth-lamp")
    assert after is not None
    assert before is not None
    assert not np.allclose(before, after)
    assert there is not None
    assert learned(shop, "old-lamp") is None
    # as the model makes them of what is stored, whoever asks
    shop.execute("select dynrec.refresh('shop')")
    drained(context)
    again = learned(shop, "ninth-lamp")
    assert again is not None
    np.testing.assert_allclose(again, there, atol=1e-5)


def test_freshness_is_told_of_both(shop: Connection, context: Context) -> None:
    shop.execute("update products set title = 'wholly other' where id = 'red-lamp'")
    recompute_items(context, "shop")
    told = [(meter["name"], meter["labels"], meter["value"]) for meter in context.meters.report()]
    for kind in ("item", "derived"):
        assert ("commit_to_fresh_seconds_count", {"kind": kind, "lane": "live"}, 1) in told
    of_item, of_derived = (float(str(value)) for name, _, value in told if name == "commit_to_fresh_seconds_sum")
    assert of_derived > of_item > 0


def test_a_backfill_is_left_to_be_claimed(shop: Connection, context: Context) -> None:
    shop.execute("update products set title = 'wholly other' where id = 'red-lamp'")
    shop.execute("update dynrec_data.change set lane = 1 where kind = 'item'")
    done = published(context, uuid4())
    assert done == {"red-lamp": queue.Published("published", derives=False)}
    assert waiting(shop) == [("derived", 1)]
    recompute_derived(context, "shop")
    assert waiting(shop) == []


def test_what_another_is_deriving_waits_for_it(shop: Connection, context: Context) -> None:
    shop.execute("update products set title = 'wholly other' where id = 'red-lamp'")
    published(context, None)
    theirs = context.call(queue.claim_batch, "shop", "derived", 10, LONG, live_only=False)
    assert theirs is not None
    shop.execute("update products set title = 'something else' where id in ('red-lamp', 'new-lamp')")
    assert {item: done.derives for item, done in published(context, uuid4()).items()} == {
        "red-lamp": False,
        "new-lamp": True,
    }
    assert context.call(queue.leased_entities, theirs.token) == ["red-lamp"]
    context.call(models.release_derived, theirs.token)
    assert waiting(shop) == [("derived", 0), ("derived", 0)]  # of which one is leased


def test_what_waited_already_is_used_up_with_it(shop: Connection, context: Context) -> None:
    for title in ("wholly other", "something else"):
        shop.execute("update products set title = %s where id = 'red-lamp'", [title])
        published(context, token := uuid4() if title == "something else" else None)
    assert waiting(shop) == [("derived", 0), ("derived", 0)]
    assert token is not None
    assert context.call(queue.leased_entities, token) == ["red-lamp"]
    (model,) = context.call(models.derived_models, "shop")
    (row,) = context.call(models.read_derived, token, model.model_id)
    vector = np.ones(model.dimension, dtype=np.float32)
    contexts = [np.ones(n, dtype=np.float32) for n in _lengths(shop, model.model_id)]
    published_by = context.call(
        models.publish_derived, token, model.model_id, [row.item_id], [vector], contexts, releases=True
    )
    assert published_by == {"red-lamp": "published"}
    assert waiting(shop) == []
    assert context.call(queue.leased_entities, token) == []


def _lengths(connection: Connection, model: int) -> list[int]:
    """How long the contexts of an item are, head by head."""
    rows = connection.execute(
        "select vector_dims(c) from (select contexts from dynrec_data.item_vector where model_id = %s limit 1) v, "
        "unnest(v.contexts) with ordinality as u (c, n) order by n",
        [model],
    )
    return [length for (length,) in rows]


def test_nothing_is_leased_of_a_recommender_that_is_being_dropped(
    shop: Connection, context: Context, database_url: str
) -> None:
    shop.execute("update products set title = 'wholly other' where id = 'red-lamp'")
    claim, _ = context.call(queue.claim_items, "shop", 100, LONG, live_only=False)
    assert claim is not None
    rows = context.call(queue.read_items, claim.token)
    vectors = [np.ones(256, dtype=np.float32) for _ in rows]
    with psycopg.connect(database_url) as dropping:
        dropping.execute(
            "select pg_advisory_xact_lock(hashtext('dynrec.drop'), id) from dynrec_data.recommender where name = 'shop'"
        )
        done = context.call(
            queue.publish_items,
            claim.token,
            rows,
            [content_hash(str(row.content)) for row in rows],
            vectors,
            uuid4(),
            LONG,
        )
    assert done == {"red-lamp": queue.Published("published", derives=False)}


def test_who_dies_between_the_two_leaves_it_to_another(shop: Connection, context: Context) -> None:
    shop.execute("update products set title = 'wholly other' where id = 'red-lamp'")
    before = learned(shop, "red-lamp")
    assert published(context, uuid4())["red-lamp"].derives
    # that was the last of it
    assert recompute_derived(context, "shop")[0].claimed == 0
    shop.execute("update dynrec_data.lease set deadline = now() - interval '1 second'")
    assert context.call(queue.expire_leases) == 1
    assert recompute_derived(context, "shop")[0].published == 1
    assert waiting(shop) == []
    assert not np.allclose(before, learned(shop, "red-lamp"))  # type: ignore[arg-type]


def test_a_model_that_cannot_be_loaded_keeps_no_other_from_its_vectors(
    shop: Connection, context: Context, settings: Settings, database_url: str
) -> None:
    with running(settings, database_url):
        other = train(settings, database_url, "shop", options=SMALL)
        state = "select state = 'shadow' from dynrec.model_versions where model_version = %s"
        until(lambda: shop.execute(state, [other]).fetchone() == (True,))
    active = shop.execute("select active_model_id from dynrec_data.recommender").fetchall()[0][0]
    towers = context.towers

    def broken(model: int) -> object:
        if model == active:
            raise ModelUnavailable("the artefacts are gone")
        return towers(model)

    context.towers = broken  # type: ignore[method-assign,assignment]
    shop.execute("insert into products values ('ninth-lamp', 'ninth lamp', 'lamp', 9)")
    tally, _ = recompute_items(context, "shop")
    assert tally.published == 1
    made = "select model_id = %s from dynrec_data.item_vector where item_id = 'ninth-lamp' and model_id in (%s, %s)"
    assert shop.execute(made, [other, other, active]).fetchall() == [(True,)]
    failures = shop.execute("select kind, entity, error from dynrec.failures").fetchall()
    assert failures == [("derived", "ninth-lamp", "the artefacts are gone")]
    context.towers = towers  # type: ignore[method-assign]
    shop.execute("update dynrec_data.retry set not_before = now()")
    context.call(queue.release_retries)
    recompute_derived(context, "shop")
    assert learned(shop, "ninth-lamp") is not None
    assert waiting(shop) == []
