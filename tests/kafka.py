"""A Kafka cluster of one broker inside the test process: librdkafka's own, which speaks the protocol over TCP."""

import ctypes
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import confluent_kafka
from confluent_kafka import Consumer, TopicPartition

NO_ERROR = 0
UNKNOWN_TOPIC = 3
TOO_LARGE = 10

_PRODUCE = 0  # the number of that request in the protocol
_BROKER = 1


def _load() -> ctypes.CDLL:
    (path,) = (Path(confluent_kafka.__file__).parents[1] / "confluent_kafka.libs").glob("librdkafka*")
    library = ctypes.CDLL(str(path))
    for name in ("rd_kafka_conf_new", "rd_kafka_new", "rd_kafka_mock_cluster_new"):
        getattr(library, name).restype = ctypes.c_void_p
    library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
    return library


class MockKafka:
    """The cluster, from `with` to its end. It makes topics when they are asked for."""

    def __enter__(self) -> "MockKafka":
        self._library = _load()
        why = ctypes.create_string_buffer(200)
        conf = ctypes.c_void_p(self._library.rd_kafka_conf_new())
        self._client = ctypes.c_void_p(self._library.rd_kafka_new(0, conf, why, ctypes.c_size_t(len(why))))
        assert self._client, why.value
        self._cluster = ctypes.c_void_p(self._library.rd_kafka_mock_cluster_new(self._client, 1))
        self.brokers: str = self._library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()
        return self

    def __exit__(self, *_: object) -> None:
        self._library.rd_kafka_mock_cluster_destroy(self._cluster)
        self._library.rd_kafka_destroy(self._client)

    def set_up(self, *, up: bool) -> None:
        """End all connections and take none, or take them again."""
        call = self._library.rd_kafka_mock_broker_set_up if up else self._library.rd_kafka_mock_broker_set_down
        assert call(self._cluster, ctypes.c_int32(_BROKER)) == NO_ERROR

    def create(self, topic: str, partitions: int) -> None:
        """Make a topic."""
        assert self._library.rd_kafka_mock_topic_create(self._cluster, topic.encode(), partitions, 1) == NO_ERROR

    def set_error(self, topic: str, error: int) -> None:
        """Answer questions about a topic with an error, or no longer."""
        self._library.rd_kafka_mock_topic_set_error(self._cluster, topic.encode(), error)

    def refuse(self, errors: Sequence[int]) -> None:
        """Answer the next requests to store messages with these errors."""
        array = (ctypes.c_int * len(errors))(*errors)
        self._library.rd_kafka_mock_push_request_errors_array(
            self._cluster, ctypes.c_int16(_PRODUCE), ctypes.c_size_t(len(errors)), array
        )


@dataclass
class Listener:
    """Reads a topic from its beginning; what it has read so far is `events`, by key, in the order of arrival."""

    brokers: str
    topic: str
    partitions: int
    events: defaultdict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    placed: defaultdict[str, set[int]] = field(default_factory=lambda: defaultdict(set))  # partitions of a key

    def __post_init__(self) -> None:
        self._consumer = Consumer(
            {"bootstrap.servers": self.brokers, "group.id": "tests", "enable.auto.commit": False, "log_level": 2}
        )
        self._consumer.assign([TopicPartition(self.topic, n, 0) for n in range(self.partitions)])

    def listen(self) -> None:
        """Read what comes in a short while."""
        for message in self._consumer.consume(1000, 0.1):
            if message.error() is None:
                key, value = message.key(), message.value()
                assert key is not None
                assert value is not None
                self.events[key.decode()].append(json.loads(value))
                self.placed[key.decode()].add(message.partition() or 0)

    @property
    def messages(self) -> int:
        """How many have been read."""
        return sum(map(len, self.events.values()))

    def last(self, kind: str) -> dict[str, dict[str, Any]]:
        """The last event about each entity."""
        return {told[-1]["entity"]: told[-1] for told in self.events.values() if told[-1]["kind"] == kind}

    def close(self) -> None:
        """Leave."""
        self._consumer.close()
