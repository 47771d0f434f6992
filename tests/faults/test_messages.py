"""Whoever can write to the broker can write anything: a worker says so in its log, and goes on."""

import base64
import json
import random
import time
from collections.abc import Iterator
from typing import Any

import psutil
import psycopg
import pytest
import redis as client

from tests.faults.broker import Redis
from tests.faults.load import until
from tests.faults.nursery import Nursery
from tests.property import shop
from workers.celery_app import QUEUES, RECOMPUTE_ITEMS

pytestmark = [pytest.mark.faults, pytest.mark.slow]

HEADERS = {
    "task": RECOMPUTE_ITEMS,
    "id": "1",
    "lang": "py",
    "retries": 0,
    "timelimit": [None, None],
    "expires": None,
    "eta": None,
}
GOOD = json.dumps([[shop.NAME], {}, {}]).encode()
LARGE = 8_000_000

# Not even a message of the broker's.
RAW = [
    b"",
    b"\xff\xfe\x00",
    b"{",
    b"null",
    b"17",
    b"[]",
    b"{}",
    b'"text"',
    b'{"body": null, "properties": null}',
    b'{"body": "x", "properties": {"delivery_tag": null, "body_encoding": "base64"}}',
    b"[" * 100_000,
    b"x" * LARGE,
]
ODD_VALUES: list[Any] = [None, {}, [], "\0", 10**30, "x" * 10_000]
# What the header says against what it should.
ODD_HEADERS: list[dict[str, Any] | None] = [
    None,
    {},
    {"task": None},
    {"task": ["dynrec.recompute_items"]},
    {"task": {}},
    {"task": "os.system", "id": "1"},
    {"task": RECOMPUTE_ITEMS},
    *({**HEADERS, name: odd} for name in HEADERS for odd in ODD_VALUES),
    {**HEADERS, "expires": "yesterday"},
    {**HEADERS, "eta": "never"},
    {**HEADERS, "group": {}, "root_id": [], "parent_id": 7, "reply_to": {}, "kwargsrepr": 1, "argsrepr": []},
]
ODD_BODIES = [
    b"",
    b"\xff",
    b"null",
    b"{}",
    b"[]",
    b"[[]]",
    b"[[], {}]",
    b"[null, null, null]",
    b'[{"a": 1}, [], {}]',
    b'[["shop"], {"more": 1}, {}]',
    b'[["shop"], {}, {"callbacks": [17], "errbacks": [{}], "chain": ["x"], "chord": 5}]',
    b'[["shop"], {}, 5]',
    b"[" * 100_000,
    json.dumps([["x" * LARGE], {}, {}]).encode(),
]
CONTENT_TYPES = [
    "application/json",
    "application/x-python-serialize",
    "application/data",
    "text/plain",
    "nonsense",
    "",
    None,
    7,
]


def enveloped(
    body: bytes, headers: dict[str, Any] | None, content_type: object = "application/json", encoding: object = "utf-8"
) -> bytes:
    """A message as Redis has it."""
    properties = {
        "delivery_info": {"exchange": "", "routing_key": "encode"},
        "delivery_tag": str(random.random()),
        "body_encoding": "base64",
    }
    message = {
        "body": base64.b64encode(body).decode(),
        "content-type": content_type,
        "content-encoding": encoding,
        "properties": properties,
    }
    return json.dumps(message if headers is None else {**message, "headers": headers}).encode()


def odd_messages() -> Iterator[bytes]:
    """All of them."""
    yield from RAW
    for headers in ODD_HEADERS:
        yield enveloped(GOOD, headers)
    for body in ODD_BODIES:
        yield enveloped(body, HEADERS)
    for content_type in CONTENT_TYPES:
        yield enveloped(GOOD, HEADERS, content_type)
    for encoding in ("binary", "nonsense", None, 7):
        yield enveloped(GOOD, HEADERS, encoding=encoding)
    whole = json.loads(enveloped(GOOD, HEADERS))
    for name in whole:
        yield json.dumps({key: value for key, value in whole.items() if key != name}).encode()
    for name in whole["properties"]:
        less = {key: value for key, value in whole["properties"].items() if key != name}
        yield json.dumps({**whole, "properties": less}).encode()


@pytest.fixture
def broker_url(redis: Redis) -> str:
    return redis.url


def test_a_worker_outlives_every_message(redis: Redis, nursery: Nursery, database_url: str) -> None:
    worker, dispatcher = (nursery.start(role) for role in ("worker", "dispatcher"))
    with client.Redis(port=redis.port) as broker, psycopg.connect(database_url, autocommit=True) as connection:
        until(connection, "select dynrec.wait_until_fresh('shop', '100 ms')")
        for number, message in enumerate(odd_messages()):
            for queue in QUEUES:
                broker.lpush(queue, message)
            deadline = time.monotonic() + 60
            while any(broker.llen(queue) for queue in QUEUES):
                assert psutil.Process(worker).status() != psutil.STATUS_ZOMBIE, (
                    number,
                    message[:300],
                    nursery.log.read_text()[-3000:],
                )
                assert time.monotonic() < deadline, (number, message[:300], nursery.log.read_text()[-3000:])
                time.sleep(0.01)
        connection.execute("insert into item (id, title) values (%s, %s)", [10_000, "after all"])
        until(connection, "select dynrec.wait_until_fresh('shop', '100 ms')")
        until(connection, "select exists (select from dynrec_data.item_content where item_id = '10000')")
    assert psutil.pid_exists(worker)
    assert psutil.pid_exists(dispatcher)
