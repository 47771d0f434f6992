"""Texts, rows and devices that fail: who is charged, and who passes."""

import pytest

from dynrec_store.settings import Settings
from tests.workers.support import Connection, Fussy, assert_as_from_scratch, drained, failures, stored, until
from workers import context as worker_context
from workers.context import Context
from workers.encoders import Encoder
from workers.exceptions import DeviceFault, ModelUnavailable
from workers.inprocess import running


def test_a_bad_text_takes_no_other_with_it(products: Connection, context: Context, fussy: Fussy) -> None:
    products.execute("insert into products select n::text, 'apple ' || n from generate_series(1, 30) n")
    products.execute("update products set title = 'poison' where id = '11'")
    products.execute("update products set title = 'nan' where id = '23'")
    tally = drained(context)
    assert (tally.published, tally.failed) == (28, 2)
    assert stored(products).keys() == {str(n) for n in range(1, 31)} - {"11", "23"}
    assert failures(products) == {
        "11": ("retrying", 1, "ValueError: I cannot stand poison"),
        "23": ("retrying", 1, "encoder 'fussy' gave no finite vector for this text"),
    }
    assert fussy.texts.count("apple 1") < 10


def test_a_text_that_stays_bad_is_given_up_and_a_better_one_is_taken(
    products: Connection, settings: Settings, database_url: str, fussy: Fussy
) -> None:
    products.execute("insert into products values ('good', 'apple'), ('bad', 'poison')")
    with running(settings, database_url):
        until(lambda: failures(products).get("bad", ("",))[0] == "dead letter")
        assert stored(products).keys() == {"good"}
        products.execute("update products set title = 'pear' where id = 'bad'")
        until(lambda: stored(products).keys() == {"good", "bad"})
        until(lambda: failures(products) == {})
    assert fussy.texts.count("poison") < 10
    assert_as_from_scratch(products)


@pytest.mark.parametrize("fault", [DeviceFault("out of memory"), ModelUnavailable("no such model")])
def test_a_fault_of_the_device_is_charged_to_nobody(
    products: Connection, context: Context, fussy: Fussy, fault: Exception
) -> None:
    products.execute("insert into products select n::text, 'apple ' || n from generate_series(1, 10) n")
    fussy.fault = fault
    drained(context)
    assert set(failures(products).values()) == {("retrying", 0, str(fault))}
    assert len(failures(products)) == 10
    fussy.fault = None
    products.execute("select dynrec.retry_failed('shop')")
    assert drained(context).published == 10
    assert failures(products) == {}
    assert_as_from_scratch(products)


def test_a_model_that_cannot_be_loaded_shows_among_the_failures(
    products: Connection, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = []

    def load(*arguments: object) -> Encoder:
        loads.append(arguments)
        raise ModelUnavailable("no such model")

    monkeypatch.setattr(worker_context, "load_encoder", load)
    products.execute("insert into products values ('a', 'apple')")
    drained(context)
    assert failures(products) == {"a": ("retrying", 0, "no such model")}
    products.execute("insert into products values ('b', 'pear')")
    drained(context)
    assert failures(products).keys() == {"a", "b"}
    assert len(loads) == 1


def test_a_row_that_postgres_refuses_takes_no_other_with_it(products: Connection, context: Context) -> None:
    row = products.execute("select active_model_id from dynrec_data.recommender").fetchone()
    assert row is not None
    products.execute(f"alter table dynrec_data.item_vector_{row[0]} add constraint no_13 check (item_id <> '13')")
    products.execute("insert into products select n::text, 'apple ' || n from generate_series(1, 20) n")
    tally = drained(context)
    assert (tally.published, tally.failed) == (19, 1)
    assert stored(products).keys() == {str(n) for n in range(1, 21)} - {"13"}
    ((entity, (state, attempts, error)),) = failures(products).items()
    assert (entity, state, attempts) == ("13", "retrying", 1)
    assert "no_13" in error
