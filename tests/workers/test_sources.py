"""What training reads of a recommender's tables: in one order, as items were, without what cannot have happened."""

import numpy as np
import pytest

from dynrec_store import models, queue
from dynrec_store.settings import Settings
from tests.workers.support import PATIENCE, Connection, fresh
from tests.workers.worded import worded_shop
from workers.inprocess import running
from workers.learning.run import train
from workers.learning.source import read_sources


@pytest.fixture
def shop(connection: Connection) -> Connection:
    return worded_shop(connection)


def test_training_reads_ties_in_one_order(shop: Connection, database_url: str) -> None:
    shop.execute("update clicks set occurred_at = date_trunc('day', occurred_at)")
    ((model,),) = shop.execute("select dynrec.stage_model('shop')").fetchall()
    with queue.connect(database_url, application_name="test") as connection:
        before = list(models.training_interactions(connection, model))
        shop.execute("create table shuffled as table clicks")
        shop.execute("delete from clicks")
        shop.execute("insert into clicks select * from shuffled order by md5(shuffled::text)")
        assert list(models.training_interactions(connection, model)) == before
    assert len(before) == 800


def test_training_sees_items_as_they_were(shop: Connection, settings: Settings, database_url: str) -> None:
    vector = "select embedding::real[] from dynrec_data.item_vector where item_id = 'red-lamp'"
    with running(settings, database_url):
        assert fresh(shop)
        ((was,),) = shop.execute(vector.encode()).fetchall()
        # told of long after the clicks: what they led to
        shop.execute("update products set title = 'sold', sort = 'sold' where id = 'red-lamp'")
        shop.execute("update products set price = 7 where id = 'old-lamp'")
        assert fresh(shop)
        ((sold,),) = shop.execute(vector.encode()).fetchall()
        ((model,),) = shop.execute("select dynrec.stage_model('shop')").fetchall()
    with queue.connect(database_url, application_name="test") as connection:
        training = models.begin_training(connection, model)
        data = read_sources(connection, model, training, {}, None).data
    row, like = data.items.index("red-lamp"), data.items.index("old-lamp")
    np.testing.assert_array_equal(data.content[row], np.array(sold, dtype=np.float32))
    assert data.codes[row] != data.codes[like]
    *before, now = data.earlier
    assert now.moment == training.data_until.timestamp()
    assert len(now.rows) == 0
    assert len(before) == 7
    assert before[0].moment == data.occurred_at[0]
    for then in before:
        assert then.moment < data.occurred_at[-1]
        assert then.rows.tolist() == [row]
        np.testing.assert_array_equal(then.content, np.array([was], dtype=np.float32))
        assert then.codes[0] == data.codes[like]


def test_what_cannot_have_happened_is_counted(shop: Connection, settings: Settings, database_url: str) -> None:
    shop.execute("create table sales (user_id text, item_id text, at timestamptz, amount double precision)")
    shop.execute("""
        insert into sales values
          ('u1', 'red-lamp', '2026-01-01', 1), ('u1', 'red-lamp', '2026-01-01', 1), ('u2', 'old-lamp', '2026-01-02', 'NaN'),
          ('u3', 'new-lamp', '2026-01-03', null), ('u3', 'no such item', '2026-01-04', 2),
          (null, 'red-lamp', '2026-01-01', 1), ('u1', null, '2026-01-01', 1),
          ('u1', 'red-lamp', null, 1), ('u1', 'red-lamp', 'infinity', 1), ('u1', 'red-lamp', '-infinity', 1),
          ('u1', 'red-lamp', '0044-03-15 BC', 1), ('u1', 'red-lamp', '9999-12-31', 1), ('u1', 'red-lamp', '294276-12-31', 1)""")
    shop.execute("""
        select dynrec.create_recommender('sales', 'products', text_columns => '{title}', interactions => 'sales',
          time_column => 'at', value_column => 'amount', encoder => 'hashing')""")
    with running(settings, database_url):
        assert shop.execute("select dynrec.wait_until_fresh('sales', %s::interval)", [f"{PATIENCE} s"]).fetchone() == (
            True,
        )
        model = train(settings, database_url, "sales")
    ((report,),) = shop.execute(
        "select report -> 'interactions' from dynrec.model_versions where model_version = %s", [model]
    ).fetchall()
    assert report == {
        "read": 13,
        "incomplete": 2,
        "impossible_times": 5,
        "duplicates": 1,
        "not_finite": 1,
        "clipped": 0,
        "kept": 6,
    }
