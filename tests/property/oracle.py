"""What the database should hold, computed from the application's tables alone, and what it does hold."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from tests.property import shop
from tests.property.shop import Connection
from workers.encoders.hashing import HashingEncoder

Vector = npt.NDArray[np.float64]

_SLOTS = sorted(set(shop.HALF_LIVES.values()))


_BROKEN_CHAINS = """
    with version as (
      select 'vector of item ' || model_id as what, item_id as entity, valid_from, valid_to, created_at, replaced_at
      from dynrec_data.item_vector_history
      union all select 'vector of item ' || model_id, item_id, valid_from, 'infinity', created_at, 'infinity'
      from dynrec_data.item_vector
      union all select 'content of item ' || recommender_id, item_id, valid_from, valid_to, created_at, replaced_at
      from dynrec_data.item_content_history
      union all select 'content of item ' || recommender_id, item_id, valid_from, 'infinity', created_at, 'infinity'
      from dynrec_data.item_content
      union all select 'user ' || model_id, user_id, valid_from, valid_to, created_at, replaced_at
      from dynrec_data.user_vector_history
      union all select 'user ' || model_id, user_id, valid_from, 'infinity', created_at, 'infinity'
      from dynrec_data.user_vector
    ), chained as (
      select *, lag(valid_to) over w as previous_to, lag(replaced_at) over w as previous_replaced
      from version window w as (partition by what, entity order by valid_from, valid_to)
    )
    select chained::text from chained
    where valid_from >= valid_to or created_at > replaced_at
      or previous_to > valid_from or previous_replaced > created_at
"""


@dataclass
class User:
    """A user's profile from scratch."""

    events: int = 0
    latest: datetime | None = None
    state: Vector = field(default_factory=lambda: np.zeros((len(_SLOTS), 1)))  # one sum for each half-life
    gross: float = 0.0  # sum of the absolute weights: the scale that rounding is measured by


def content(title: str | None, category: str | None) -> str:
    """The text that the encoder sees of an item."""
    return ". ".join(part.strip() for part in (title, category) if part and part.strip())


def is_adopted(connection: Connection) -> bool:
    """Whether the source holds the vectors."""
    statement = "select vector_column from dynrec_data.recommender where name = %s"
    return connection.execute(statement, [shop.NAME]).fetchone() != (None,)


def item_vectors(connection: Connection, dimension: int = shop.DIMENSION) -> dict[str, Vector]:
    """The vector of every item in the source, by the encoder of that dimension."""
    if is_adopted(connection):
        rows = connection.execute("select id::text, embedding::real[] from item").fetchall()
        given = {key: np.zeros(shop.DIMENSION) if vector is None else np.asarray(vector) for key, vector in rows}
        return {key: vector / (np.linalg.norm(vector) or 1) for key, vector in given.items()}
    rows = connection.execute("select id::text, title, category from item").fetchall()
    texts = [content(title, category) for _, title, category in rows]
    return dict(
        zip((key for key, _, _ in rows), HashingEncoder(dimension).encode(texts).astype(np.float64), strict=True)
    )


def _events(connection: Connection) -> list[tuple[str, str, str, float | None, datetime]]:
    return connection.execute(
        """
        select user_id, item_id::text, kind, value, occurred_at from event
        where user_id is not null and item_id is not null
        """
    ).fetchall()


def users(connection: Connection, dimension: int = shop.DIMENSION) -> dict[str, User]:
    """The profile of every user, each at the time of their last event."""
    vectors, events = item_vectors(connection, dimension), _events(connection)
    expected: defaultdict[str, User] = defaultdict(User)
    for user, _, _, _, at in events:
        known = expected[user]
        known.events += 1
        known.latest = max(at, known.latest) if known.latest else at
    for user, item, kind, value, at in events:
        known = expected[user]
        assert known.latest is not None
        age = (known.latest - at).total_seconds()
        weight = shop.WEIGHTS[kind] * (1 if value is None else value) * 0.5 ** (age / shop.HALF_LIVES[kind])
        known.gross += abs(weight)
        if item in vectors:
            if known.state.shape[1] != dimension:
                known.state = np.zeros((len(_SLOTS), dimension))
            known.state[_SLOTS.index(shop.HALF_LIVES[kind])] += weight * vectors[item]
    return dict(expected)


def popularity(connection: Connection, moment: datetime) -> dict[str, tuple[float, int]]:
    """(decayed score, number of events) of every item that somebody met."""
    counted: defaultdict[str, tuple[float, int]] = defaultdict(lambda: (0.0, 0))
    for _, item, kind, value, at in _events(connection):
        score, count = counted[item]
        weight = shop.WEIGHTS[kind] * (1 if value is None else value)
        decay = 2.0 ** ((at - moment).total_seconds() / shop.TRENDING_HALF_LIFE)
        counted[item] = (score + weight * decay, count + 1)
    return dict(counted)


def differences(connection: Connection) -> Iterator[str]:
    """Everything in the database that is not as it should be once the queue is empty."""
    yield from _queue_differences(connection)
    models = connection.execute(
        "select model_version, dimension from dynrec.model_versions where recommender = %s and state <> 'retired'",
        [shop.NAME],
    )
    for model, dimension in models.fetchall():
        yield from _item_differences(connection, model, dimension)
        yield from _user_differences(connection, model, dimension)
    yield from _content_differences(connection)
    yield from _popularity_differences(connection)
    yield from _history_differences(connection)


def _queue_differences(connection: Connection) -> Iterator[str]:
    for name in ("change", "lease", "task", "retry", "dead_letter"):
        for row in connection.execute(f"select to_jsonb(t) from dynrec_data.{name} t").fetchall():
            yield f"left in {name}: {row[0]}"


def _item_differences(connection: Connection, model: int, dimension: int) -> Iterator[str]:
    expected = item_vectors(connection, dimension)
    rows = connection.execute(
        "select item_id, embedding::real[] from dynrec_data.item_vector where model_id = %s", [model]
    ).fetchall()
    found = {key: np.asarray(vector, dtype=np.float64) for key, vector in rows}
    for key in sorted(expected.keys() | found.keys()):
        if key not in expected or key not in found:
            yield f"item {key}, model {model}: {'gone from the source' if key in found else 'has no vector'}"
        elif not np.allclose(expected[key], found[key], atol=1e-6):
            yield f"item {key}, model {model}: its vector is of another text"


def _content_differences(connection: Connection) -> Iterator[str]:
    rows = connection.execute(
        """
        select coalesce(i.id::text, c.item_id), i.title, i.category, i.price, c.features, c.content_hash,
          sha256(convert_to(concat_ws('. ', nullif(i.title, ''), nullif(i.category, '')), 'UTF8'))
        from item i full join (
          select c.* from dynrec_data.item_content c join dynrec_data.recommender r on r.id = c.recommender_id and r.name = %s
        ) c on c.item_id = i.id::text
        """,
        [shop.NAME],
    ).fetchall()
    for key, _, category, price, features, digest, expected in rows:
        if features is None or (digest != expected and not is_adopted(connection)):  # there it covers the vector, too
            yield f"content of item {key} is not what the source says"
        elif features != {"price": None if price is None else float(price), "category": category}:
            yield f"features of item {key}: {features}, expected price {price}, category {category}"


def _user_differences(connection: Connection, model: int, dimension: int) -> Iterator[str]:
    expected = users(connection, dimension)
    rows = connection.execute(
        """
        select user_id, event_count, reference_time, half_lives,
          (select array_agg(s::real[] order by n) from unnest(state) with ordinality u (s, n))
        from dynrec_data.user_vector where model_id = %s
        """,
        [model],
    ).fetchall()
    found = {row[0]: row[1:] for row in rows}
    for user in sorted(expected.keys() | found.keys()):
        if user not in expected or user not in found:
            yield f"user {user}: {'has no events' if user in found else 'has no vector'}"
            continue
        known, (count, latest, half_lives, state) = expected[user], found[user]
        if count != known.events or latest != known.latest:
            yield f"user {user}: {count} events up to {latest}, expected {known.events} up to {known.latest}"
        assert half_lives == _SLOTS
        error = np.abs(np.asarray(state) - known.state).max()
        if error > 1e-5 * (1 + known.gross):
            yield f"user {user}: state off by {error:.6f} of {known.gross:.3f}"


def _popularity_differences(connection: Connection) -> Iterator[str]:
    rows = connection.execute(
        """
        select item_id, score, event_count, reference_time from dynrec_data.item_popularity
        where recommender_id = (select id from dynrec_data.recommender where name = %s)
        """,
        [shop.NAME],
    ).fetchall()
    moment = max((at for *_, at in rows), default=datetime.now(UTC))
    expected = popularity(connection, moment)
    found = {
        item: (score * 2.0 ** ((at - moment).total_seconds() / shop.TRENDING_HALF_LIFE), count)
        for item, score, count, at in rows
    }
    for item in sorted(expected.keys() | found.keys()):
        (score, count), (score_found, count_found) = expected.get(item, (0.0, 0)), found.get(item, (0.0, 0))
        if count != count_found or abs(score - score_found) > 1e-6 * (1 + abs(score)):
            yield f"popularity of item {item}: {score_found} of {count_found} events, expected {score} of {count}"


def _history_differences(connection: Connection) -> Iterator[str]:
    """Versions of an entity follow one another without overlap, in the world's time and in the system's."""
    rows = connection.execute(_BROKEN_CHAINS).fetchall()
    for (row,) in rows:
        yield f"history: {row}"
