"""Sending to Kafka: one idempotent producer, and what became of each message.

Nothing stays in the producer's memory when `send` returns: each message has been acknowledged by all replicas in sync,
refused, or given up for now.
"""

import json
import logging
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from dynrec_store.exceptions import ConfigurationError
from dynrec_store.outbox import Event
from dynrec_store.settings import Settings
from dynrec_store.target import read_secret

DELIVERY_SECONDS = 20  # for a batch, with everything that the client repeats; below what makes a heartbeat late
METADATA_SECONDS = 5.0  # to find out whether a topic exists
LAST_SECONDS = 5.0  # for what is on its way when the process is to end
LONGEST_TOPIC = 249  # characters

Options: TypeAlias = dict[str, str | int | float | bool]

# What nothing is promised without.
OURS: Options = {"acks": "all", "enable.idempotence": True}

REFUSALS = {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG, KafkaError.INVALID_RECORD}  # it will never be taken
NO_TOPIC = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION}
TIMEOUTS = {KafkaError._MSG_TIMED_OUT, KafkaError._TIMED_OUT, KafkaError._TRANSPORT}


@dataclass(frozen=True)
class Sent:
    """What became of events; those in neither list wait, for the reason in `problem`."""

    delivered: list[Event]
    refused: list[tuple[Event, str | None]]  # with the reason: each was sent alone, too
    problem: str | None


class Kafka:
    """A producer; one thread at a time may send."""

    def __init__(self, settings: Settings, stopping: threading.Event) -> None:
        if settings.kafka_brokers is None:
            raise ConfigurationError(
                "there is no Kafka: set DYNREC_KAFKA_BROKERS to host:port, several separated by commas"
            )
        self._options = _options(settings, settings.kafka_brokers)
        self._brokers = settings.kafka_brokers
        self._stopping = stopping
        self._topics: set[str] = set()  # that exist, as far as is known
        self._reason = ""  # the client's own words about the last trouble
        self._producer = self._make()

    def _make(self) -> Producer:
        given = {**self._options, "error_cb": self._trouble, "logger": logging.getLogger("librdkafka")}
        try:
            return Producer(given)
        except KafkaException as error:
            raise ConfigurationError(f"DYNREC_KAFKA_OPTIONS cannot be used: {error.args[0].str()}") from error

    def _trouble(self, error: KafkaError) -> None:
        self._reason = error.str()

    def send(self, topic: str, events: Sequence[Event]) -> Sent:
        """Send events, in their order; those that are refused among others once more, each alone."""
        self._reason = ""
        if (missing := self._lacks(topic)) is not None:
            return Sent([], [], missing)
        errors = self._deliver(topic, events)
        for position, error in enumerate(errors):
            # the client puts many messages into one request, which as a whole may be too much
            if error is not None and error.code() in REFUSALS:
                errors[position] = self._deliver(topic, [events[position]])[0]
        outcomes = list(zip(events, errors, strict=True))
        waiting = [error for _, error in outcomes if error is not None and error.code() not in REFUSALS]
        if any(error.fatal() for error in waiting):
            self._producer = self._make()
        if waiting:
            self._topics.discard(topic)
        return Sent(
            [event for event, error in outcomes if error is None],
            [(event, error.str()) for event, error in outcomes if error is not None and error.code() in REFUSALS],
            self._explain(topic, waiting[0]) if waiting else None,
        )

    def _lacks(self, topic: str) -> str | None:
        """Why nothing can be sent to a topic; asked in advance, as the client waits long for one to appear."""
        if len(topic) > LONGEST_TOPIC or re.fullmatch(r"[A-Za-z0-9._-]+", topic) is None:
            return f"{topic!r} cannot be a topic, of letters, digits and . _ - alone: see DYNREC_KAFKA_TOPIC"
        if topic in self._topics:
            return None
        try:
            error = self._producer.list_topics(topic, METADATA_SECONDS).topics[topic].error
        except KafkaException as failure:
            error = failure.args[0]
        if error is not None:
            return self._explain(topic, error)
        self._topics.add(topic)
        return None

    def _deliver(self, topic: str, events: Sequence[Event]) -> list[KafkaError | None]:
        """Send and wait for what becomes of each: None is delivered."""
        errors: list[KafkaError | None] = [KafkaError(KafkaError._PURGE_QUEUE)] * len(events)

        def noting(position: int) -> Callable[[KafkaError | None, Message], None]:
            def note(error: KafkaError | None, _message: Message) -> None:
                errors[position] = error

            return note

        for position, event in enumerate(events):
            try:
                self._producer.produce(topic, event.event, event.key, on_delivery=noting(position))
            except KafkaException as error:  # too large for the client itself
                errors[position] = error.args[0]
            except BufferError:  # the client's memory is full: the rest waits, as there must be no gap in the order
                break
        self._wait()
        return errors

    def _wait(self) -> None:
        until = float("inf")
        while self._producer.flush(0.5) and time.monotonic() < until:
            if self._stopping.is_set() and until == float("inf"):
                until = time.monotonic() + LAST_SECONDS
        self._producer.purge()
        self._producer.flush(1.0)

    def _explain(self, topic: str, error: KafkaError) -> str:
        if error.code() in NO_TOPIC:
            return f"topic {topic!r} does not exist: create it, or set DYNREC_KAFKA_TOPIC"
        if error.code() in TIMEOUTS:
            return f"Kafka at {self._brokers} does not answer: {self._reason or error.str()}"
        return f"Kafka does not take it for topic {topic!r}: {error.str()}"


def _options(settings: Settings, brokers: str) -> Options:
    given = _given(settings)
    if taken := sorted({*OURS, "bootstrap.servers", "transactional.id"} & given.keys()):
        raise ConfigurationError(f"DYNREC_KAFKA_OPTIONS cannot set {', '.join(taken)}: nothing would be promised")
    password: Options = {}
    if settings.kafka_password_file is not None:
        password["sasl.password"] = read_secret("DYNREC_KAFKA_PASSWORD_FILE", settings.kafka_password_file)
    return {
        "client.id": "dynrec",
        "log_level": 7 if settings.log_level == "DEBUG" else 2,  # it repeats itself; what matters the publisher says
        "message.timeout.ms": DELIVERY_SECONDS * 1000,
        "compression.type": "lz4",
        "partitioner": "murmur2_random",  # as other clients of Kafka choose the partition of a key
        **given,
        **password,
        **OURS,
        "bootstrap.servers": brokers,
    }


def _given(settings: Settings) -> Options:
    try:
        given = json.loads(settings.kafka_options.get_secret_value()) if settings.kafka_options is not None else {}
    except ValueError:
        given = None
    if not isinstance(given, dict) or not all(isinstance(value, str | int | float) for value in given.values()):
        # not shown: a password may be in it
        raise ConfigurationError(
            'DYNREC_KAFKA_OPTIONS is not a JSON object of properties, such as {"security.protocol": "SASL_SSL"}'
        )
    return given
