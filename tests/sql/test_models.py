"""The life of a model version in SQL: what is refused, what is kept up to date, what schedules do."""

from typing import Any, LiteralString

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.learned import backfill, derive, make_config, stage
from tests.sql.shop import NOON, Event, Shop


@pytest.fixture
def events(shop: Shop) -> Shop:
    shop.add_events(Event(f"u{n % 4}", str(1 + n % 9), NOON, "view") for n in range(20))
    shop.drain()
    return shop


def state(shop: Shop, model: int) -> str:
    return str(shop.value("select state from dynrec.model_versions where model_version = %s", [model]))


def refused(shop: Shop, statement: LiteralString, message: str, *arguments: object) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=message):
        shop.execute(statement, arguments)


def test_nothing_is_promoted_before_its_backfill_is_done(events: Shop) -> None:
    model = stage(events.connection)
    assert state(events, model) == "backfilling"
    refused(
        events, "select dynrec.promote_model('shop', %s)", "cannot answer yet or any more: it is backfilling", model
    )
    refused(events, "select dynrec.promote_model('shop')", r"no model version to promote: null")
    backfill(events.connection)
    assert state(events, model) == "shadow"
    assert events.value("select dynrec.promote_model('shop')") == model


@pytest.fixture
def learned(events: Shop) -> int:
    """The number of a learned model that answers."""
    model = stage(events.connection)
    backfill(events.connection)
    events.execute("select dynrec.promote_model('shop')")
    return model


def test_what_lost_is_promoted_by_force_alone(events: Shop, learned: int) -> None:
    model = stage(events.connection, continue_active=True, ndcg_at_10=0.1, active={"ndcg_at_10": 0.2})
    backfill(events.connection)
    refused(
        events,
        "select dynrec.promote_model('shop')",
        f"loses against {learned}, which it goes on from, .*: nDCG@10 0.1 against 0.2",
    )
    assert events.value("select dynrec.promote_model('shop', force => true)") == model


def test_what_was_not_compared_is_promoted_by_force_alone(events: Shop, learned: int) -> None:
    model = stage(events.connection, continue_active=True)
    backfill(events.connection)
    refused(events, "select dynrec.promote_model('shop')", f"goes on from {learned}, and too little came since")
    assert events.value("select dynrec.promote_model('shop', force => true)") == model


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ({"ndcg_at_10": 0.2, "active": {"ndcg_at_10": 0.2}}, "active"),
        ({"ndcg_at_10": 0.19, "active": {"ndcg_at_10": 0.2}}, "shadow"),
        ({}, "shadow"),
    ],
)
@pytest.mark.usefixtures("learned")
def test_what_goes_on_is_promoted_unless_it_loses(events: Shop, metrics: dict[str, Any], expected: str) -> None:
    model = stage(events.connection, continue_active=True, options={"promote": True}, **metrics)
    backfill(events.connection)
    assert state(events, model) == expected


@pytest.mark.usefixtures("learned")
def test_what_goes_on_from_a_model_that_was_rolled_back_is_not_promoted(events: Shop) -> None:
    better: dict[str, Any] = {"ndcg_at_10": 0.3, "active": {"ndcg_at_10": 0.2}}
    model = stage(events.connection, continue_active=True, options={"promote": True}, **better)
    events.execute("select dynrec.rollback_model('shop')")
    backfill(events.connection)
    assert state(events, model) == "shadow"


def test_what_is_needed_cannot_be_retired(events: Shop) -> None:
    model = stage(events.connection)
    backfill(events.connection)
    content = events.value("select content_model_id from dynrec_data.recommender")
    refused(events, "select dynrec.retire_model('shop', %s)", "in use", content)
    refused(events, "select dynrec.retire_model('shop', 99)", "no such model version: '99'")
    events.execute("select dynrec.promote_model('shop')")
    refused(events, "select dynrec.retire_model('shop', %s)", "in use", model)
    events.execute("select dynrec.rollback_model('shop')")
    events.execute("select dynrec.retire_model('shop', %s)", [model])
    refused(events, "select dynrec.rollback_model('shop')", "no model version to go back to: 'shop'")


def test_older_models_are_retired_when_another_is_promoted(events: Shop) -> None:
    models = []
    for seed in range(3):
        models.append(stage(events.connection, make_config(seed)))
        backfill(events.connection)
        events.execute("select dynrec.promote_model('shop')")
        events.drain()
    assert [state(events, model) for model in models] == ["retired", "standby", "active"]
    assert events.value("select to_regclass(%s) is null", [f"dynrec_data.item_vector_{models[0]}"])
    refused(events, "select * from dynrec.recommend('shop', 'u1', by_model => %s)", "it is retired", models[0])


LOST: dict[str, Any] = {"ndcg_at_10": 0.1, "active": {"ndcg_at_10": 0.2}}


def staged(shop: Shop, *, promote: bool = True, **metrics: Any) -> int:
    """A trained model that is filled in and, if it is to be, promoted; with metrics it goes on from the active one."""
    model = stage(
        shop.connection, continue_active=bool(metrics), options={"promote": True} if promote else {}, **metrics
    )
    backfill(shop.connection)
    shop.drain()
    return model


@pytest.mark.usefixtures("learned")
def test_of_the_models_that_were_to_be_promoted_and_lost_the_newest_stays(events: Shop) -> None:
    by_hand = staged(events, promote=False, **LOST)
    first = staged(events, **LOST)
    assert [state(events, model) for model in (by_hand, first)] == ["shadow", "shadow"]
    second = staged(events, **LOST)
    assert [state(events, model) for model in (first, second)] == ["retired", "shadow"]
    tried = staged(events, promote=False)
    assert state(events, second) == "shadow", "what is staged by hand is no successor"
    better = staged(events)
    assert [state(events, model) for model in (by_hand, first, second, tried, better)] == [
        "shadow",
        "retired",
        "retired",
        "shadow",
        "active",
    ]
    # what lost can be promoted by force until another comes
    third = staged(events, **LOST)
    events.execute("select dynrec.promote_model('shop', %s, force => true)", [third])
    staged(events, **LOST)
    assert [state(events, model) for model in (better, third)] == ["standby", "active"]


@pytest.mark.usefixtures("learned")
def test_what_lost_stays_while_an_experiment_needs_it(events: Shop) -> None:
    lost = staged(events, **LOST)
    arms = Jsonb([{"arm": "a"}, {"arm": "b", "model_version": lost}])
    events.execute("select dynrec.create_experiment('shop', 'x', %s)", [arms])
    staged(events, **LOST)
    assert state(events, lost) == "shadow"
    events.execute("select dynrec.stop_experiment('shop', 'x')")
    events.execute("select dynrec._finish_backfills()")
    events.drain()
    assert state(events, lost) == "retired"


def test_what_was_superseded_when_it_was_queued_may_be_needed_when_it_is_retired(events: Shop) -> None:
    first, second = staged(events), staged(events)
    third = stage(events.connection, options={"promote": True})
    backfill(events.connection)
    assert ("task", "retire") in events.queued()
    for model in (first, third):
        events.execute("select dynrec.promote_model('shop', %s)", [model])
    events.drain()
    assert [state(events, model) for model in (first, second, third)] == ["standby", "retired", "active"]
    assert events.value("select dynrec.rollback_model('shop')") == first


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("[1]", r"options: not a JSON object: '\[1\]'"),
        (
            '{"epoch": 1}',
            r"options: there is no training option of that name: 'epoch'\n.*Options are: averaging, .*epochs, .*validation, value_task\.",
        ),
        ('{"promote": "yes"}', "options.promote: not a boolean: 'yes'"),
        ('{"promote": null}', "options.promote: not a boolean"),
    ],
)
def test_options_that_cannot_be_meant_are_refused_when_a_model_is_staged(
    events: Shop, options: str, message: str
) -> None:
    refused(events, "select dynrec.stage_model('shop', options => %s)", message, options)


def test_an_encoder_takes_no_options_of_training(events: Shop) -> None:
    events.execute("select dynrec.register_encoder('small', 'hashing', '', 32)")
    staging: LiteralString = (
        "select dynrec.stage_model('shop', encoder => 'small', options => %s, continue_active => %s)"
    )
    refused(
        events,
        staging,
        "continue_active and options mean nothing for it: '{\"promote\": true}'",
        '{"promote": true}',
        False,
    )
    refused(events, staging, "continue_active and options mean nothing for it: 'true'", "{}", True)
    assert isinstance(events.value(staging, ["{}", False]), int)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learned": 5}, "options.learned: training goes on from model version {0}, which was made with 4: '5'"),
        ({"content": 4}, "options.content: training goes on from model version {0}, which was made with 3: '4'"),
        ({"decays": [1, 0.9]}, r"options.decays: .* made with \[1.0, 0.9, 0.6\]: '\[1, 0.9\]'"),
        ({"content_decays": [0.5]}, r"options.content_decays: .* made with \[0.93, 0.4\]: '\[0.5\]'"),
        (
            {"features": {}},
            "options.features: training goes on from model version {0}, and its features are made as before",
        ),
    ],
)
def test_training_on_makes_no_other_model(events: Shop, learned: int, options: dict[str, Any], message: str) -> None:
    staging: LiteralString = "select dynrec.stage_model('shop', options => %s, continue_active => %s)"
    refused(events, staging, message.format(learned), Jsonb(options), True)
    assert events.value(staging, [Jsonb(options), False]) > learned


@pytest.mark.usefixtures("learned")
def test_training_on_can_be_told_what_is_so(events: Shop) -> None:
    same = {"learned": 4, "content": 3, "decays": [1, 0.9, 0.6], "content_decays": [0.93, 0.4], "seed": 5}
    assert events.value("select dynrec.stage_model('shop', options => %s, continue_active => true)", [Jsonb(same)])


def continuing(shop: Shop) -> int:
    """A model that waits for its training to go on from the active one."""
    return int(shop.value("select dynrec.stage_model('shop', continue_active => true)"))


def finish(shop: Shop) -> list[str]:
    """What the dispatcher does every few seconds, twice: the model versions whose retirement waits then."""
    shop.execute("select dynrec._finish_backfills(); select dynrec._finish_backfills()")
    return [entity for (entity,) in shop.execute("select entity from dynrec_data.task where action = 'retire'")]


@pytest.mark.parametrize("begun", [False, True])
def test_what_a_training_goes_on_from_stays_until_that_ends(events: Shop, learned: int, *, begun: bool) -> None:
    child = continuing(events)
    if begun:
        events.execute("select dynrec._training_begins(%s)", [child])
    before, after = staged(events), staged(events)
    events.drain()
    assert [state(events, model) for model in (learned, before, after)] == ["standby", "standby", "active"]
    assert finish(events) == []
    retire: LiteralString = "select dynrec.retire_model('shop', %s)"
    refused(events, retire, f"the training of model version {child} goes on from it: '{learned}'", learned)
    events.execute("select dynrec._training_failed(%s, 'no luck')", [child])
    assert finish(events) == [str(learned)]
    events.drain()
    assert [state(events, model) for model in (learned, before, after)] == ["retired", "standby", "active"]
    assert finish(events) == []


def test_what_a_training_went_on_from_can_be_retired(events: Shop, learned: int) -> None:
    child = stage(events.connection, continue_active=True)
    events.execute("select dynrec.rollback_model('shop')")
    waiting = events.value("select dynrec.stage_model('shop')")
    events.execute("select dynrec.retire_model('shop', %s)", [learned])
    assert [state(events, model) for model in (learned, child, waiting)] == ["retired", "backfilling", "staged"]


def test_a_model_whose_training_was_called_off_needs_no_other(events: Shop, learned: int) -> None:
    child = continuing(events)
    staged(events)
    staged(events)
    assert finish(events) == []
    events.execute("select dynrec.retire_model('shop', %s)", [child])
    assert finish(events) == [str(learned)]


def test_what_answered_goes_when_the_experiment_that_needed_it_has_ended(events: Shop, learned: int) -> None:
    arms = Jsonb([{"arm": "a"}, {"arm": "b", "model_version": learned}])
    events.execute("select dynrec.create_experiment('shop', 'x', %s)", [arms])
    staged(events)
    staged(events)
    assert finish(events) == []
    events.execute("select dynrec.stop_experiment('shop', 'x')")
    assert finish(events) == [str(learned)]


def test_of_two_that_are_complete_at_once_the_newer_answers(events: Shop) -> None:
    models = [stage(events.connection, make_config(seed), options={"promote": True}) for seed in range(2)]
    backfill(events.connection)
    assert [state(events, model) for model in models] == ["standby", "active"]


def test_an_item_is_stale_until_the_model_that_answers_has_its_vector(events: Shop) -> None:
    stage(events.connection)
    backfill(events.connection)
    stale: LiteralString = "select entities, stale, oldest is null from dynrec.freshness where kind = 'item'"
    events.execute("update shop.products set title = title || '!' where id in (1, 3)")
    assert events.execute(stale) == [(12, 2, False)]
    events.drain()
    assert events.execute(stale) == [(12, 0, True)], "the encoder's vectors answer"
    events.execute("select dynrec.promote_model('shop')")
    assert events.execute(stale) == [(12, 2, False)]
    events.execute("insert into shop.products (id, title) values (99, 'new'); delete from shop.products where id = 1")
    assert events.execute(stale) == [(13, 3, False)]
    backfill(events.connection)
    assert events.execute(stale) == [(12, 0, True)]


def test_bytes_are_those_of_current_vectors(events: Shop) -> None:
    model = stage(events.connection)
    size: LiteralString = "select bytes from dynrec.model_versions where model_version = %s"
    empty = events.value(size, [model])
    backfill(events.connection)
    assert events.value(size, [model]) > empty > 0
    events.execute("select dynrec.retire_model('shop', %s)", [model])
    assert events.value(size, [model]) == 0
    assert events.value(size, [1]) > 0


def test_a_config_that_cannot_be_served_is_refused_whole(events: Shop) -> None:
    broken_parts: list[dict[str, Any]] = [
        {"gates": [[1.0] * 25]},
        {"candidates": 0},
        {"mixture": []},
        {"power": [[0.1] * 24] * 5},
        {"value": {"mean": 0, "scale": 0, "slope": 0}},
    ]
    for broken in broken_parts:
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="config of a learned model: unusable"):
            stage(events.connection, make_config(**broken))
    assert events.value("select count(*) from dynrec_data.model_version where state = 'backfilling'") == 0


def test_training_is_scheduled(events: Shop) -> None:
    events.execute("select dynrec._maintain()")
    assert events.value("select count(*) from dynrec.model_versions") == 1
    events.execute("select * from dynrec.alter_recommender('shop', options => '{\"train_every\": \"1 day\"}')")
    events.execute("select dynrec._maintain(); select dynrec._maintain()")
    assert events.value("select count(*) from dynrec.model_versions where state = 'staged'") == 1
    assert events.value("select count(*) from dynrec._staged_models()") == 1
    refused(
        events,
        "select * from dynrec.alter_recommender('shop', options => '{\"train_every\": \"soon\"}')",
        "train_every.*'soon'",
    )


def test_features_that_move_with_time_are_read_again(events: Shop) -> None:
    stage(events.connection)
    backfill(events.connection)
    events.execute("select dynrec._maintain()")
    assert events.queued() == set()
    events.execute(
        "update dynrec_data.model_version set refreshed_at = now() - interval '25 hours' where kind = 'learned'"
    )
    events.execute("select dynrec._maintain(); select dynrec._maintain()")
    assert events.queued() == {("task", "scan_derived")}
    events.drain()
    derive(events.connection, "shop")
    assert events.queued() == set(), "the same vectors move nobody"


def test_diversity_by_a_learned_model_is_that_of_directions(events: Shop) -> None:
    """The second item is the one whose vector points away the most from the first's."""
    model = stage(events.connection)
    backfill(events.connection)
    events.execute("select dynrec.promote_model('shop')")
    (first, _, _), (second, _, _) = events.recommend("u1", k=2, diversity=1, exclude_seen=False)
    others = [item for item, _, _ in events.recommend("u1", k=12, exclude_seen=False) if item != first]
    cosines = dict(
        events.execute(
            "select o.item_id, 1 - (f.embedding <=> o.embedding) from dynrec_data.item_vector f, dynrec_data.item_vector o "
            "where f.model_id = %(m)s and o.model_id = %(m)s and f.item_id = %(first)s and o.item_id = any (%(others)s)",
            {"m": model, "first": first, "others": others},
        )
    )
    assert second == min(cosines, key=lambda item: cosines[item])
