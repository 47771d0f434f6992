"""Who is measured when, who does not get in whose way, and how long measurements are kept."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import psycopg
import pytest

from tests.learned import backfill, stage
from tests.sql import watching
from tests.sql.shop import Shop
from tests.sql.watching import act, add_other, ages, complete_since, next_one, other_sessions, watch

watched = watching.watched


def test_only_what_is_due_is_measured(watched: Shop) -> None:
    assert next_one(watched.connection) is None, "made just now"
    ages(watched.connection, shop="23 hours")
    assert next_one(watched.connection) is None
    ages(watched.connection, shop="24 hours")
    assert next_one(watched.connection) == "shop"
    assert next_one(watched.connection) is None
    ages(watched.connection, shop=None)
    assert next_one(watched.connection) == "shop"
    ages(watched.connection, shop="2 hours")
    watched.execute("select dynrec.alter_recommender('shop', options => '{\"measure_every\": \"1 hour\"}')")
    assert next_one(watched.connection) == "shop"
    ages(watched.connection, shop=None)
    watched.execute("select dynrec.pause('shop')")
    assert next_one(watched.connection) is None
    watched.execute("select dynrec.resume('shop')")
    watched.execute("select dynrec.alter_recommender('shop', options => '{\"measure_every\": null}')")
    assert next_one(watched.connection) is None
    watched.execute("select dynrec.alter_recommender('shop', options => '{\"measure_every\": \"100 years\"}')")
    assert next_one(watched.connection) is None


def test_the_longest_overdue_comes_first(watched: Shop) -> None:
    add_other(watched)
    add_other(watched, "third")
    ages(watched.connection, shop="3 days", other=None, third="4 days")
    assert [next_one(watched.connection) for _ in range(4)] == ["other", "third", "shop", None]


def test_two_sessions_never_measure_the_same(watched: Shop, database_url: str) -> None:
    ages(watched.connection, shop="2 days")
    act(watched)
    with other_sessions(database_url) as (holding, passing):
        assert next_one(holding) == "shop"
        assert next_one(passing) is None
        holding.rollback()
        assert next_one(passing) == "shop", "whoever was at it has gone"
        assert next_one(holding) is None


def test_while_one_is_measured_another_session_takes_the_next(watched: Shop, database_url: str) -> None:
    add_other(watched)
    ages(watched.connection, shop="2 days", other="3 days")
    with other_sessions(database_url) as (holding, passing):
        assert next_one(holding) == "other"
        assert next_one(passing) == "shop"
        assert next_one(passing) is None


def test_who_was_measured_meanwhile_is_not_due_any_more(watched: Shop, database_url: str) -> None:
    """One session is long at a recommender that fails in the end; before it goes on to the next, another was there."""
    watched.execute("create table clicks (user_id text, item_id bigint, kind text, occurred_at timestamptz)")
    watched.execute("create table things (id int primary key, name text); insert into things values (1, 'a'), (2, 'b')")
    watched.execute(
        "select dynrec.create_recommender('things', 'public.things', text_columns => '{name}', interactions => 'public.clicks', kind_column => 'kind', encoder => 'hashing')"
    )
    watched.drain()
    watched.execute("select dynrec._take_profiles()")
    ages(watched.connection, things="3 days", shop="2 days")
    with other_sessions(database_url) as (holding, slow), ThreadPoolExecutor(1) as pool:
        holding.execute("alter table clicks rename column kind to sort")
        answer = pool.submit(next_one, slow)
        while not watched.value(
            "select exists (select from pg_locks where not granted and pid = %s)", [slow.info.backend_pid]
        ):
            assert not answer.done()
        assert next_one(watched.connection) == "shop"
        moment = watched.value("select measured_at from dynrec_data.recommender where name = 'shop'")
        holding.commit()
        assert answer.result() is None
    assert watched.value("select measured_at from dynrec_data.recommender where name = 'shop'") == moment


@pytest.mark.parametrize(
    "broken", ["drop table shop.events cascade", "alter table shop.events rename column kind to sort"]
)
def test_one_that_cannot_be_measured_holds_no_other_up(watched: Shop, broken: str) -> None:
    watched.execute("create table things (id int primary key, name text); insert into things values (1, 'a'), (2, 'b')")
    watched.execute(
        "select dynrec.create_recommender('things', 'public.things', text_columns => '{name}', encoder => 'hashing')"
    )
    watched.drain()
    watched.execute("select dynrec._take_profiles()")
    act(watched)
    ages(watched.connection, shop="3 days", things="2 days")
    watched.connection.execute(broken.encode())
    for _ in range(3):
        with suppress(psycopg.Error):
            next_one(watched.connection)
    assert watched.value(
        "select measured_at > now() - interval '1 hour' from dynrec_data.recommender where name = 'things'"
    )


def test_one_without_its_table_holds_no_profile_up(shop: Shop) -> None:
    shop.execute("create table things (id int primary key, name text); insert into things values (1, 'a'), (2, 'b')")
    shop.execute(
        "select dynrec.create_recommender('things', 'public.things', text_columns => '{name}', encoder => 'hashing')"
    )
    shop.drain()
    shop.execute("drop table shop.events cascade")
    for _ in range(3):
        with suppress(psycopg.Error):
            shop.execute("select dynrec._take_profiles()")
    assert shop.value(
        "select profile is not null from dynrec_data.model_version m join dynrec_data.recommender r on r.id = m.recommender_id where r.name = 'things'"
    )


@pytest.mark.parametrize(
    "statement",
    [
        "select dynrec.promote_model('shop')",
        'select dynrec.create_experiment(\'shop\', \'new\', \'[{"arm": "a"}, {"arm": "b"}]\')',
        "select dynrec.alter_recommender('shop', options => '{\"exclude_seen\": false}')",
        "select dynrec.pause('shop')",
    ],
)
def test_nobody_waits_while_another_session_evaluates(watched: Shop, database_url: str, statement: str) -> None:
    stage(watched.connection)
    backfill(watched.connection)
    act(watched)
    with other_sessions(database_url) as (holding, passing):
        ((noted,),) = holding.execute(
            "select dynrec._measure_quality(r, %s, clock_timestamp()) from dynrec_data.recommender r",
            [complete_since(watched)],
        ).fetchall()
        assert noted > 0
        passing.execute("set statement_timeout = '5s'")  # instead of ten seconds of waiting for a lock
        passing.execute(statement.encode())


@pytest.mark.parametrize(
    "bad", ['"soon"', '"0"', '"30 seconds"', '"-1 day"', '"101 years"', "5", "true", '""', "{}", '"infinity"']
)
def test_measure_every_must_be_an_interval(shop: Shop, bad: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=r"options\.measure_every") as caught:
        shop.execute("select dynrec.alter_recommender('shop', options => %s::jsonb)", [f'{{"measure_every": {bad}}}'])
    assert "1 minute" in str(caught.value) or "00:01:00" in str(caught.value)
    assert shop.value("select options ->> 'measure_every' from dynrec_data.recommender") == "1 day"


@pytest.mark.parametrize("good", ['"1 minute"', '"90 days"', "null", '"1 month"'])
def test_measure_every_can_be(shop: Shop, good: str) -> None:
    shop.execute("select dynrec.alter_recommender('shop', options => %s::jsonb)", [f'{{"measure_every": {good}}}'])
    assert shop.value("select options ->> 'measure_every' from dynrec_data.recommender") == (
        None if good == "null" else good.strip('"')
    )
    next_one(shop.connection)


def test_measurements_are_kept_for_the_retention(watched: Shop) -> None:
    add_other(watched)
    watched.execute("select dynrec.alter_recommender('shop', options => '{\"retention\": \"10 days\"}')")
    watched.execute(
        """
        insert into dynrec_data.measurement (recommender_id, metric, at_k, slice, measured_at, model_id, value, n)
        select r.id, 'psi', 0, 'vectors', now() - make_interval(days => d), r.active_model_id, 0, 1
        from dynrec_data.recommender r, unnest('{1,9,11,364,366}'::int[]) d
        """
    )
    watched.execute("select dynrec._maintain()")
    assert watched.execute(
        "select recommender, array_agg(round(extract(epoch from now() - measured_at) / 86400)::int order by measured_at desc) from dynrec.measurements group by 1 order by 1"
    ) == [("other", [1, 9, 11, 364]), ("shop", [1, 9])]


def test_with_a_recommender_its_measurements_go(watched: Shop) -> None:
    add_other(watched)
    act(watched)
    watch(watched)
    watched.execute("select dynrec.watch('other')")
    watched.execute("select dynrec.drop_recommender('shop')")
    assert watched.execute("select distinct recommender from dynrec.measurements") == [("other",)]
    watched.execute("select dynrec.drop_recommender('other')")
    assert watched.value("select count(*) from dynrec_data.measurement") == 0
