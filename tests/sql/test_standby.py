"""A streaming standby answers as its primary does; what would have to write says where to go."""

import json
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from typer.testing import CliRunner

from dynrec_store import FeatureStore, database, migrate
from dynrec_store.cli import app
from dynrec_store.embedded import EmbeddedPostgres
from dynrec_store.exceptions import DatabaseError
from tests.drain import Session
from tests.faults.standby import either, follow
from tests.sql.shop import NOON, Event, Shop, create_shop

# Every function for readers that is more than arithmetic; before: a moment in the past, from which on there were vectors.
CALLS: dict[str, LiteralString] = {
    "recommend": "select item_id, rank, score, source from dynrec.recommend('shop', %(user)s, k => 8, filter => 'price > 2', diversity => 0.2)",
    "recommend as of": "select item_id, rank, score, source from dynrec.recommend('shop', %(user)s, k => 8, as_of => %(before)s)",
    "recommend experiment": "select item_id, rank, score, source from dynrec.recommend('shop', %(user)s, experiment => 'colours')",
    "recommend_for_items": "select item_id, rank, score from dynrec.recommend_for_items('shop', '{1,5}')",
    "similar_items": "select item_id, rank, score from dynrec.similar_items('shop', '3')",
    "similar_items as of": "select item_id, rank, score from dynrec.similar_items('shop', '3', as_of => %(before)s)",
    "trending": "select item_id, rank, score from dynrec.trending('shop')",
    "trending as of": "select item_id, rank, score from dynrec.trending('shop', as_of => %(before)s)",
    "search": "select item_id, rank, score from dynrec.search('shop', 'lamp or chair', dynrec.item_vector_at('shop', '1'))",
    "explain": "select * from dynrec.explain('shop', %(user)s, '9')",
    "item_vector_at": "select dynrec.item_vector_at('shop', '1', %(before)s)::text",
    "user_vector_at": "select dynrec.user_vector_at('shop', %(user)s)::text",
    "item_history": "select * from dynrec.item_history('shop', '1')",
    "drift": "select * from dynrec.drift('shop', '1')",
    "item_features_at": "select * from dynrec.item_features_at('shop', '1', %(before)s)",
    "user_features_at": "select * from dynrec.user_features_at('shop', %(user)s, %(before)s)",
    "training_examples": "select * from dynrec.training_examples('shop', '2024-03-01', '2024-04-01', backdated => true)",
    "evaluation_lists": "select * from dynrec.evaluation_lists('shop', %(before)s, '2100-01-01')",
    "evaluate": "select * from dynrec.evaluate('shop', %(before)s, '2100-01-01')",
    "evaluate_users": "select * from dynrec.evaluate_users('shop', %(before)s, '2100-01-01')",
    "compare_models": "select * from dynrec.compare_models('shop', %(before)s, '2100-01-01', 1, 1)",
    "counterfactual_metrics": "select * from dynrec.counterfactual_metrics('shop', %(before)s, '2100-01-01')",
    "score_calibration": "select * from dynrec.score_calibration('shop', %(before)s, '2100-01-01')",
    "attributed_impressions": "select * from dynrec.attributed_impressions('shop', '2024-01-01', '2100-01-01')",
    "online_metrics": "select * from dynrec.online_metrics('shop', '2024-01-01', '2100-01-01')",
    "experiment_arm": "select dynrec.experiment_arm('shop', 'colours', %(user)s)",
    "experiment_results": "select * from dynrec.experiment_results('shop', 'colours', %(after)s)",
    "data_drift": "select * from dynrec.data_drift('shop')",
    "index_recall": "select * from dynrec.index_recall('shop')",
    "wait_until_fresh": "select dynrec.wait_until_fresh('shop')",
    "doctor": "select subject, severity, finding from dynrec.doctor()",
}
VIEWS = ["encoders", "experiment_arms", "experiments", "failures", "features", "measurements", "model_versions", "queue", "status"]  # fmt: skip
BY_THE_CLOCK = {"alerts", "freshness", "metrics"}  # which differs between two calls


@pytest.fixture(scope="module")
def pair(open_folder: Path, postgres_package: str) -> Iterator[tuple[EmbeddedPostgres, EmbeddedPostgres]]:
    """A primary and its standby."""
    folder = open_folder / "replicated"
    folder.mkdir(mode=0o755)
    with EmbeddedPostgres(
        folder / "primary", package=postgres_package, settings={"shared_buffers": "128MB"}
    ) as primary:
        migrate.upgrade(primary.url)
        standby = follow(primary, folder / "standby", postgres_package)
        yield primary, standby
        standby.stop()


@pytest.fixture(scope="module")
def primary(pair: tuple[EmbeddedPostgres, EmbeddedPostgres]) -> Iterator[Shop]:
    with database.connect(pair[0].url) as connection:
        shop = create_shop(connection, products=60)
        shop.drain()
        shop.execute('select dynrec.create_experiment(\'shop\', \'colours\', \'[{"arm": "red"}, {"arm": "blue"}]\')')
        shop.add_events(
            Event(f"u{n % 10}", str(1 + (n * 7) % 40), NOON + n * timedelta(hours=5), ["view", "purchase"][n % 2])
            for n in range(120)
        )
        shop.drain()
        yield shop


@pytest.fixture(scope="module")
def moments(primary: Shop) -> dict[str, Any]:
    """Half of what is there was known before, and all of it after."""
    before = primary.value("select clock_timestamp()")
    shown = [
        f'{{"user_id": "u{n}", "item_ids": ["1", "8", "9"], "model_version": 1, "experiment": "colours"}}'
        for n in range(10)
    ]
    primary.execute("select dynrec.log_impressions('shop', %s::jsonb)", [f"[{', '.join(shown)}]"])
    now = primary.value("select clock_timestamp()")
    primary.add_events(Event(f"u{n % 10}", str(1 + n % 40), now, "view") for n in range(40))
    primary.execute("update shop.products set title = title || ' again' where id < 10")
    primary.drain()
    return {"before": before, "after": primary.value("select clock_timestamp()"), "user": "u3"}


@pytest.fixture
def standby(
    pair: tuple[EmbeddedPostgres, EmbeddedPostgres],
    primary: Shop,
    moments: dict[str, Any],  # noqa: ARG001  what happened until then
) -> Iterator[Session]:
    """A connection to the standby, which has all that there is."""
    with database.connect(pair[1].url) as connection:
        caught_up(primary.connection, connection)
        yield connection


def caught_up(primary: Session, standby: Session) -> None:
    position = primary.execute("select pg_current_wal_lsn()::text").fetchone()
    patience = time.monotonic() + 60
    while standby.execute("select pg_last_wal_replay_lsn() >= %s::pg_lsn", position).fetchone() != (True,):
        assert time.monotonic() < patience, "the standby does not catch up"
        time.sleep(0.02)


def rounded(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """What does not depend on the moment of the call, by which decayed numbers differ in their last digits."""
    return [tuple(round(value, 6) if isinstance(value, float) else value for value in row) for row in rows]


@pytest.mark.parametrize("call", CALLS)
def test_what_is_read(call: str, primary: Shop, standby: Session, moments: dict[str, Any]) -> None:
    expected = primary.execute(CALLS[call], moments)
    assert expected != [] or call in {
        "counterfactual_metrics",
        "data_drift",
    }  # nothing was shown at random, or was learned
    assert rounded(standby.execute(CALLS[call], moments).fetchall()) == rounded(expected)


def test_every_reading_function_is_among_them(primary: Shop) -> None:
    named = primary.execute(
        """
        select distinct p.proname from dynrec._role_functions() f
        join pg_proc p on p.proname = f.name and p.pronamespace = 'dynrec'::regnamespace
        where f.role = 'dynrec_reader' and p.provolatile <> 'i' and p.proname !~ '^_'
        """
    )
    assert {name for (name,) in named} == {call.split()[0] for call in CALLS}


@pytest.mark.parametrize("view", VIEWS)
def test_views(view: str, primary: Shop, standby: Session) -> None:
    statement = f"select to_jsonb(v) from dynrec.{view} v order by 1".encode()
    assert standby.execute(statement).fetchall() == primary.connection.execute(statement).fetchall()


def test_every_view_can_be_asked(standby: Session) -> None:
    names = {name for (name,) in standby.execute("select viewname from pg_views where schemaname = 'dynrec'")}
    assert names == BY_THE_CLOCK | set(VIEWS)
    for name in BY_THE_CLOCK:
        standby.execute(f"select * from dynrec.{name}".encode()).fetchall()


@pytest.mark.parametrize(
    "call",
    [
        "select dynrec.log_impressions('shop', 'u1', '{1}')",
        """select dynrec.log_impressions('shop', '[{"user_id": "u1", "item_ids": ["1"], "experiment": "colours"}]')""",
        "select dynrec.log_exposure('shop', 'colours', 'u1')",
    ],
)
def test_what_is_noted_has_to_be_noted_on_the_primary(call: LiteralString, standby: Session) -> None:
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction, match="standby") as raised:
        standby.execute(call)
    assert "target_session_attrs=read-write" in (raised.value.diag.message_hint or "")


def test_in_a_transaction_that_only_reads_the_primary_says_so(primary: Shop) -> None:
    with primary.connection.transaction(force_rollback=True):
        primary.execute("set transaction read only")
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction, match="read only") as raised:
            primary.execute("select dynrec.log_exposure('shop', 'colours', 'u1')")
    assert "read write" in (raised.value.diag.message_hint or "")


def test_python_reads_from_the_one_and_notes_on_the_other(
    pair: tuple[EmbeddedPostgres, EmbeddedPostgres], standby: Session, primary: Shop
) -> None:
    moment = primary.value("select clock_timestamp()")
    shown = [{"user_id": "u1", "item_ids": ["1"]}]
    urls = [server.url for server in pair]
    with (
        FeatureStore.connect(either(*urls, attributes="prefer-standby")) as reading,
        FeatureStore.connect(either(*reversed(urls))) as writing,
    ):
        assert reading.recommend("shop", user_id="u3", k=3) == writing.recommend("shop", user_id="u3", k=3)
        with pytest.raises(DatabaseError, match="target_session_attrs=read-write"):
            reading.log_impressions("shop", shown)
        assert writing.log_impressions("shop", shown) == 1
    caught_up(primary.connection, standby)
    noted = "select count(*) from dynrec.attributed_impressions('shop', %s, '2100-01-01')"
    assert standby.execute(noted, [moment]).fetchone() == (1,)


@pytest.mark.parametrize("command", [("status",), ("doctor",), ("alerts",), ("recommend", "shop", "u3")])
def test_commands(
    command: tuple[str, ...],
    pair: tuple[EmbeddedPostgres, EmbeddedPostgres],
    standby: Session,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on the primary; doctor and alerts find there, too, that nobody works."""
    assert standby.execute("select pg_is_in_recovery()").fetchone() == (True,)
    answers = []
    for server in pair:
        monkeypatch.setenv("DYNREC_DATABASE_URL", server.url)
        done = CliRunner().invoke(app, [*command, "--json"])
        answers.append((done.exit_code, json.loads(done.stdout)))
    assert answers[0][0] == (1 if command[0] in {"doctor", "alerts"} else 0)
    assert answers[1][0] == answers[0][0]
    assert type(answers[1][1]) is type(answers[0][1])
    assert len(answers[1][1]) == len(answers[0][1]) > 0
