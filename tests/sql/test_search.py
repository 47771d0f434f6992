"""Search by text, by vector, and by both."""

from typing import Any

import psycopg
import pytest

from tests.conftest import Prepare
from tests.drain import Session, as_text
from tests.sql.shop import Shop, open_shop
from workers.encoders.hashing import HashingEncoder

ENCODER = HashingEncoder()


def stock(connection: Session) -> None:
    """Texts to be found instead of the shop's."""
    shop = open_shop(connection)
    shop.execute("truncate shop.products")
    shop.execute(
        """
        insert into shop.products (id, title, category, price) values
            (1, 'running shoes for rainy days', 'sport', 10), (2, 'a shoe', 'sport', 20), (3, 'runners run', 'sport', 30),
            (4, 'umbrella against rain', 'weather', 40), (5, 'the best of', 'music', 50), (6, null, null, 60)
        """
    )
    shop.drain()


@pytest.fixture
def beginning(request: pytest.FixtureRequest, prepared: Prepare, beginning: str) -> str:
    return prepared(stock).name if "library" in request.fixturenames else beginning


@pytest.fixture
def library(shop: Shop) -> Shop:
    return shop


def vector(text: str) -> str:
    return as_text(ENCODER.encode([text])[0])


def found(shop: Shop, **arguments: Any) -> list[str]:
    rows = shop.call("search", **arguments)
    assert {source for _, _, source in rows} <= {"search"}
    assert [score for _, score, _ in rows] == sorted((score for _, score, _ in rows), reverse=True)
    return [item for item, _, _ in rows]


QUERIES = [
    ("shoe", {"1", "2"}),
    ("SHOES", {"1", "2"}),
    ("run", {"1", "3"}),
    ('"running shoes"', {"1"}),
    ("shoe -running", {"2"}),
    ("umbrella or runners", {"4", "3"}),
    ("sport rainy", {"1"}),
    ("nothing of the kind", set()),
    ("the of", set()),
    ("", set()),
    ("'; drop table shop.products; --", set()),
    ("shoe & | ! ( :*", {"1", "2"}),
    ("\u6f22\u5b57 \x01", set()),
]


@pytest.mark.parametrize(("query", "expected"), QUERIES)
def test_text(library: Shop, query: str, expected: set[str]) -> None:
    assert set(found(library, query=query)) == expected


def test_text_follows_the_source(library: Shop) -> None:
    library.execute("update shop.products set title = 'a boot' where id = 2")
    library.execute("delete from shop.products where id = 1")
    assert "1" not in found(library, query="shoe"), "a deleted item at once"
    library.drain()
    assert found(library, query="shoe") == []
    assert found(library, query="boot") == ["2"]


def test_vector(library: Shop) -> None:
    query = "a shoe. sport"
    rows = library.call("search", query_vector=vector(query), k=10)
    texts = library.texts()
    vectors = ENCODER.encode(list(texts.values()))
    similarity = dict(zip(texts, vectors @ ENCODER.encode([query])[0], strict=True))
    expected = sorted(texts, key=lambda item: (-similarity[item], item))
    assert [item for item, _, _ in rows][:3] == expected[:3]
    assert len(rows) == 6
    assert [score for _, score, _ in rows] == pytest.approx([1 / (60 + place) for place in range(1, 7)])


def test_the_length_of_the_vector_does_not_matter(library: Shop) -> None:
    one = ENCODER.encode(["a shoe. sport"])[0]
    lists = [library.call("search", query_vector=as_text(one * factor)) for factor in (1, 1e-12, 1e12)]
    assert lists[0] == lists[1] == lists[2]


def test_both_are_fused_by_reciprocal_ranks(library: Shop) -> None:
    by_text, by_vector = (
        found(library, query="run", k=6),
        found(library, query_vector=vector("umbrella against rain. weather"), k=6),
    )
    score: dict[str, float] = {}
    for one in (by_text, by_vector):
        for place, item in enumerate(one, 1):
            score[item] = score.get(item, 0) + 1 / (60 + place)
    rows = library.call("search", query="run", query_vector=vector("umbrella against rain. weather"), k=6)
    assert {item: value for item, value, _ in rows} == pytest.approx(score)


def test_filter_exclusion_and_k(library: Shop) -> None:
    assert set(found(library, query="sport", filter="price > 15")) == {"2", "3"}
    assert set(found(library, query="sport", exclude_items=["2"])) == {"1", "3"}
    assert len(found(library, query="sport", k=2)) == 2
    assert set(found(library, query_vector=vector("x"), filter="price > 35", k=10)) == {"4", "5", "6"}
    assert set(found(library, query="shoe", query_vector=vector("x"), filter="price < 15", k=10)) == {"1"}


def test_other_languages(shop: Shop) -> None:
    shop.execute(
        "select dynrec.create_recommender('german', 'shop.products', text_columns => '{title}', encoder => 'hashing', "
        'options => \'{"text_search_config": "german"}\')'
    )
    shop.execute("update shop.products set title = 'rote Schuhe' where id = 1")
    shop.drain()
    german = Shop(shop.connection, "german")
    assert found(german, query="roter Schuh") == ["1"]
    assert found(shop, query="roter Schuh") == []


def test_another_text_search_configuration_later(library: Shop) -> None:
    library.execute("update shop.products set title = 'rote Schuhe' where id = 2")
    library.drain()
    library.execute("select dynrec.alter_recommender('shop', options => '{\"text_search_config\": \"german\"}')")
    library.drain()
    assert found(library, query="roter Schuh") == ["2"]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "query"),
    ({"query_vector": "[1,2,3]"}, "3.*256"),
    ({"query": "x", "k": 0}, "0"),
    ({"query": "x", "k": None}, "null"),
    ({"query": "x", "k": 2**31 - 1}, "2147483647"),
    ({"query": "x", "k": -(2**31)}, "-2147483648"),
]


@pytest.mark.parametrize(("arguments", "pattern"), WRONG)
def test_what_is_wrong_is_named(library: Shop, arguments: dict[str, Any], pattern: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue) as caught:
        library.call("search", **arguments)
    text = f"{caught.value.diag.message_primary} {caught.value.diag.message_hint}"
    assert all(part in text for part in pattern.split(".*"))


def test_a_vector_of_zeros(library: Shop) -> None:
    assert len(found(library, query_vector=as_text(ENCODER.encode([""])[0]), k=4)) == 4
