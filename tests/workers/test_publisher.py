"""The publisher: what others are told through Kafka, whatever is away or killed."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from dynrec_store.exceptions import ConfigurationError
from dynrec_store.settings import Settings
from tests.conftest import Prepare
from tests.kafka import NO_ERROR, TOO_LARGE, UNKNOWN_TOPIC, Listener, MockKafka
from tests.sql.shop import NOON, Event, Shop, create_shop
from tests.workers.support import Connection, until
from workers.background import Background
from workers.publisher import Publisher

PARTITIONS = 3
OTHER = """
    create table shop.others (id bigint primary key, title text);
    insert into shop.others select n, 'other ' || n from generate_series(1, 5) n;
    select dynrec.create_recommender('other', 'shop.others', text_columns => '{title}', encoder => 'hashing', options => '{"publish": "changes"}')
"""


@pytest.fixture
def kafka() -> Iterator[MockKafka]:
    with MockKafka() as cluster:
        cluster.create("dynrec", PARTITIONS)
        yield cluster


@pytest.fixture
def heard(kafka: MockKafka) -> Iterator[Listener]:
    listener = Listener(kafka.brokers, "dynrec", PARTITIONS)
    yield listener
    listener.close()


def open_shop(connection: Connection) -> None:
    """Twelve products and two users, published, of which others are told."""
    made = create_shop(connection, products=12, options={"publish": "vectors"})
    made.add_events([Event("ann", "1", NOON, "view"), Event("bob", "2", NOON, "purchase", 2.0)])
    made.drain()


@pytest.fixture
def beginning(prepared: Prepare) -> str:
    return prepared(open_shop).name


@pytest.fixture
def shop(connection: Connection) -> Shop:
    return Shop(connection)


@contextmanager
def publishing(url: str, kafka: MockKafka, **settings: Any) -> Iterator[Publisher]:
    """A publisher in this process."""
    chosen = Settings(_env_file=None, kafka_brokers=kafka.brokers, **settings)  # type: ignore[call-arg]
    publisher = Publisher(chosen, url)
    with Background("publisher", publisher.run, stop=publisher.stop):
        yield publisher


def hears(heard: Listener, condition: Callable[[], object]) -> None:
    """Listen until it is so."""

    def listened() -> object:
        heard.listen()
        return condition()

    until(listened)


def is_told(shop: Shop) -> bool:
    return bool(shop.value("select count(*) = 0 from dynrec_data.outbox"))


def finds(shop: Shop, words: str) -> bool:
    return any(words in finding for (finding,) in shop.execute("select finding from dynrec.doctor()"))


def is_heard(shop: Shop, heard: Listener) -> bool:
    """Whether the last event of each entity says what the database has now."""
    for kind in ("item", "user"):
        told = {e: event["valid_from"] for e, event in heard.last(kind).items() if event["op"] == "published"}
        stored = "select %s_id, to_json(valid_from at time zone 'UTC') #>> '{}' || '+00:00' from dynrec_data.%s_vector"
        if told != dict(shop.execute((stored % (kind, kind)).encode())):  # type: ignore[arg-type]
            return False
    return True


def assert_told(shop: Shop, heard: Listener) -> None:
    """What is in the database now is heard in the end, and of no entity something older after something newer."""
    hears(heard, lambda: is_heard(shop, heard))
    for key, events in heard.events.items():
        moments = [event["valid_from"] for event in events]
        assert moments == sorted(moments), key
        assert len(heard.placed[key]) == 1, "a key is in one partition"


def test_vectors_are_told_of_as_they_are_published(
    shop: Shop, database_url: str, kafka: MockKafka, heard: Listener
) -> None:
    with publishing(database_url, kafka):
        hears(heard, lambda: len(heard.events) == 14)
        event = heard.events['["shop", "item", "1", 1]'][0]
        assert {name: event[name] for name in ("op", "recommender", "kind", "entity", "model_version")} == {
            "op": "published", "recommender": "shop", "kind": "item", "entity": "1", "model_version": 1,
        }  # fmt: skip
        assert event["vector"] == shop.value(
            "select embedding::real[] from dynrec_data.item_vector where item_id = '1'"
        )
        ann = heard.last("user")["ann"]["vector"]
        assert ann == shop.value("select dynrec.user_vector_at('shop', 'ann')::real[]")

        shop.execute("update shop.products set title = 'another one' where id = 1")
        shop.execute("delete from shop.products where id = 2")
        shop.execute("delete from shop.events where user_id = 'bob'")
        shop.drain()
        hears(heard, lambda: heard.last("item")["2"]["op"] == heard.last("user")["bob"]["op"] == "removed")
        hears(heard, lambda: is_told(shop))
        assert "vector" not in heard.last("item")["2"]
        assert_told(shop, heard)
        assert shop.value("select value from dynrec.metrics where name = 'dynrec_outbox_events' limit 1") == 0


def has_more(heard: Listener, before: int) -> bool:
    return heard.messages > before


def change(shop: Shop, draw: random.Random) -> None:
    """Give a part of the products other titles."""
    shop.execute("update shop.products set title = title || '!' where id %% 3 = %s", [draw.randrange(3)])
    shop.drain()


def test_a_killed_publisher_loses_nothing(shop: Shop, database_url: str, kafka: MockKafka, heard: Listener) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)  # noqa: T201
    draw = random.Random(seed)
    shop.add_products(range(13, 3000))
    environment = {**os.environ, "DYNREC_DATABASE_URL": database_url, "DYNREC_KAFKA_BROKERS": kafka.brokers}
    for turn in range(4):
        change(shop, draw)
        process = subprocess.Popen([sys.executable, "-m", "dynrec_store", "publish"], env=environment)
        try:
            hears(heard, partial(has_more, heard, heard.messages))
            if turn % 2:  # everything that is sent is on its way still
                hears(heard, lambda: is_told(shop))
                kafka.set_up(up=False)
                change(shop, draw)
                time.sleep(0.5)
            time.sleep(draw.random() / 10)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kafka.set_up(up=True)
    with publishing(database_url, kafka):
        hears(heard, lambda: is_told(shop))
    assert_told(shop, heard)
    assert len(heard.events) == 3001


def test_events_wait_while_kafka_is_away(shop: Shop, database_url: str, kafka: MockKafka, heard: Listener) -> None:
    kafka.set_up(up=False)
    with publishing(database_url, kafka, kafka_options='{"message.timeout.ms": 2000}'):
        until(lambda: finds(shop, f"Kafka at {kafka.brokers} does not answer"))
        assert shop.value("select count(*) from dynrec_data.outbox") == 14
        kafka.set_up(up=True)
        hears(heard, lambda: is_told(shop))
        kafka.set_up(up=False)
        for _ in range(3):
            shop.execute("update shop.products set title = title || '!'")
            shop.drain()
        assert shop.value("select count(*) from dynrec_data.outbox") == 14, "one row a vector, however often it changes"
        until(lambda: finds(shop, "does not answer"))
        kafka.set_up(up=True)
        hears(heard, lambda: is_told(shop))
    assert_told(shop, heard)


def test_what_is_too_large_is_set_aside(shop: Shop, database_url: str, kafka: MockKafka, heard: Listener) -> None:
    shop.execute(OTHER)
    shop.drain()
    with publishing(database_url, kafka, kafka_options='{"message.max.bytes": 1000}'):
        hears(heard, lambda: len(heard.last("item")) >= 5)
        until(lambda: shop.value("select count(*) > 0 and count(*) = count(error) from dynrec_data.outbox"))
        assert finds(shop, "events cannot be delivered, the last: ")
        large = shop.value("select count(*) from dynrec_data.outbox")
        shop.execute("""select dynrec.alter_recommender('shop', options => '{"publish": "changes"}')""")
        assert shop.value("select dynrec.retry_failed('shop')") == large
        hears(heard, lambda: len(heard.events) == 19)
        hears(heard, lambda: is_told(shop))
        assert not finds(shop, "cannot be delivered")


def test_what_fails_among_others_is_sent_alone(
    shop: Shop, database_url: str, kafka: MockKafka, heard: Listener
) -> None:
    kafka.refuse([TOO_LARGE] * PARTITIONS)
    with publishing(database_url, kafka):
        hears(heard, lambda: is_told(shop))
        hears(heard, lambda: len(heard.events) == 14)


def test_a_topic_that_is_missing_stops_its_own_events_alone(shop: Shop, database_url: str, kafka: MockKafka) -> None:
    shop.execute(OTHER)
    shop.drain()
    for topic in ("of.shop", "of.other"):
        kafka.create(topic, PARTITIONS)
    kafka.set_error("of.shop", UNKNOWN_TOPIC)
    with publishing(database_url, kafka, kafka_topic="of.{recommender}"):
        until(lambda: finds(shop, "topic 'of.shop' does not exist: create it, or set DYNREC_KAFKA_TOPIC"))
        until(lambda: shop.value("select count(*) = 14 and count(error) = 0 from dynrec_data.outbox"))
        kafka.set_error("of.shop", NO_ERROR)
        until(lambda: is_told(shop))
        until(lambda: not finds(shop, "does not exist"))


def test_a_name_that_kafka_does_not_take_is_said(shop: Shop, database_url: str, kafka: MockKafka) -> None:
    with publishing(database_url, kafka, kafka_topic="to {recommender}"):
        until(lambda: finds(shop, "'to shop' cannot be a topic"))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"kafka_brokers": None}, "set DYNREC_KAFKA_BROKERS"),
        ({"kafka_options": "[]"}, "is not a JSON object"),
        ({"kafka_options": '{"sasl.password": '}, "is not a JSON object"),
        ({"kafka_options": '{"acks": 1}'}, "cannot set acks"),
        ({"kafka_options": '{"no.such": 1}'}, "cannot be used: .*no.such"),
    ],
)
def test_settings_that_cannot_be(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Publisher(Settings.model_validate({"kafka_brokers": "127.0.0.1:1", **given}), "postgresql://nowhere")
