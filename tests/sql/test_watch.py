"""The watch: what is noted of which version and which period."""

from datetime import timedelta

import psycopg
import pytest

from tests.drain import Session
from tests.learned import backfill, make_config, stage
from tests.sql import watching
from tests.sql.shop import NOON, Event, Shop
from tests.sql.watching import Noted, act, answering, complete_since, make_older, measured, period, watch

watched = watching.watched


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
