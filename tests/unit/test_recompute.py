"""The parts of recomputing that need no database: isolating bad texts, sizes of batches, numbers of hints."""

import threading
import time
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynrec_store.exceptions import ConfigurationError
from dynrec_store.queue import Pending
from dynrec_store.settings import Settings
from workers.batch_size import BatchSize
from workers.celery_app import check_broker, make_app
from workers.encode import encode_each
from workers.encoders import Vectors
from workers.exceptions import DeviceFault, EncodingFailed, ModelUnavailable
from workers.hints import ENTITIES, LATEST, LEASES_DOUBTED, SOONEST, Hints
from workers.turns import Turns

TEXTS = st.lists(st.text(max_size=5), unique=True, max_size=40)


class Fussy:
    """An encoder that raises at some texts and gives no finite vector for others."""

    name = "fussy"
    dimension = 2
    device = "cpu"

    def __init__(self, *, raises: Sequence[str] = (), not_finite: Sequence[str] = ()) -> None:
        self.raises = set(raises)
        self.not_finite = set(not_finite)
        self.batches: list[list[str]] = []

    def encode(self, texts: Sequence[str]) -> Vectors:
        self.batches.append(list(texts))
        if self.raises & set(texts):
            raise ValueError("a text I cannot stand")
        if broken := [n for n, text in enumerate(texts) if text in self.not_finite]:
            raise EncodingFailed(self.name, broken)
        return np.array([[len(text), 1] for text in texts], dtype=np.float32)


@given(TEXTS, st.data())
def test_every_text_is_encoded_but_the_bad_ones(texts: list[str], data: st.DataObject) -> None:
    bad = data.draw(st.lists(st.sampled_from(texts), unique=True)) if texts else []
    split = len(bad) // 2
    encoded = encode_each(Fussy(raises=bad[:split], not_finite=bad[split:]), texts)
    assert set(encoded.errors) == set(bad)
    assert {text: vector.tolist() for text, vector in encoded.vectors.items()} == {
        text: [len(text), 1] for text in texts if text not in bad
    }


def test_a_poison_among_many_costs_few_calls() -> None:
    encoder = Fussy(raises=["17"])
    encoded = encode_each(encoder, [str(n) for n in range(256)])
    assert encoded.calls == len(encoder.batches) == 17  # both halves on each of eight levels, and the whole
    assert encoded.errors == {"17": "ValueError: a text I cannot stand"}


def test_nothing_to_encode_is_no_call() -> None:
    encoder = Fussy()
    assert encode_each(encoder, []).calls == 0
    assert encoder.batches == []


@pytest.mark.parametrize("fault", [DeviceFault("out of memory"), ModelUnavailable("gone")])
def test_a_fault_of_the_device_is_not_searched_for_in_the_texts(fault: Exception) -> None:
    class Broken(Fussy):
        def encode(self, texts: Sequence[str]) -> Vectors:
            self.batches.append(list(texts))
            raise fault

    encoder = Broken()
    with pytest.raises(type(fault)):
        encode_each(encoder, ["a", "b", "c"])
    assert len(encoder.batches) == 1


def test_batches_grow_to_what_a_lease_affords_and_shrink_at_once() -> None:
    size = BatchSize(1024, seconds=6)
    grown = [size.current]
    for _ in range(4):
        size.record(size.current, seconds=0.1)
        grown.append(size.current)
    assert grown == [32, 256, 1024, 1024, 1024]
    size.record(1024, seconds=60)
    assert size.current == 102
    size.record(102, seconds=1000)
    assert size.current == 1


def test_a_quick_small_batch_does_not_let_batches_grow() -> None:
    size = BatchSize(256, seconds=6)
    size.record(1, seconds=0.001)
    assert size.current == 32


def _pending(backlog: int, leased: int = 0, oldest: int = 0, newest: int = 0) -> list[Pending]:
    return [Pending("shop", "item", backlog, leased, oldest, newest)]


def _counts(hints: Hints, pending: list[Pending], now: float) -> list[int]:
    return [count for _, count in hints.due(pending, now)]


def test_new_work_is_hinted_at_once_and_not_again_before_it_can_have_been_claimed() -> None:
    hints = Hints(most=4)
    assert _counts(hints, _pending(1), now=10.0) == [1]
    assert _counts(hints, _pending(1), now=10.0 + SOONEST / 2) == []
    assert _counts(hints, [], now=10.001) == []
    assert _counts(hints, _pending(1), now=10.002) == [1]


def test_as_many_hints_as_batches_but_no_more_than_allowed() -> None:
    assert _counts(Hints(most=4), _pending(3 * ENTITIES), now=0.0) == [3]
    assert _counts(Hints(most=4), _pending(100_000), now=0.0) == [4]
    assert _counts(Hints(most=4), _pending(100_000, leased=3), now=0.0) == [1]


def test_leases_hold_hints_back_unless_they_last_suspiciously_long() -> None:
    hints = Hints(most=2)
    hints.due(_pending(1000, leased=2), now=0.0)
    assert _counts(hints, _pending(1000, leased=2), now=LEASES_DOUBTED / 2) == []
    assert _counts(hints, _pending(1000, leased=2), now=LEASES_DOUBTED) == [1]


def test_hints_that_nobody_takes_become_rare() -> None:
    hints = Hints(most=4)
    sent = sum(sum(_counts(hints, _pending(1000), now=millisecond / 1000)) for millisecond in range(10_000))
    assert 10 / LATEST <= sent <= 10 / LATEST + 10


def test_hints_that_bring_batches_are_followed_by_others_soon() -> None:
    hints = Hints(most=4)
    hints.due(_pending(1000), now=0.0)
    assert _counts(hints, _pending(1000, leased=2), now=SOONEST) == [2]
    assert _counts(hints, _pending(1000, leased=2), now=2.5 * SOONEST) == [1]


def test_what_comes_when_all_before_is_done_is_hinted_at_once_whatever_went_before() -> None:
    # changes that follow one another closely: each look finds something, and none a batch in flight
    hints = Hints(most=4)
    for number in range(1, 50):
        moment = number * SOONEST / 10
        assert _counts(hints, _pending(1, oldest=number, newest=number), now=moment) == [1]
        assert _counts(hints, _pending(1, oldest=number, newest=number), now=moment + SOONEST / 20) == []


def test_a_batch_that_was_seen_between_hints_is_an_answer() -> None:
    hints = Hints(most=4)
    sent = 0
    for cycle in range(50):
        moment = 1.1 * cycle * SOONEST
        sent += sum(_counts(hints, _pending(1, oldest=1, newest=90), now=moment))
        sent += sum(_counts(hints, _pending(1, leased=1, oldest=1, newest=90), now=moment + SOONEST / 2))
    assert sent == 50


def test_a_hint_for_a_notification_is_not_repeated_by_the_first_look() -> None:
    hints = Hints(most=4)
    assert _counts(hints, _pending(1), now=0.0) == [1]
    assert _counts(hints, _pending(1, oldest=7, newest=7), now=SOONEST / 4) == []
    assert _counts(hints, _pending(1, oldest=8, newest=8), now=SOONEST / 2) == [1]


def test_each_recommender_and_work_is_counted_by_itself() -> None:
    hints = Hints(most=4)
    work = [Pending("a", "item", 1, 0), Pending("a", "user", 1, 0), Pending("b", "item", 1, 0)]
    assert [count for _, count in hints.due(work, 0.0)] == [1, 1, 1]


def test_the_in_memory_broker_is_refused_where_processes_must_meet() -> None:
    with pytest.raises(ConfigurationError, match="DYNREC_BROKER_URL"):
        check_broker(Settings())
    check_broker(Settings(broker_url="redis://localhost"))


def test_messages_are_hints() -> None:
    conf = make_app(Settings()).conf
    assert conf.task_acks_late
    assert conf.task_ignore_result
    assert conf.accept_content == ["json"]
    assert conf.worker_prefetch_multiplier == 1


def test_turns_are_given_in_the_order_of_asking() -> None:
    turns, served = Turns(), []

    def work(name: str, times: int) -> None:
        for _ in range(times):
            with turns.turn():
                served.append(name)
                time.sleep(0.005)

    long = threading.Thread(target=work, args=("long", 50))
    short = threading.Thread(target=work, args=("short", 1))
    long.start()
    time.sleep(0.02)
    short.start()
    long.join()
    short.join()
    assert served.index("short") < 20


def test_as_many_have_their_turn_at_once_as_there_are_places() -> None:
    turns, together = Turns(places=2), threading.Barrier(2, timeout=10)

    def work() -> None:
        with turns.turn():
            together.wait()  # breaks unless two are in here

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not together.broken
