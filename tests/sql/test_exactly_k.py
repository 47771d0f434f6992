"""Exactly k rows whenever k eligible items exist, and each row says which path made it."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.drain import Session, from_text
from tests.reference import Vector
from tests.sql.shop import NOON, Event, Shop, call, create_shop

ORDER = {"personal": 0, "session": 0, "similar": 0, "trending": 1, "fallback": 2}


def check(rows: list[tuple[str, float, str]], k: int, eligible: set[str]) -> None:
    """As many rows as there can be, all eligible, paths in order and scores falling within each."""
    assert len(rows) == min(k, len(eligible)), rows
    assert {item for item, _, _ in rows} <= eligible
    paths = [ORDER[source] for _, _, source in rows]
    assert paths == sorted(paths)
    for path in set(paths):
        scores = [score for _, score, source in rows if ORDER[source] == path]
        assert path == 0 or scores == sorted(scores, reverse=True)


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    user=st.sampled_from(["u1", "u2", "nobody", ""]),
    function=st.sampled_from(["recommend", "recommend_for_items", "similar_items", "trending"]),
    k=st.sampled_from([1, 2, 10, 59, 60, 61, 500]),
    modulus=st.sampled_from([None, 1, 2, 13, 60, 1000]),
    excluded=st.lists(st.sampled_from([*map(str, range(1, 70)), "abc", ""]), max_size=50),
    exclude_seen=st.sampled_from([None, True, False]),
    diversity=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_every_combination(
    busy: Shop,
    user: str,
    function: str,
    k: int,
    modulus: int | None,
    excluded: list[str],
    exclude_seen: bool | None,
    diversity: float,
) -> None:
    arguments: dict[str, Any] = {"k": k, "exclude_items": excluded}
    eligible = set(busy.texts()) - set(excluded)
    if modulus is not None:
        arguments |= {"filter": "id % (args ->> 'm')::int = 0", "filter_args": {"m": modulus}}
        eligible = {item for item in eligible if int(item) % modulus == 0}
    if function != "trending":
        arguments["diversity"] = diversity
    if function == "recommend":
        arguments |= {"user_id": user, "exclude_seen": exclude_seen}
        if exclude_seen is not False:
            eligible -= {event.item for event in busy.events() if event.user == user}
    elif function == "recommend_for_items":
        arguments["item_ids"] = [user[1:], "3", "999"] if user else []
        eligible -= set(arguments["item_ids"])
    elif function == "similar_items":
        arguments["item"] = "7"
        eligible -= {"7"}
    check(busy.call(function, **arguments), k, eligible)


def sources(rows: list[tuple[str, float, str]]) -> Counter[str]:
    return Counter(source for _, _, source in rows)


def test_the_plain_way_and_the_long_way_agree(busy: Shop) -> None:
    asked: list[tuple[str, dict[str, Any]]] = [
        ("recommend", {"user_id": "u1"}),
        ("similar_items", {"item": "7"}),
        ("recommend_for_items", {"item_ids": ["7", "9", "7", "unknown"]}),
    ]
    for function, arguments in asked:
        for excluded in ([], ["3", "5", "abc"]):
            short = call(busy.connection, "shop", function, k=8, exclude_items=excluded, **arguments)
            long = call(busy.connection, "shop", function, k=8, exclude_items=excluded, filter="true", **arguments)
            assert [score for _, score, _ in short] == pytest.approx([score for _, score, _ in long])
            last = short[-1][1] + 1e-6  # which of the equally near come last is open
            assert {item for item, score, _ in short if score > last} == {
                item for item, score, _ in long if score > last
            }
            assert [source for _, _, source in short] == [source for _, _, source in long]


def test_sources_of_a_known_user(busy: Shop) -> None:
    assert sources(busy.recommend("u1", k=60, exclude_seen=False)) == {"personal": 60}
    rows = busy.recommend("nobody", k=60)
    positive = {item for item, score, source in busy.call("trending", k=60) if source == "trending" and score > 0}
    assert {item for item, _, source in rows if source == "trending"} == positive
    assert all(score == 0 for _, score, source in rows if source == "fallback")


def test_no_vectors_at_all(connection: Session) -> None:
    shop = create_shop(connection, products=12)
    assert sources(shop.recommend("u", k=5)) == {"fallback": 5}
    shop.add_events([Event("u", "3", NOON, "purchase"), Event("v", "4", NOON, "purchase")])
    assert [item for item, _, _ in shop.recommend("u", k=20)] == [str(n) for n in range(1, 13) if n != 3]
    assert sources(shop.call("similar_items", item="1", k=20)) == {"fallback": 11}
    assert sources(shop.call("recommend_for_items", item_ids=["1"], k=20)) == {"fallback": 11}
    assert sources(shop.call("trending", k=20)) == {"fallback": 12}
    assert shop.call("search", query="lamp") == []


def test_an_empty_shop(connection: Session) -> None:
    shop = create_shop(connection)
    for function, arguments in (
        ("recommend", {"user_id": "u"}),
        ("trending", {}),
        ("recommend_for_items", {"item_ids": ["1"]}),
    ):
        assert shop.call(function, **arguments) == []
    shop.drain()
    shop.add_events([Event("u", "1", NOON, "purchase")])
    shop.drain()
    assert shop.recommend("u") == []


def test_fewer_vectors_than_k(shop: Shop) -> None:
    shop.add_events([Event("u", "1", NOON, "purchase"), Event("v", "14", NOON, "purchase")])
    shop.drain()
    shop.execute("insert into shop.products (id, title) values (13, 'no vector yet'), (14, 'none either, but bought')")
    rows = shop.recommend("u", k=20)
    assert sources(rows) == {"personal": 11, "trending": 1, "fallback": 1}
    assert rows[11][0] == "14"
    assert rows[12][0] == "13"


@pytest.mark.parametrize("diversity", [0, 0.5])
@pytest.mark.parametrize("k", [1, 10, 50])
def test_a_filter_that_keeps_one_in_a_thousand(many: Session, k: int, diversity: float) -> None:
    for predicate, eligible in (
        ("id % 1000 = 0", 20),
        ("id % 200 = 3", 100),
        ("id % 3 = 0", 6666),
        ("true", 20000),
        ("id < 2002", 2001),
    ):
        rows = call(
            many, "many", "recommend", user_id="1", k=k, filter=predicate, diversity=diversity, exclude_seen=False
        )
        assert sources(rows) == {"personal": min(k, eligible)}
        assert len(rows) == min(k, eligible)


def test_the_nearest_are_the_nearest(many: Session) -> None:
    for predicate in ("id % 1000 = 0", "id % 200 = 3", "id % 3 = 0", "true"):
        rows = call(many, "many", "similar_items", item="5", k=20, filter=predicate)
        exact = many.execute(
            f"""
            select i.id::text from items i, items q where q.id = 5 and i.id <> 5 and i.id in (select id from items where {predicate})
            order by (i.embedding <=> q.embedding), i.id limit 20
            """.encode()
        ).fetchall()
        wanted = {row[0] for row in exact}
        found = {item for item, _, _ in rows}
        assert len(wanted & found) >= 0.85 * len(wanted), predicate


def test_many_excluded(many: Session) -> None:
    for count in (100, 19000, 19990):
        excluded = [str(n) for n in range(1, count + 1)]
        rows = call(many, "many", "recommend", user_id="1", k=15, exclude_items=excluded, exclude_seen=False)
        assert len(rows) == min(15, 20000 - count)
        assert all(int(item) > count for item, _, _ in rows)


def test_diversity_spreads(busy: Shop) -> None:
    def spread(rows: list[tuple[str, float, str]]) -> float:
        return float(
            busy.value(
                """
            select avg(a.v <=> b.v) from (select i, dynrec.item_vector_at('shop', i) v from unnest(%s::text[]) i) a,
                (select i, dynrec.item_vector_at('shop', i) v from unnest(%s::text[]) i) b where a.i < b.i
            """,
                [[item for item, _, _ in rows]] * 2,
            )
        )

    lists = [busy.call("similar_items", item="1", k=8, diversity=d) for d in (0, 0.5, 1)]
    assert lists[0][0] == lists[1][0]
    assert spread(lists[0]) < spread(lists[1]) <= spread(lists[2]) + 1e-6


def test_maximal_marginal_relevance(busy: Shop) -> None:
    everything = busy.call("similar_items", item="1", k=60)
    vectors = busy.item_vectors([item for item, _, _ in everything])
    expected = by_marginal_relevance({item: (score, vectors[item]) for item, score, _ in everything}, 10, 0.4)
    assert [item for item, _, _ in busy.call("similar_items", item="1", k=10, diversity=0.4)] == expected


@pytest.mark.parametrize("diversity", [0.05, 0.3, 0.7, 1])
def test_maximal_marginal_relevance_of_many(many: Session, diversity: float) -> None:
    # candidates are five times the rows: more than are compared with each choice at once
    candidates = call(many, "many", "similar_items", item="7", k=300)
    rows = many.execute(
        "select i, dynrec.item_vector_at('many', i)::text from unnest(%s::text[]) i", [[row[0] for row in candidates]]
    ).fetchall()
    vectors = {item: from_text(vector) for item, vector in rows}
    expected = by_marginal_relevance({item: (score, vectors[item]) for item, score, _ in candidates}, 60, diversity)
    got = call(many, "many", "similar_items", item="7", k=60, diversity=diversity)
    assert [item for item, _, _ in got] == expected


def by_marginal_relevance(candidates: Mapping[str, tuple[float, Vector | None]], k: int, diversity: float) -> list[str]:
    """The k of them in the order in which Carbonell and Goldstein (SIGIR 1998) choose."""
    chosen: list[str] = []
    while len(chosen) < k:

        def marginal(item: str) -> float:
            score, vector = candidates[item]
            assert vector is not None
            closeness = [float(vector @ candidates[other][1]) for other in chosen]  # type: ignore[operator]
            return (1 - diversity) * score - diversity * max(closeness, default=0.0)

        chosen.append(max((item for item in candidates if item not in chosen), key=marginal))
    return chosen
