"""What a training needs, and what it says where that is gone."""

import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from dynrec_store import models, queue
from dynrec_store.exceptions import BusyError, ConfigurationError
from dynrec_store.settings import Settings
from tests.learned import backfill, stage, store
from tests.workers.support import Connection, until
from workers.exceptions import TrainingError
from workers.inprocess import running
from workers.learning import run
from workers.learning.config import config_of
from workers.learning.history import ValueScale
from workers.learning.ranking import Ranking
from workers.learning.run import train_staged
from workers.learning.settings import PREPARING, PROMOTE, training_settings
from workers.learning.settings import Settings as Hyper
from workers.learning.source import Sources, read_sources
from workers.learning.towers import Shape
from workers.learning.training import Towers
from workers.learning.transitions import pasts


def test_a_training_whose_parent_was_retired_fails_and_names_it(
    products: Connection, settings: Settings, database_url: str
) -> None:
    products.execute("insert into products values ('1', 'red lamp'), ('2', 'blue lamp')")
    parent = stage(products)
    backfill(products)
    products.execute("select dynrec.promote_model('shop')")
    ((model,),) = products.execute("select dynrec.stage_model('shop', continue_active => true)").fetchall()
    # it failed once, and is tried again when nobody has kept its parent for it
    products.execute("select dynrec._training_failed(%s, 'no memory')", [model])
    products.execute("select dynrec.rollback_model('shop')")
    products.execute("select dynrec.retire_model('shop', %s)", [parent])
    with (
        queue.connect(database_url, application_name="test") as connection,
        pytest.raises(
            ConfigurationError, match=f"model version {parent}, which the training goes on from, was retired"
        ),
    ):
        train_staged(connection, settings, model, lambda _stage, _done: None)
    noted = "select state, error from dynrec.model_versions where model_version = %s"
    ((state, error),) = products.execute(noted, [model]).fetchall()
    assert state == "failed"
    assert error.startswith(f"ConfigurationError: model version {parent}")


NOTED = "select state, error from dynrec.model_versions where model_version = %s"


@pytest.fixture
def model(products: Connection) -> int:
    """A model that waits for its training."""
    products.execute("insert into products values ('1', 'red lamp'), ('2', 'blue lamp')")
    backfill(products)
    ((staged,),) = products.execute("select dynrec.stage_model('shop')").fetchall()
    return int(staged)


def noted(connection: Connection, model: int) -> tuple[str, str | None]:
    ((state, error),) = connection.execute(NOTED, [model]).fetchall()
    return state, error


def breaking(monkeypatch: pytest.MonkeyPatch, fault: Exception) -> list[str]:
    """Let every training fail; returns a list that has an entry for each that was begun."""
    begun = []

    def fit(*_: object, **__: object) -> None:
        begun.append("one")
        raise fault

    monkeypatch.setattr(run, "fit", fit)
    return begun


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (KeyError("item"), "KeyError: 'item'"),
        (OverflowError("too much"), "OverflowError: too much"),
        (MemoryError("no room"), "MemoryError: no room"),
    ],
)
def test_whatever_ends_a_training_is_noted_and_not_tried_again(
    products: Connection,
    model: int,
    settings: Settings,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    fault: Exception,
    error: str,
) -> None:
    begun = breaking(monkeypatch, fault)
    with running(settings, database_url):
        until(lambda: noted(products, model)[0] == "failed")
        time.sleep(5 * settings.sweep_seconds)
    assert noted(products, model) == ("failed", error)
    assert begun == ["one"]


def test_a_training_that_loses_the_database_is_tried_again_and_that_does_not_count(
    products: Connection, model: int, settings: Settings, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuts = run.ATTEMPTS + 2
    cut = """select pg_terminate_backend(l.pid) from pg_locks l join pg_database d on d.oid = l.database
        where d.datname = current_database() and l.locktype = 'advisory' and l.objid = %s"""

    def losing(*arguments: Any) -> Sources:
        nonlocal cuts
        cuts -= 1
        if cuts >= 0:
            with psycopg.connect(database_url, autocommit=True) as other:
                other.execute(cut, [model])
        return read_sources(*arguments)

    monkeypatch.setattr(run, "read_sources", losing)
    breaking(monkeypatch, LookupError("at last"))
    with running(settings, database_url):
        until(lambda: noted(products, model)[0] == "failed")
    assert noted(products, model) == ("failed", "LookupError: at last")
    assert cuts == -1


KILLED = """
    import os, signal, sys
    from contextlib import closing
    from dynrec_store import models, queue
    from dynrec_store.settings import Settings
    from tests.workers.support import until
    from workers.context import Context
    from workers.learning import run
    from workers.maintenance import train_model

    url, model, signals = sys.argv[1], int(sys.argv[2]), []
    run.fit = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
    for _ in range(3):
        if not os.fork():
            train_model(Context(Settings(_env_file=None), url), model)
            os._exit(0)
        signals.append(os.WTERMSIG(os.wait()[1]))
        with closing(queue.connect(url, application_name="test")) as connection:
            until(lambda: model in models.staged_models(connection))  # its lock went with it
    print("signals", signals)
"""


@pytest.mark.faults
def test_a_training_that_kills_its_process_again_and_again_is_given_up(
    products: Connection, model: int, settings: Settings, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = breaking(monkeypatch, LookupError("nobody gets here"))
    command = [sys.executable, "-c", textwrap.dedent(KILLED), database_url, str(model)]
    killed = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert killed.stdout.endswith("signals [9, 9, 9]\n"), killed.stderr
    assert noted(products, model) == ("training", None)
    with running(settings, database_url):
        until(lambda: noted(products, model)[0] == "failed")
    _, error = noted(products, model)
    assert error is not None
    assert error.startswith("TrainingError: 3 trainings of this model were begun and none came to an end")
    assert error.endswith("stage another")
    assert begun == []


def taken_by_a_worker(
    monkeypatch: pytest.MonkeyPatch, url: str, end: Callable[[Connection, int], object] | None
) -> None:
    """Let a worker be faster than `train` to take a model; what it does in the end, or nothing if it is killed."""
    staging = models.stage_model

    def stage_and_lose(connection: Connection, *arguments: Any, **named: Any) -> int:
        model = staging(connection, *arguments, **named)
        worker = queue.connect(url, application_name="test")
        assert models.lock_training(worker, model)
        models.begin_training(worker, model)

        def finish() -> None:
            with worker:
                if end is not None:
                    end(worker, model)

        threading.Timer(0.5, finish).start()
        return model

    monkeypatch.setattr(models, "stage_model", stage_and_lose)
    monkeypatch.setattr(run, "LOOK_AGAIN", 0.05)


@pytest.mark.usefixtures("model")
def test_what_a_worker_took_is_waited_for(
    products: Connection, settings: Settings, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = breaking(monkeypatch, LookupError("nobody gets here"))
    taken_by_a_worker(monkeypatch, database_url, store)
    stages = []
    trained = run.train(settings, database_url, "shop", progress=lambda stage, _: stages.append(stage))
    assert noted(products, trained)[0] == "backfilling"
    assert set(stages) == {"waiting for the worker that trains it"}
    assert begun == []


@pytest.mark.usefixtures("model")
def test_what_a_worker_fails_at_is_told(settings: Settings, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    taken_by_a_worker(monkeypatch, database_url, lambda worker, model: models.fail_training(worker, model, "no luck"))
    with pytest.raises(TrainingError, match=r"the worker that took model version \d+ could not train it: no luck"):
        run.train(settings, database_url, "shop")


@pytest.mark.usefixtures("model")
def test_what_a_worker_took_and_was_killed_over_is_trained(
    settings: Settings, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = breaking(monkeypatch, LookupError("trained here"))
    taken_by_a_worker(monkeypatch, database_url, None)
    with pytest.raises(LookupError, match="trained here"):
        run.train(settings, database_url, "shop")
    assert begun == ["one"]


def test_sql_knows_the_same_options(products: Connection) -> None:
    ((names,),) = products.execute("select dynrec._training_options()").fetchall()
    assert sorted(names) == sorted([PREPARING, PROMOTE, *(field.name for field in fields(Hyper))])


@pytest.mark.parametrize(
    "options",
    [
        {"learned": 1998, "content": 1},
        {"learned": 1, "content": 1, "candidates": 1, "exploration": 0},
        {"decays": [0.001] * 8, "content_decays": [0.001, 1.0], "candidates": 1000, "exploration": 1},
        {"decays": [1.0], "content_decays": [1.0] * 9, "transition_decays": [0.001, 0.99], "companions": 10_000},
        {"transition_decays": [], "companions": 0},
    ],
)
def test_sql_serves_whatever_can_be_trained(products: Connection, options: dict[str, object]) -> None:
    chosen = training_settings(options)
    towers = Towers(Shape(items=1, kinds=1, encoder=1), chosen)
    ranking = Ranking(len(chosen.head_decays), len(pasts(chosen)))
    config = config_of(towers.users, ranking, chosen, ValueScale(0.0, 1.0), ("view",))
    checked = Jsonb(config | {"exploration": chosen.exploration or 0, "exploration_gap": None})
    products.execute("select dynrec._check_config(%s, %s)", [checked, config["dimension"]])


def test_a_trained_model_waits_until_others_let_go_of_their_locks(
    model: int, products: Connection, settings: Settings, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_model = models.store_model
    refused: list[bool] = []

    def busy_at_first(*arguments: Any, **named: Any) -> None:
        if not refused:
            refused.append(True)
            raise BusyError("canceling statement due to lock timeout")
        store_model(*arguments, **named)

    monkeypatch.setattr(models, "store_model", busy_at_first)
    with queue.connect(database_url, application_name="test") as connection:
        train_staged(connection, settings, model, lambda _stage, _done: None)
    assert refused
    assert noted(products, model) == ("backfilling", None)
