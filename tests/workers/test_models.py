"""The life of a model version with real workers: trained, filled in, promoted, gone back from, retired."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial

import numpy as np
import psycopg
import pytest
from psycopg import sql

from dynrec_store import models, queue
from dynrec_store.exceptions import ConfigurationError, InvalidArgumentError
from dynrec_store.settings import Settings
from tests.workers.support import Connection, fresh, until
from tests.workers.worded import START, worded_shop
from workers.inprocess import running
from workers.learning.artefact import from_artefacts
from workers.learning.candidates import gather
from workers.learning.examples import Examples
from workers.learning.features import FeatureMaker
from workers.learning.run import train
from workers.learning.source import FEATURES, read_sources
from workers.learning.training import Arrays


@pytest.fixture
def shop(connection: Connection) -> Connection:
    return worded_shop(connection)


def state(connection: Connection, model: int) -> str:
    row = connection.execute("select state from dynrec.model_versions where model_version = %s", [model]).fetchone()
    assert row is not None
    return str(row[0])


def items(connection: Connection, user: str, **arguments: object) -> list[tuple[str, int]]:
    named = "".join(f", {name} => %({name})s" for name in arguments)
    return connection.execute(
        f"select item_id, model_version from dynrec.recommend('shop', %(user)s, 8{named})".encode(),
        {"user": user, **arguments},
    ).fetchall()


@pytest.fixture
def workers_url(shop: Connection, database_url: str) -> Iterator[str]:
    """The database as a role that is a worker and nothing else."""
    shop.execute("create role a_worker login password 'secret' in role dynrec_worker")
    yield f"postgresql://a_worker:secret@{database_url.rpartition('@')[2]}"
    shop.execute("drop role a_worker")


def test_a_worker_needs_no_right_on_any_table(shop: Connection, settings: Settings, workers_url: str) -> None:
    with running(settings, workers_url):
        assert fresh(shop)
        ((model,),) = shop.execute("select dynrec.stage_model('shop', options => '{\"promote\": true}')").fetchall()
        until(lambda: state(shop, model) == "active")
        shop.execute("insert into products values ('black-lamp', 'black lamp', 'lamp', 3)")
        shop.execute("insert into clicks values ('u3', 'black-lamp', 'view', now())")
        assert fresh(shop)
    indexed = shop.execute("select indexed from dynrec.model_versions where state in ('active', 'standby')").fetchall()
    assert indexed == [(True,), (True,)]
    assert items(shop, "u3")[0][1] == model
    with psycopg.connect(workers_url) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("select * from dynrec_data.change")


def test_from_staging_to_rollback(shop: Connection, settings: Settings, database_url: str) -> None:
    with running(settings, database_url):
        assert fresh(shop)
        before = items(shop, "u3")
        ((model,),) = shop.execute("select dynrec.stage_model('shop')").fetchall()
        until(lambda: state(shop, model) == "shadow")
        assert items(shop, "u3") == before
        shop.execute("select dynrec.promote_model('shop')")
        after = items(shop, "u3")
        assert {version for _, version in after} == {model}
        assert all(item.endswith("-spoon") for item, _ in after)
        # a new item is served by the model as soon as it is fresh
        shop.execute("insert into products values ('odd-spoon', 'odd spoon', 'spoon', 4)")
        assert fresh(shop)
        list_of_12 = "select item_id, source, model_version from dynrec.recommend('shop', 'u3', 12)"
        assert ("odd-spoon", "personal", model) in shop.execute(list_of_12.encode()).fetchall()
        shop.execute("select dynrec.rollback_model('shop')")
        assert [version for _, version in items(shop, "u3")] == [version for _, version in before]
        shop.execute("select dynrec.retire_model('shop', %s)", [model])
        assert state(shop, model) == "retired"
        assert shop.execute("select to_regclass(%s) is null", [f"dynrec_data.item_vector_{model}"]).fetchone() == (
            True,
        )
        shop.execute("update products set title = 'very odd spoon' where id = 'odd-spoon'")
        assert fresh(shop)


def test_training_on_promotes_what_does_not_lose(shop: Connection, settings: Settings, database_url: str) -> None:
    with running(settings, database_url):
        assert fresh(shop)
        first = train(settings, database_url, "shop", options={"promote": True})
        until(lambda: state(shop, first) == "active")
        shop.execute("insert into clicks select user_id, item_id, kind, occurred_at + interval '30 days' from clicks")
        assert fresh(shop)
        second = train(settings, database_url, "shop", options={"promote": True}, continue_active=True)
        until(lambda: state(shop, second) in ("active", "shadow"))
        row = shop.execute(
            "select parent_model, data_until, metrics from dynrec.model_versions where model_version = %s", [second]
        ).fetchone()
        assert row is not None
        assert row[0] == first
        loses = row[2]["ndcg_at_10"] < row[2]["active"]["ndcg_at_10"]
        assert state(shop, second) == ("shadow" if loses else "active")
        staged = shop.execute("select max(model_version) from dynrec.model_versions").fetchone()
        with pytest.raises(InvalidArgumentError, match=r"options.decays: .* made with \[1.0, 0.9, 0.5\]: '\[0.99\]'"):
            train(settings, database_url, "shop", options={"decays": [0.99]}, continue_active=True)
        assert shop.execute("select max(model_version) from dynrec.model_versions").fetchone() == staged
        with pytest.raises(ConfigurationError, match="training option numbers_rank cannot be 4 where training goes on"):
            train(settings, database_url, "shop", options={"numbers_rank": 4}, continue_active=True)


def test_sql_serves_what_was_trained(shop: Connection, settings: Settings, database_url: str) -> None:
    """No skew: from the same rows the towers in torch and the functions in SQL score alike."""
    shop.execute("update clicks set kind = null where user_id in ('u1', 'u2')")
    shop.execute("alter table products add stock int; update products set stock = length(title) where sort <> 'lamp'")
    shop.execute("select dynrec.alter_recommender('shop', numeric_columns => '{price,stock}')")
    serves_what_was_trained(shop, settings, database_url)


def test_sql_serves_what_was_trained_on_dirty_data(shop: Connection, settings: Settings, database_url: str) -> None:
    """What nobody would want in a table counts for both alike, or for neither."""
    shop.execute("select dynrec.drop_recommender('shop')")
    shop.execute("""
        alter table clicks add amount double precision;
        update clicks set amount = case when item_id like 'red%' then float8 'NaN' when item_id not like 'old%' then length(item_id) end;
        insert into clicks select * from clicks where user_id in ('u1', 'u2') or item_id like '%lamp';
        insert into clicks select user_id, item_id, kind, '1960-02-03', amount from clicks where user_id in ('u2', 'u3');
        insert into clicks values ('u4', 'new-chair', 'view', '0044-03-15', 1), (null, 'red-lamp', 'view', '2026-01-01', 1),
          ('u4', null, 'view', '2026-01-01', 1), ('u4', 'red-lamp', 'view', null, 1), ('u4', 'red-lamp', 'view', '-infinity', 1)""")
    shop.execute("""
        select dynrec.create_recommender('shop', 'products', text_columns => '{title}', categorical_columns => '{sort}',
          numeric_columns => '{price}', interactions => 'clicks', kind_column => 'kind', value_column => 'amount',
          encoder => 'hashing', options => '{"exclude_seen": false}')""")
    serves_what_was_trained(shop, settings, database_url)


def serves_what_was_trained(shop: Connection, settings: Settings, database_url: str) -> None:
    now = START + timedelta(days=2)
    shop.execute(
        sql.SQL("alter database {} set dynrec.clock = {}").format(sql.Identifier(shop.info.dbname), now.isoformat())
    )
    with running(settings, database_url):
        assert fresh(shop)
        model = train(settings, database_url, "shop")
        until(lambda: state(shop, model) == "shadow")
    shop.execute("select set_config('dynrec.clock', %s, false)", [now.isoformat()])
    with queue.connect(database_url, application_name="test") as connection:
        expected = torch_scores(connection, model, now)
    for user, scores in expected.items():
        rows = shop.execute(
            "select item_id, score from dynrec.recommend('shop', %s, 64, by_model => %s)", [user, model]
        ).fetchall()
        assert len(rows) == len(scores)
        assert dict(rows) == pytest.approx(scores, abs=2e-3)


def torch_scores(connection: queue.Connection, model: int, now: datetime) -> dict[str, dict[str, float]]:
    """The score of every item for five users, from the model's files and the rows that training reads."""
    fitted = from_artefacts(models.artefacts(connection, model))
    ((recommender,),) = connection.execute("select id from dynrec_data.recommender where name = 'shop'").fetchall()
    assert isinstance(recommender, int)
    training = models.Training("shop", recommender, 1, None, now, {}, exclude_seen=False)
    features = FeatureMaker.from_bytes(models.artefacts(connection, model)[FEATURES])
    data = read_sources(connection, model, training, {}, features).data
    towers = fitted.towers()
    arrays = replace(Arrays.of(data, towers), paces=fitted.paces)
    assert fitted.paces[0].weights.nnz > 0
    chosen = np.array([data.users.index(f"u{n}") for n in range(1, 6)])
    ends = arrays.histories.start[chosen + 1]
    nothing = np.zeros(len(chosen))
    examples = Examples(
        user=chosen,
        end=ends,
        moment=np.full(len(chosen), now.timestamp()),
        first=np.arange(len(chosen) + 1),
        target=nothing.astype(np.int64),
        value=nothing.astype(np.float32),
        weight=nothing.astype(np.float32),
    )
    scored: dict[str, dict[str, float]] = {}
    for candidates, items in gather(towers, arrays, examples):
        scores = fitted.ranking()(candidates).detach().numpy()
        for row, user in enumerate(chosen):
            scored[data.users[user]] = {
                data.items[item]: float(score) for item, score in zip(items[row], scores[row], strict=True) if item >= 0
            }
    return scored


def test_another_encoder(shop: Connection, settings: Settings, database_url: str) -> None:
    shop.execute("select dynrec.register_encoder('small', 'hashing', '', 32)")
    with running(settings, database_url):
        assert fresh(shop)
        first = items(shop, "u3")[0][1]
        ((model,),) = shop.execute("select dynrec.stage_model('shop', encoder => 'small')").fetchall()
        until(lambda: state(shop, model) == "shadow")
        shop.execute("select dynrec.promote_model('shop')")
        assert {version for _, version in items(shop, "u3")} == {model}
        shop.execute("update products set title = 'wholly other' where id = 'red-lamp'")
        assert fresh(shop)
        moved = "select valid_from from dynrec_data.item_vector where item_id = 'red-lamp' order by valid_from"
        ((one,), (other,)) = shop.execute(moved.encode()).fetchall()
        assert one == other
        assert shop.execute("select dynrec.rollback_model('shop')").fetchone() == (first,)
        assert {version for _, version in items(shop, "u3")} == {first}


@dataclass
class Lists:
    """What readers got."""

    wrong: list[str] = field(default_factory=list)  # errors, and lists that are not of one model's rows alone
    models: set[int] = field(default_factory=set)  # that answered


@contextmanager
def readers(url: str) -> Iterator[Lists]:
    """Readers that ask all the time."""
    lists = Lists()
    stop = threading.Event()

    def read() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            while not stop.is_set():
                try:
                    rows = items(connection, "u5")
                except psycopg.Error as error:
                    lists.wrong.append(str(error))
                    return
                versions = {version for _, version in rows}
                if len(rows) != 8 or len(versions) != 1:
                    lists.wrong.append(str(rows))
                lists.models |= versions

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    yield lists
    stop.set()
    for thread in threads:
        thread.join()


def test_readers_notice_nothing_of_promotions(shop: Connection, settings: Settings, database_url: str) -> None:
    """Nor of the retirement of what answered three promotions ago."""
    with running(settings, database_url), readers(database_url) as lists:
        assert fresh(shop)
        models = [train(settings, database_url, "shop", options={"epochs": 1, "seed": seed}) for seed in range(3)]
        for model in models:
            until(partial(lambda one: state(shop, one) == "shadow", model))
        for _ in range(10):
            shop.execute("select dynrec.promote_model('shop', %s)", [models[0]])
            shop.execute("insert into clicks values ('u5', 'red-chair', 'view', now())")
            shop.execute("select dynrec.rollback_model('shop')")
        shop.execute("select dynrec.promote_model('shop', %s)", [models[0]])
        until(lambda: models[0] in lists.models)
        # the others in a row, while somebody may still be reading from the first
        for model in models[1:]:
            shop.execute("select dynrec.promote_model('shop', %s)", [model])
        until(lambda: state(shop, models[0]) == "retired")
        assert fresh(shop)
        lists.models.clear()
        until(lambda: models[2] in lists.models)
        assert lists.wrong == []


def test_a_bad_option_is_named_before_anything_begins(shop: Connection, settings: Settings, database_url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"no training option 'epoch': choose from .*epochs"):
        train(settings, database_url, "shop", options={"epoch": 3})
    with pytest.raises(ConfigurationError, match=r"training option epochs cannot be 'many'"):
        train(settings, database_url, "shop", options={"epochs": "many"})
    assert shop.execute("select count(*) from dynrec.model_versions").fetchone() == (1,)


def test_training_without_vectors_says_what_to_wait_for(
    shop: Connection, settings: Settings, database_url: str
) -> None:
    with pytest.raises(ConfigurationError, match=r"items of recommender 'shop' have no vectors yet"):
        train(settings, database_url, "shop")
    assert shop.execute("select state from dynrec.model_versions where kind = 'learned'").fetchall() == [("failed",)]


def test_a_training_that_fails_says_why_and_can_be_tried_again(
    shop: Connection, settings: Settings, database_url: str
) -> None:
    ((model,),) = shop.execute("select dynrec.stage_model('shop', options => '{\"batch\": 0}')").fetchall()
    with running(settings, database_url):
        until(lambda: state(shop, model) == "failed")
    row = shop.execute("select error from dynrec.model_versions where model_version = %s", [model]).fetchone()
    assert row is not None
    assert row[0].startswith("ConfigurationError: training option batch cannot be 0: give a whole number from 1 to")


def test_the_command_line(shop: Connection, settings: Settings, database_url: str) -> None:
    def dynrec(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"DYNREC_DATABASE_URL": database_url}
        command = [sys.executable, "-m", "dynrec_store", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)

    with running(settings, database_url):
        assert fresh(shop)
        trained = dynrec("train", "shop", "--option", "epochs=1", "--option", "seed=7")
        assert trained.returncode == 0, trained.stderr
        version = json.loads(dynrec("models", "--json").stdout)[-1]
        assert (version["kind"], version["recommender"]) == ("learned", "shop")
        assert f"model version {version['model_version']} is trained" in trained.stderr
        until(lambda: state(shop, version["model_version"]) == "shadow")
        assert f"model version {version['model_version']} answers" in dynrec("promote", "shop").stderr
        assert state(shop, version["model_version"]) == "active"
        assert "model version 1 answers" in dynrec("rollback", "shop").stderr
    refused = dynrec("train", "shop", "--option", "epoch=1")
    assert refused.returncode == 1
    assert "there is no training option 'epoch'" in refused.stderr
    assert dynrec("train", "shop", "--option", "epochs").returncode == 2
