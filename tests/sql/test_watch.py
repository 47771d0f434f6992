"""The watch: what is noted of which version and which period, who is due, and who does not get in whose way."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from tests.drain import Session
from tests.learned import backfill, make_config, stage
from tests.sql.shop import NOON, Event, Shop

USERS = [f"u{n}" for n in range(8)]
Noted = dict[tuple[str, int | None, str], tuple[Any, ...]]


@pytest.fixture
def watched(shop: Shop) -> Shop:
    """A shop with a past, whose vectors are complete and whose profile is taken."""
    shop.add_events(
        Event(USERS[n % 6], str(1 + (n * 7) % 11), NOON + timedelta(hours=n), ["view", "purchase"][n % 2], 1)
        for n in range(40)
    )
    shop.drain()
    shop.execute("select dynrec._take_profiles()")
    return shop


def now(shop: Shop) -> datetime:
    moment: datetime = shop.value("select clock_timestamp()")
    return moment


def act(shop: Shop, shift: int = 0) -> None:
    """Every user meets an item at this very moment."""
    for n, user in enumerate(USERS):
        shop.add_events([Event(user, str(1 + (5 * n + shift) % 12), now(shop), "purchase", 2)])


def watch(shop: Shop) -> datetime:
    """Measure; the moment of it. What is returned is how many rows there are more."""
    before = shop.value("select count(*) from dynrec_data.measurement")
    noted = shop.value("select dynrec.watch(%s)", [shop.name])
    assert shop.value("select count(*) from dynrec_data.measurement") == before + noted
    moment: datetime = shop.value("select measured_at from dynrec_data.recommender where name = %s", [shop.name])
    return moment


def measured(shop: Shop, moment: datetime) -> list[tuple[Any, ...]]:
    return shop.execute(
        "select metric, at_k, slice, value, standard_error, n, model_version, period_from from dynrec.measurements "
        "where recommender = %s and measured_at = %s order by 1, 2, 3",
        [shop.name, moment],
    )


def period(shop: Shop, moment: datetime) -> tuple[datetime, int] | None:
    """From when on and which version a measurement judged; None where it judged no lists."""
    found = {(row[7], row[6]) for row in measured(shop, moment) if row[7] is not None}
    assert len(found) <= 1
    return next(iter(found), None)


def complete_since(shop: Shop, model: int = 1) -> datetime:
    moment: datetime = shop.value(
        "select (profile ->> 'taken_at')::timestamptz from dynrec_data.model_version where id = %s", [model]
    )
    return moment


def make_older(shop: Shop, age: str) -> None:
    """As if all had been made so long ago, its vectors and lists included."""
    for statement in (
        "update dynrec_data.recommender set created_at = created_at - %(age)s::interval, measured_at = measured_at - %(age)s::interval",
        """
        update dynrec_data.model_version set stored_at = stored_at - %(age)s::interval,
          profile = profile || jsonb_build_object('taken_at', (profile ->> 'taken_at')::timestamptz - %(age)s::interval)
        """,
        "update dynrec_data.model_activation set activated_at = activated_at - %(age)s::interval",
        "update dynrec_data.item_vector set created_at = created_at - %(age)s::interval",
    ):
        shop.connection.execute(statement.encode(), {"age": age})


def answering(shop: Shop, moment: datetime) -> int:
    """The version that answered at a moment."""
    return int(
        shop.value(
            "select model_id from dynrec_data.model_activation where activated_at <= %s order by activated_at desc limit 1",
            [moment],
        )
    )


@pytest.mark.parametrize("is_learned", [False, True], ids=["content", "learned"])
def test_what_is_noted_is_what_the_functions_say(watched: Shop, is_learned: bool) -> None:
    model = 1
    if is_learned:
        model = stage(watched.connection)
        backfill(watched.connection)
        watched.execute("select dynrec._take_profiles()")
        watched.execute("select dynrec.promote_model('shop')")
        watch(watched)
    act(watched)
    watched.execute("update shop.products set price = price + 50")
    watched.drain()
    moment = watch(watched)
    found = period(watched, moment)
    assert found is not None
    since, judged = found
    assert judged == model
    quality = watched.execute(
        "select metric, at_k, slice, value, standard_error, n from dynrec.evaluate('shop', \"from\" => %s, \"to\" => %s, k => '{10}', users => 1000)",
        [since, moment],
    )
    assert len(quality) > 20
    recall = watched.execute("select recall, standard_error, queries from dynrec.index_recall('shop', 10, 50)")
    drift = watched.execute("select subject, psi, n from dynrec.data_drift('shop')")
    assert {subject for subject, _, _ in drift} >= {"vectors", "items: price", "interactions: kind"}
    wanted: Noted = {
        **{(metric, k, part): (value, error, n, model, since) for metric, k, part, value, error, n in quality},
        ("index_recall_at_k", 10, "all"): (*recall[0], model, None),
        **{("psi", None, subject): (psi, None, n, model, None) for subject, psi, n in drift},
    }
    got: Noted = {(metric, k, part): tuple(rest) for metric, k, part, *rest in measured(watched, moment)}
    assert got.keys() == wanted.keys()
    for key, row in wanted.items():
        assert got[key][:2] == (pytest.approx(row[0]), row[1] and pytest.approx(row[1])), key
        assert got[key][2:] == row[2:], key
    assert got["psi", None, "items: price"][0] > 0.25


def test_periods_follow_one_another(watched: Shop) -> None:
    moments = []
    for shift in range(4):
        if shift != 2:  # nobody does anything in the third
            act(watched, shift)
        moments.append(watch(watched))
    assert period(watched, moments[0]) == (complete_since(watched), 1)
    assert period(watched, moments[1]) == (moments[0], 1)
    assert period(watched, moments[2]) is None
    assert period(watched, moments[3]) == (moments[2], 1)


@pytest.mark.parametrize("every", ["1 day", "3 hours", None])
def test_a_period_is_no_longer_than_measure_every(watched: Shop, every: str | None) -> None:
    watched.execute(
        "update dynrec_data.recommender set options = jsonb_set(options, '{measure_every}', coalesce(to_jsonb(%s::text), 'null'))",
        [every],
    )
    make_older(watched, "40 days")
    act(watched)
    length = timedelta(hours=3) if every == "3 hours" else timedelta(days=1)
    moment = watch(watched)
    assert period(watched, moment) == (moment - length, 1), "never measured before"
    watched.execute("update dynrec_data.recommender set measured_at = now() - interval '20 days'")
    act(watched, 1)
    moment = watch(watched)
    assert period(watched, moment) == (moment - length, 1), "measured long ago"


def test_nothing_is_judged_before_the_vectors_were_complete(shop: Shop) -> None:
    shop.add_events([Event("u1", "3", NOON, "view")])
    shop.drain()
    act(shop)
    early = watch(shop)
    assert period(shop, early) is None
    assert {row[0] for row in measured(shop, early)} == {"index_recall_at_k"}
    shop.execute("select dynrec._take_profiles()")
    act(shop, 1)
    assert period(shop, watch(shop)) == (complete_since(shop), 1)


def test_the_version_that_answered_in_the_beginning_is_judged(watched: Shop) -> None:
    watch(watched)
    model = stage(watched.connection)
    backfill(watched.connection)
    watched.execute("select dynrec._take_profiles()")
    act(watched)
    before = watch(watched)
    watched.execute("select dynrec.promote_model('shop')")
    act(watched, 1)
    between = watch(watched)
    act(watched, 2)
    after = watch(watched)
    assert period(watched, between) == (before, 1)
    assert period(watched, after) == (between, model)
    for moment in (between, after):
        assert {row[6] for row in measured(watched, moment) if row[0] in {"psi", "index_recall_at_k"}} == {model}


@pytest.mark.parametrize("first", ["never measured", "measured before the first profile"])
def test_whoever_answered_when_the_vectors_were_complete_is_judged(shop: Shop, first: str) -> None:
    """The period begins with a profile, and with it the question who answered then."""
    shop.add_events([Event("u1", "3", NOON, "view")])
    shop.drain()
    model = stage(shop.connection)
    backfill(shop.connection)
    if first == "never measured":
        shop.execute("select dynrec._take_profiles()")
        shop.execute("select dynrec.promote_model('shop')")
    else:
        watch(shop)
        shop.execute("select dynrec.promote_model('shop')")
        shop.execute("select dynrec._take_profiles()")
    act(shop)
    found = period(shop, watch(shop))
    assert found is None or found[1] == answering(shop, found[0])
    act(shop, 1)
    found = period(shop, watch(shop))
    assert found is not None
    assert found[1] == model


def test_a_version_retired_in_between_is_passed_over(watched: Shop) -> None:
    model = stage(watched.connection)
    backfill(watched.connection)
    watched.execute("select dynrec._take_profiles()")
    watched.execute("select dynrec.promote_model('shop')")
    before = watch(watched)
    assert answering(watched, before) == model
    watched.execute("select dynrec.rollback_model('shop')")
    watched.execute("select dynrec.retire_model('shop', %s)", [model])
    act(watched)
    moment = watch(watched)
    assert period(watched, moment) is None
    assert {row[6] for row in measured(watched, moment)} == {1}
    act(watched, 1)
    assert period(watched, watch(watched)) == (moment, 1)


def test_a_version_that_three_promotions_later_is_gone(watched: Shop) -> None:
    """What the task of a promotion retires as well."""
    for seed in range(3):
        stage(watched.connection, make_config(seed))
        backfill(watched.connection)
        watched.execute("select dynrec._take_profiles()")
        watched.execute("select dynrec.promote_model('shop')")
        if seed == 0:
            watch(watched)
        watched.drain()
    act(watched)
    assert period(watched, watch(watched)) is None


def test_recommenders_with_little_to_measure(connection: Session) -> None:
    """Without interactions, and without items."""
    connection.execute("create table things (id int primary key, name text)")
    connection.execute(
        "select dynrec.create_recommender('things', 'public.things', text_columns => '{name}', encoder => 'hashing')"
    )
    shop = Shop(connection, "things", "select id::text, name from things", None)
    shop.drain()
    assert measured(shop, watch(shop)) == []
    connection.execute("insert into things select n, 'thing ' || n from generate_series(1, 20) n")
    shop.drain()
    shop.execute("select dynrec._take_profiles()")
    assert {(row[0], row[2]) for row in measured(shop, watch(shop))} == {
        ("index_recall_at_k", "all"),
        ("psi", "vectors"),
    }
    for name in ("thngs", None):
        with pytest.raises(psycopg.Error, match=r"thngs|null"):
            shop.execute("select dynrec.watch(%s)", [name])


def test_a_column_that_is_both_a_number_and_a_label(watched: Shop) -> None:
    watched.execute(
        "select dynrec.alter_recommender('shop', numeric_columns => '{price}', categorical_columns => '{category,price}')"
    )
    watched.drain()
    watched.execute("update dynrec_data.model_version set profile = null; select dynrec._take_profiles()")
    watch(watched)


# Who is due.


def add_other(shop: Shop, name: str = "other") -> None:
    shop.execute(
        "select dynrec.create_recommender(%s, 'shop.products', text_columns => '{title}', interactions => 'shop.events', encoder => 'hashing')",
        [name],
    )
    shop.drain()
    shop.execute("select dynrec._take_profiles()")


def next_one(connection: Session) -> str | None:
    ((name,),) = connection.execute("select dynrec._watch_next()").fetchall()
    return None if name is None else str(name)


def ages(connection: Session, **of: str | None) -> None:
    """When recommenders were measured last; None: never, and made long ago."""
    for name, age in of.items():
        connection.execute(
            "update dynrec_data.recommender set measured_at = now() - %s::interval, created_at = now() - interval '100 days' where name = %s",
            [age, name],
        )


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


@contextmanager
def other_sessions(url: str) -> Iterator[tuple[Session, Session]]:
    """One whose transaction stays open, and one that must not wait for it."""
    with psycopg.connect(url) as holding, psycopg.connect(url, autocommit=True) as passing:
        yield holding, passing
        holding.rollback()


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


# What is kept, and what can be asked for.


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
