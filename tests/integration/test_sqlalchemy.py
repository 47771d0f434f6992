"""The constructs for select() with mapped classes of an application."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import Text, cast, create_engine, func, select, true
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from dynrec_store import database
from dynrec_store.sqlalchemy import (
    drift,
    explain,
    item_history,
    item_vector_at,
    recommend,
    recommend_for_items,
    search,
    similar_items,
    trending,
    user_vector_at,
)
from workers.encoders.hashing import HashingEncoder


class Base(DeclarativeBase):
    pass


class Product(Base):
    __tablename__ = "product"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    price: Mapped[float]


class Purchase(Base):
    __tablename__ = "purchase"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int]
    item_id: Mapped[int]
    kind: Mapped[str]


@pytest.fixture
def session(shop_url: str) -> Iterator[Session]:
    engine = create_engine(database.psycopg_url(shop_url).replace("postgresql://", "postgresql+psycopg://"))
    with Session(engine) as opened:
        yield opened
    engine.dispose()


def test_joins_to_a_mapped_class(session: Session) -> None:
    r = recommend("shop", user_id=42, k=2)
    rows = session.execute(
        select(Product, r.c.rank, r.c.score, r.c.source, r.c.model_version)
        .join(r, r.c.item_id == cast(Product.id, Text))
        .order_by(r.c.rank)
    ).all()
    assert rows[0].Product.title == "blue running shoes"
    assert [row.rank for row in rows] == [1, 2]
    assert isinstance(rows[0].score, float)
    assert (rows[0].source, rows[0].model_version) == ("personal", 1)


def test_sees_what_the_session_has_not_committed(session: Session) -> None:
    session.add(Purchase(user_id=7, item_id=4, kind="buy"))
    session.flush()
    r = recommend("shop", 7, k=1)
    assert session.scalars(select(r.c.item_id)).all() == ["3"]


def test_every_argument_reaches_the_function(session: Session) -> None:
    r = recommend(
        "shop",
        "42",
        k=5,
        filter="price < (args->>'top')::numeric",
        filter_args={"top": 45},
        exclude_items=[3],
        exclude_seen=False,
        diversity=0.2,
    )
    assert set(session.scalars(select(r.c.item_id))) == {"1", "4"}
    past = recommend("shop", 42, as_of=datetime(2020, 1, 1, tzinfo=UTC))
    assert session.scalars(select(past.c.source)).all() == []  # there were no items then


def test_lateral_for_each_row_of_another_table(session: Session) -> None:
    like = similar_items("shop", cast(Product.id, Text), k=1).lateral("like_it")
    rows = session.execute(select(Product.id, like.c.item_id).join(like, true()).where(Product.id.in_([1, 3]))).all()
    assert sorted(map(tuple, rows)) == [(1, "2"), (3, "4")]


def test_two_in_one_statement(session: Session) -> None:
    popular, personal = trending("shop"), recommend("shop", 42)
    both = select(personal.c.item_id).join(popular, popular.c.item_id == personal.c.item_id)
    assert session.scalar(select(func.count()).select_from(both.subquery())) == 4


def test_other_functions(session: Session) -> None:
    vector = HashingEncoder().encode(["a long coat"])[0]
    for_items = recommend_for_items("shop", [3], k=1)
    assert session.scalars(select(for_items.c.item_id)).all() == ["4"]
    assert session.scalars(select(search("shop", "coat").c.item_id)).all() == ["5"]
    assert session.scalars(select(search("shop", query_vector=vector, k=1).c.item_id)).all() == ["5"]
    (because,) = session.execute(select(explain("shop", 42, 2, k=1))).all()
    assert because.because_item_id == "1"
    (version,) = session.execute(select(item_history("shop", 1))).all()
    assert version.features == {"price": 40}
    assert list(version.embedding) == list(session.scalars(select(item_vector_at("shop", 1))).one())
    assert session.execute(select(drift("shop", 1))).one().cosine_distance is None


def test_vectors_have_pgvectors_operators(session: Session) -> None:
    of_user = user_vector_at("shop", 42)
    same = session.scalar(select(of_user.cosine_distance(user_vector_at("shop", "42"))))
    assert same == pytest.approx(0, abs=1e-6)
