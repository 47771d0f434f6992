"""How a filter is answered: exactly or through the index, by what the planner expects and what the scan meets."""

from collections.abc import Iterator

import pytest

from tests.drain import Session
from tests.sql.plans import plans

K = 10

# The planner expects a third of the rows of any function, and one row in two hundred of any equation.
FUNCTIONS = """
    create function public.is_rare(id int) returns boolean language plpgsql immutable as 'begin return id % 1500 = 7; end';
    create function public.is_common(id int) returns boolean language plpgsql immutable as 'begin return id % 10 > 0; end';
"""

WAYS = [
    pytest.param("true", {"index"}, id="all"),
    pytest.param("id > 10000", {"index"}, id="a half"),
    pytest.param("id <= 2000", {"index"}, id="a tenth"),
    pytest.param("id <= 200", {"exact"}, id="a hundredth"),
    pytest.param("id <= 20", {"exact"}, id="a thousandth"),
    pytest.param("public.is_common(id)", {"index"}, id="more than expected"),
    pytest.param("id % 2 = 0", {"eligible", "index"}, id="many where few are expected"),
    pytest.param("public.is_rare(id)", {"index", "exact"}, id="few where many are expected"),
]


@pytest.fixture(scope="module")
def asked(many: Session) -> Iterator[Session]:
    many.execute(FUNCTIONS)
    yield many
    many.execute("drop function public.is_rare, public.is_common")


@pytest.mark.parametrize(("predicate", "ways"), WAYS)
def test_k_of_the_nearest_by_the_way_that_is_cheap(asked: Session, predicate: str, ways: set[str]) -> None:
    with plans(asked) as messages:
        found = recommended(asked, predicate)
    assert ways_of(messages) == ways | ({"eligible"} if "exact" in ways else set())
    wanted = nearest(asked, predicate)
    assert len(found) == len(wanted) == K
    assert len(set(found) & set(wanted)) >= (K if "exact" in ways else 0.8 * K)


@pytest.mark.parametrize("column", ["id", "20000 - id"])
@pytest.mark.parametrize("eligible", [10_000, 2_000, 200, 20])
def test_k_of_the_nearest_whatever_the_share(asked: Session, column: str, eligible: int) -> None:
    recall = []
    for user in range(1, 26):
        found, wanted = (ask(asked, f"{column} < {eligible}", user) for ask in (recommended, nearest))
        assert len(found) == K
        recall.append(len(set(found) & set(wanted)) / K)
    assert sum(recall) / len(recall) >= 0.95


def test_a_filter_that_only_distant_items_pass(asked: Session) -> None:
    """The items farthest from the user: the index scan would go through nearly all others first."""
    asked.execute(
        "create temp table far as select i.id from public.items i order by i.embedding <#> dynrec.user_vector_at('many', '1') desc limit 3000"
    )
    predicate = "id in (select id from pg_temp.far)"
    assert recommended(asked, predicate) == nearest(asked, predicate)


def test_a_catalogue_that_was_never_analyzed(asked: Session) -> None:
    asked.execute("begin")
    try:
        asked.execute("update pg_class set reltuples = -1 where relname ~ '^item_vector_' or relname = 'items'")
        for predicate in ("id > 10000", "id <= 20"):
            assert len(recommended(asked, predicate)) == K
    finally:
        asked.execute("rollback")


def recommended(connection: Session, predicate: str, user: int = 1) -> list[str]:
    rows = connection.execute(
        "select item_id, source from dynrec.recommend('many', %s::text, %s, filter => %s)", [user, K, predicate]
    ).fetchall()
    assert {source for _, source in rows} == {"personal"}
    return [item for item, _ in rows]


def nearest(connection: Session, predicate: str, user: int = 1) -> list[str]:
    rows = connection.execute(
        f"""
        select item.id::text from public.items item
        where ({predicate}) and item.id not in (select e.item_id from public.events e where e.user_id = %s)
        order by (select dynrec.user_vector_at('many', %s::text)) <#> l2_normalize(item.embedding), item.id limit {K}
        """.replace("% ", "%% ").encode(),
        [user, user],
    ).fetchall()
    return [item for (item,) in rows]


def ways_of(messages: list[str]) -> set[str]:
    """Which of the statements that answer a filter have run."""
    signs = {"index": "as visited", "eligible": "limit $2", "exact": "from unnest($4) e (id)"}
    return {way for way, sign in signs.items() if any(sign in message for message in messages)}
