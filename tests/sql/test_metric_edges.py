"""The metrics of sql/57_metrics.sql where there is little to compute, and what they refuse."""

import numpy as np
import psycopg
import pytest

from tests.drain import Session
from tests.sql import metrics
from tests.sql.metrics import close

migrated, reader = metrics.migrated, metrics.reader

# What a metric of one list is called with besides recommended and relevant.
PER_LIST = {
    "precision_at_k": "{}, {}, 2",
    "recall_at_k": "{}, {}, 2",
    "hit_rate_at_k": "{}, {}, 2",
    "reciprocal_rank": "{}, {}",
    "average_precision_at_k": "{}, {}, 2",
    "ndcg_at_k": "{}, {}, 2",
    "serendipity_at_k": "{}, {}, null, 2",
}
# recommended, relevant, and the metrics in the order of PER_LIST.
EDGES: list[tuple[str, str, list[float | None]]] = [
    ("array['a']", "null", [None] * 7),
    ("array['a']", "'{}'", [None] * 7),
    ("array['a']", "'{null}'", [None] * 7),
    ("null", "null", [None] * 7),
    ("'{}'", "array['a']", [0] * 7),
    ("null", "array['a']", [0] * 7),
    ("'{null}'", "array['a', null]", [0] * 7),
    ("array['a']", "array['a']", [1 / 2, 1, 1, 1, 1, 1, 1 / 2]),
    ("array['a', 'a']", "array['a', 'a']", [1 / 2, 1, 1, 1, 1, 1, 1 / 2]),
    ("array['x', 'y', 'a']", "array['a']", [0, 0, 0, 1 / 3, 0, 0, 0]),
    ("array['x', 'x', 'a']", "array['a']", [0, 0, 0, 1 / 3, 0, 0, 0]),
    ("array[null, 'a']", "array['a', null]", [1 / 2, 1, 1, 1 / 2, 1 / 2, 1 / np.log2(3), 1 / 2]),
    ("array['a', 'b']", "array['c', 'b', 'a']", [1, 2 / 3, 1, 1, 1, 1, 1]),
    ("array[['x', 'a'], ['b', 'c']]", "array[['a', 'b'], ['c', 'd']]", [1 / 2, 1 / 4, 1, 1 / 2, 1 / 4, 0.38685281, 1 / 2]),
    ("'[5:6]={x,a}'", "'[-3:-3]={a}'", [1 / 2, 1, 1, 1 / 2, 1 / 2, 1 / np.log2(3), 1 / 2]),
]  # fmt: skip


@pytest.mark.parametrize(("recommended", "relevant", "wanted"), EDGES)
def test_the_edges_of_one_list(reader: Session, recommended: str, relevant: str, wanted: list[float | None]) -> None:
    calls = [
        f"dynrec.{name}({arguments.format(f'({recommended})::text[]', f'({relevant})::text[]')})"
        for name, arguments in PER_LIST.items()
    ]
    row = reader.execute(f"select {', '.join(calls)}".encode()).fetchone()
    assert row is not None
    assert [value is None for value in row] == [value is None for value in wanted]
    assert [value or 0 for value in row] == pytest.approx([value or 0 for value in wanted], abs=1e-8)


VALUES: list[tuple[str, float | None]] = [
    ("ndcg_at_k(array['a'], array['a'], 10)", 1),
    ("ndcg_at_k(array['a'], array['a'], array[2.5], 10)", 1),
    ("ndcg_at_k(array['a', 'b'], array['a', 'b'], array[1, 3], 1)", 1 / 3),
    ("ndcg_at_k(array['a'], null, null, 10)", None),
    ("ndcg_at_k(array['a'], '{}', '{}', 10)", None),
    ("ndcg_at_k(array['a'], '{null}', '{1}', 10)", None),
    ("ndcg_at_k(array['a'], array['a'], '{0}', 10)", None),
    ("ndcg_at_k('{}', array['a'], '{1}', 10)", 0),
    ("ndcg_at_k(null, array['a'], '{1}', 10)", 0),
    ("ndcg_at_k(array['a', 'b'], array['b', 'a', 'b'], '{1, 2, 3}', 1)", 2 / 3),
    ("ndcg_at_k(array['a', 'a'], array['a'], '{3}', 10)", 1),
    ("ndcg_at_k(array['b', 'a'], array['a', 'b'], '{3, 0}', 1)", 0),
    ("serendipity_at_k(array['a', 'b'], array['a', 'b'], array['b', null], 2)", 1 / 2),
    ("serendipity_at_k(array['a'], array['a'], array['a'], 2)", 0),
    ("serendipity_at_k(array['a'], null, array['a'], 2)", None),
    ("serendipity_at_k(null, array['a'], '{}', 2)", 0),
    ("catalogue_coverage(array['a', 'b', 'a', null], 4)", 1 / 2),
    ("catalogue_coverage(null, 4)", 0),
    ("catalogue_coverage('{}', 4)", 0),
    ("catalogue_coverage(array['a'], null)", None),
    ("user_coverage(array[0, 9, 10, null], 10)", 1 / 4),
    ("user_coverage('{}', 10)", None),
    ("user_coverage(null, 10)", None),
    ("gini_of_exposure(array['a', 'b', 'a', 'b'], 2)", 0),
    ("gini_of_exposure(array['a', 'a', null], 4)", 3 / 4),
    ("gini_of_exposure(array['a'], 1)", 0),
    ("gini_of_exposure(array['a', 'b', 'b', 'b'], 9223372036854775807)", 1),
    ("gini_of_exposure('{}', 3)", None),
    ("gini_of_exposure('{null}', 3)", None),
    ("gini_of_exposure(null, 3)", None),
    ("gini_of_exposure(array['a'], null)", None),
    ("shannon_of_exposure(array['a', 'b', 'c', 'd', null])", 2),
    ("shannon_of_exposure(array['a', 'a'])", 0),
    ("shannon_of_exposure('{}')", None),
    ("shannon_of_exposure(null)", None),
    ("novelty_at_k(array['a', 'b'], array['a', 'b'], '{8, 2}', 8, 10)", 1),
    ("novelty_at_k(array['a', 'b'], array['a', 'b'], '{8, 2}', 8, 1)", 0),
    ("novelty_at_k(array['a', 'a', null, 'b'], array['a', 'b', 'b'], '{8, 2, null}', 8, 10)", 1),
    ("novelty_at_k(array['x', 'y', 'z'], array['y', 'z'], '{0, null}', 8, 10)", 3),
    ("novelty_at_k(array['x'], '{}', '{}', 8, 10)", 3),
    ("novelty_at_k('{}', array['a'], '{8}', 8, 10)", None),
    ("novelty_at_k(null, array['a'], '{8}', 8, 10)", None),
    ("novelty_at_k(array['a'], null, '{8}', 8, 10)", None),
    ("novelty_at_k(array['a'], array['a'], null, 8, 10)", None),
    ("novelty_at_k(array['a'], array['a'], '{8}', null, 10)", None),
    ("popularity_bias_at_k(array['a'], array['a', 'b'], '{6, 2}', 10)", 3 / 2),
    ("popularity_bias_at_k(array['a', 'x', 'a', null], array['a', 'b', 'b'], '{6, 1, 2}', 10)", 3 / 4),
    ("popularity_bias_at_k(array['x', 'a'], array['a', 'b'], '{6, null}', 1)", 0),
    ("popularity_bias_at_k(array['a'], array['a'], '{0}', 10)", None),
    ("popularity_bias_at_k(array['a'], '{}', '{}', 10)", None),
    ("popularity_bias_at_k('{}', array['a'], '{1}', 10)", None),
    ("popularity_bias_at_k(null, array['a'], '{1}', 10)", None),
    ("popularity_bias_at_k(array['a'], null, null, 10)", None),
    ("intra_list_diversity(array['[1,0]', '[0,1]']::public.vector[])", 1),
    ("intra_list_diversity(array['[1,0]', '[2,0]', '[-1,0]', null]::public.vector[])", 4 / 3),
    ("intra_list_diversity(array['[1,0]', '[0,0]', '[0,0]']::public.vector[])", 1),
    ("intra_list_diversity(array['[1,0]', null]::public.vector[])", None),
    ("intra_list_diversity('{}'::public.vector[])", None),
    ("intra_list_diversity(null::public.vector[])", None),
    ("intra_list_diversity(array['a', 'b'])", 1),
    ("intra_list_diversity(array['a', 'b', 'a'])", 2 / 3),
    ("intra_list_diversity(array[null, null, 'a']::text[])", 1),
    ("intra_list_diversity(array['a'])", None),
    ("intra_list_diversity('{}'::text[])", None),
    ("intra_list_diversity(null::text[])", None),
]


@pytest.mark.parametrize(("expression", "wanted"), VALUES)
def test_values(reader: Session, expression: str, wanted: float | None) -> None:
    """Without a search path: the functions find all that they need."""
    reader.execute("set search_path = ''")
    row = reader.execute(f"select dynrec.{expression}".encode()).fetchone()
    assert row is not None
    assert row[0] == (wanted if wanted is None else close(wanted))


def test_perfect_lists_are_exactly_1(reader: Session) -> None:
    ideal = (
        "array(select i::text from generate_series(1, 1000) i), array(select i::text from generate_series(1, 1000) i)"
    )
    gains = "array(select 1.0 / i from generate_series(1, 1000) i)"
    row = reader.execute(
        f"select dynrec.ndcg_at_k({ideal}, 777), dynrec.ndcg_at_k({ideal}, {gains}, 777), dynrec.average_precision_at_k({ideal}, 777)".encode()
    ).fetchone()
    assert row == (1, 1, 1)


def test_users_with_nothing_to_find_do_not_count(reader: Session) -> None:
    value = reader.execute(
        "select avg(dynrec.recall_at_k(r.recommended, r.relevant, 5)) from (values (array['a'], array['a']), (array['a'], '{}')) r (recommended, relevant)"
    ).fetchone()
    assert value == (1,)


AT_K = [
    *(f"{name}({arguments.format('r.items', 'r.items').replace('2', '{k}')})" for name, arguments in PER_LIST.items() if name != "reciprocal_rank"),
    "ndcg_at_k(r.items, r.items, array(select 1::double precision from unnest(r.items)), {k})",
    "novelty_at_k(r.items, array['a'], '{{1}}', 5, {k})",
    "popularity_bias_at_k(r.items, array['a'], '{{1}}', {k})",
    "user_coverage(array(select 1 from unnest(r.items)), {k})",
]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "k"),
    [
        *((call, k) for call in AT_K for k in ("null", "0", "-1", "10001")),
        *(("reciprocal_rank(r.items, r.items, {k})", k) for k in ("0", "-1", "10001")),  # null is the whole list
    ],
)
def test_k_is_checked(reader: Session, call: str, k: str) -> None:
    """As a constant and as a column, whatever the lists are."""
    for items in ("array['a']", "'{}'::text[]", "null::text[]"):
        for given in (k, "r.k"):
            statement = f"select dynrec.{call.format(k=given)} from (select {items} as items, {k}::int as k from generate_series(1, 2) offset 0) r"
            with pytest.raises(psycopg.errors.InvalidParameterValue, match=k):
                reader.execute(statement.encode())


ERRORS: list[tuple[str, str]] = [
    ("ndcg_at_k(array['a'], array['a'], '{-0.5}', 10)", "gain is out of range: '-0.5'"),
    ("ndcg_at_k(array['a'], array['a'], '{NaN}', 10)", "gain is out of range: 'NaN'"),
    ("ndcg_at_k(array['a'], array['a'], '{Infinity}', 10)", "gain is out of range: 'Infinity'"),
    ("ndcg_at_k(null, array['a', 'b'], '{1, -1}', 10)", "gain is out of range: '-1'"),
    ("ndcg_at_k(array['a'], array['a', 'b'], '{1}', 10)", "relevant item without a gain: 'b'"),
    ("ndcg_at_k(array['a'], array['a', 'b'], '{1, null}', 10)", "gain is out of range: null"),
    ("ndcg_at_k(array['a'], array['a'], null, 10)", "relevant item without a gain: 'a'"),
    ("ndcg_at_k(array['a'], array['a'], '{1, 4}', 10)", "gain without a relevant item: '4'"),
    ("ndcg_at_k(array['a'], null, '{4}', 10)", "gain without a relevant item: '4'"),
    ("catalogue_coverage(array['a', 'b'], 1)", "catalogue_size is out of range: '1'"),
    ("catalogue_coverage('{}', 0)", "catalogue_size is out of range: '0'"),
    ("catalogue_coverage(null, -3)", "catalogue_size is out of range: '-3'"),
    ("gini_of_exposure(array['a', 'b'], 1)", "catalogue_size is out of range: '1'"),
    ("gini_of_exposure('{}', 0)", "catalogue_size is out of range: '0'"),
    ("novelty_at_k(array['a'], array['a'], '{1}', 0, 10)", "users is out of range: '0'"),
    ("novelty_at_k(array['a'], array['a'], '{9}', 8, 10)", "user_count is out of range: '9'"),
    ("novelty_at_k(array['a'], array['a'], '{-1}', 8, 10)", "user_count is out of range: '-1'"),
    ("novelty_at_k(null, array['a', 'b'], '{1}', 8, 10)", "item without a user_count: 'b'"),
    ("novelty_at_k(null, array['a'], '{1, 2}', 8, 10)", "user_count without an item: '2'"),
    ("popularity_bias_at_k(array['a'], array['a'], '{-1}', 10)", "user_count is out of range: '-1'"),
    ("popularity_bias_at_k(array['a'], array['a', 'b'], '{1}', 10)", "item without a user_count: 'b'"),
    ("popularity_bias_at_k(array['a'], array['a'], '{1, null}', 10)", "user_count without an item: null"),
]


@pytest.mark.parametrize(("expression", "message"), ERRORS)
def test_errors(reader: Session, expression: str, message: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue) as caught:
        reader.execute(f"select dynrec.{expression}".encode())
    assert caught.value.diag.message_primary == message
    assert caught.value.diag.message_hint
