"""Growth: what single steps cost as histories, queues and tables get longer, in milliseconds and pages.

The catalogue has the same size throughout; one thing grows at a time. What has grown long only by years of use, such as
the old versions of one item, is written into the history tables directly.
"""

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import LiteralString, cast

from psycopg import sql

from dynrec_store import queue
from dynrec_store.database import translated_errors
from dynrec_store.queue import Connection
from dynrec_store.settings import Settings
from workers.bench import catalogue
from workers.bench.catalogue import LEASE, Catalogue
from workers.bench.measure import Growth, Point
from workers.bench.place import bench_database, url_of
from workers.bench.report import Advance, progress

NAME = "growth"
TIMES = 5  # each step is measured so often
HISTORIES = (10, 100, 1000, 10_000)  # events of a user, versions of an item, versions of a user

_READ: LiteralString = "select count(*) from dynrec.recommend('growth', %s, 10)"
_READ_ALL: LiteralString = "select count(*) from dynrec.recommend('growth', %s, 10, exclude_seen => false)"
_READ_AS_OF: LiteralString = (
    "select count(*) from dynrec.recommend('growth', %s, 10, as_of => now() - interval '250 hours')"
)
_READ_LATELY: LiteralString = (
    "select count(*) from dynrec.recommend('growth', %s, 10, as_of => now() - interval '1 hour')"
)
_RETENTION: LiteralString = "select dynrec._forget_old_history()"
_SIMILAR_AS_OF: LiteralString = (
    "select count(*) from dynrec.similar_items('growth', %s, 10, as_of => now() - interval '250 hours')"
)
_TRENDING: LiteralString = "select count(*) from dynrec.trending('growth', 10)"
_PENDING: LiteralString = "select count(*) from dynrec._pending_work()"
_CLAIM: LiteralString = "select dynrec._claim('growth', 'item', 256, '1 hour')"
_FREE: LiteralString = "delete from dynrec_data.lease"
_PUBLISH_USER: LiteralString = "select dynrec._publish_users(%s)"
_PUBLISH_ITEM: LiteralString = "select dynrec._publish_adopted(%s)"

_EVENTS: LiteralString = """
    insert into growth.events (user_id, item_id, occurred_at)
    select %(user)s, (g * 7919) %% %(items)s, now() - make_interval(mins => g) from generate_series(1, %(events)s) g
"""
_OF_MANY: LiteralString = """
    insert into growth.events (user_id, item_id, occurred_at)
    select 'crowd ' || g %% (%(events)s / 100), (g::bigint * 7919) %% %(items)s, now() - make_interval(secs => g)
    from generate_series(1, %(events)s) g
"""
_QUIET: LiteralString = "alter table growth.events disable trigger user"
_LOUD: LiteralString = "alter table growth.events enable trigger user"
_COUNT_AFRESH: LiteralString = """
    insert into dynrec_data.task (recommender_id, action) select r.id, 'popularity' from dynrec_data.recommender r
"""
_MOVE: LiteralString = """
    update growth.items i set embedding = other.embedding from growth.items other
    where i.id = %s and other.id = (select (random() * 1000)::bigint)
"""
# as if it had been replaced again and again for thirty days
_ITEM_VERSIONS: LiteralString = """
    insert into dynrec_data.item_vector_history
      (model_id, item_id, embedding, valid_from, valid_to, created_at, replaced_at)
    select v.model_id, v.item_id, v.embedding, t.at - %(step)s, t.at, t.at - %(step)s, t.at
    from dynrec_data.item_vector v, generate_series(1, %(versions)s) g,
      lateral (select now() - interval '1 day' - (g - 1) * %(step)s as at) t
    where v.model_id = %(model)s and v.item_id = %(entity)s
"""
_USER_VERSIONS: LiteralString = """
    insert into dynrec_data.user_vector_history (model_id, user_id, state, half_lives, reference_time, event_count,
      valid_from, valid_to, created_at, replaced_at, closing_events)
    select v.model_id, v.user_id, v.state, v.half_lives, v.reference_time, v.event_count,
      t.at - %(step)s, t.at, t.at - %(step)s, t.at, '[]'
    from dynrec_data.user_vector v, generate_series(1, %(versions)s) g,
      lateral (select now() - interval '1 day' - (g - 1) * %(step)s as at) t
    where v.model_id = %(model)s and v.user_id = %(entity)s
"""
_VERSIONS_OF_ALL: LiteralString = """
    insert into dynrec_data.item_vector_history
      (model_id, item_id, embedding, valid_from, valid_to, created_at, replaced_at)
    select v.model_id, v.item_id, v.embedding, t.at - %(step)s, t.at, t.at - %(step)s, t.at
    from generate_series(1, %(versions)s) g, lateral (select now() - interval '60 days' + g * %(step)s as at) t,
      lateral (select * from dynrec_data.item_vector i where i.item_id = (g %% %(items)s)::text limit 1) v
    order by g
"""
_FORGET_VERSIONS: LiteralString = "truncate dynrec_data.item_vector_history"
# known for two months; before the index is built, which would be rewritten
_BACKDATE: LiteralString = """
    update dynrec_data.item_vector
      set valid_from = valid_from - interval '60 days', created_at = created_at - interval '60 days';
    update dynrec_data.user_vector
      set valid_from = valid_from - interval '60 days', created_at = created_at - interval '60 days'
"""
_CHANGES: LiteralString = """
    insert into dynrec_data.change (recommender_id, kind, entity, op, lane)
    select r.id, 'item', 'item ' || g, 'refresh', 1 from dynrec_data.recommender r, generate_series(1, %s) g
"""
_NO_CHANGES: LiteralString = "truncate dynrec_data.change"


Cost = tuple[float, int]  # milliseconds, pages


def growth(settings: Settings, *, items: int, histories: Sequence[int], totals: Sequence[int]) -> Iterator[Growth]:
    """Steps by the events of one user, the versions of an item or user, the interactions and changes in all."""
    steps = 2 * catalogue.steps(items) + 3 * len(histories) + 3 * len(totals)
    with (
        bench_database(settings) as own,
        progress(f"growth, {items:,} items", steps) as advance,
        queue.connect(url_of(own), application_name="dynrec bench") as connection,
        translated_errors(),
    ):
        made = _made(connection, items, advance)
        for axis, sizes in (
            (_events, histories),
            (_item_versions, histories),
            (_user_versions, histories),
            (_changes, totals),
            (_interactions, totals),
            (_versions_of_all, totals),
        ):
            points = [point for size in sizes for point in axis(connection, made, size, advance)]
            for step in dict.fromkeys(point.step for point in points):
                yield Growth(tuple(point for point in points if point.step == step))


def _made(connection: Connection, items: int, advance: Advance) -> Catalogue:
    made = catalogue.declare(connection, NAME, items, catalogue.DIMENSION, advance)
    catalogue.add_users(connection, made, ["ordinary"])
    catalogue.work_off(connection, made, advance)
    connection.execute(_BACKDATE)
    catalogue.tend_index(connection)
    return made


def _events(connection: Connection, made: Catalogue, size: int, advance: Advance) -> Iterator[Point]:
    what, user = "events of the user", f"with {size} events"
    connection.execute(_EVENTS, {"user": user, "items": made.items, "events": size})
    catalogue.work_off(connection, made, advance)
    yield Point(what, "recommend", size, *_reading(connection, _READ, [user]))
    yield Point(what, "recommend, exclude_seen => false", size, *_reading(connection, _READ_ALL, [user]))
    yield Point(what, "publish a new event", size, *_publishing_event(connection, made, user))
    _new_event(connection, made, user)
    yield Point(what, "recommend, an event pending", size, *_reading(connection, _READ, [user]))
    catalogue.work_off(connection, made, advance)


def _item_versions(connection: Connection, made: Catalogue, size: int, advance: Advance) -> Iterator[Point]:
    what, item = "old versions of the item", str(int(math.log10(size)))
    _add_versions(connection, _ITEM_VERSIONS, made, item, size)
    yield Point(what, "publish the item", size, *_publishing_item(connection, item))
    yield Point(what, "similar_items, as_of", size, *_reading(connection, _SIMILAR_AS_OF, [item]))
    catalogue.work_off(connection, made, advance)


def _user_versions(connection: Connection, made: Catalogue, size: int, advance: Advance) -> Iterator[Point]:
    what, user = "old versions of the user", f"with {size} versions"
    connection.execute(_EVENTS, {"user": user, "items": made.items, "events": 50})
    catalogue.work_off(connection, made, advance)
    _add_versions(connection, _USER_VERSIONS, made, user, size)
    yield Point(what, "publish a new event", size, *_publishing_event(connection, made, user))
    yield Point(what, "recommend, as_of", size, *_reading(connection, _READ_AS_OF, [user]))
    advance()


def _versions_of_all(connection: Connection, made: Catalogue, size: int, advance: Advance) -> Iterator[Point]:
    what = "old versions of all items"
    connection.execute(_FORGET_VERSIONS)
    values = {"versions": size, "items": made.items, "step": timedelta(days=60) / size}
    connection.execute(_VERSIONS_OF_ALL, values)
    connection.execute("vacuum analyze dynrec_data.item_vector_history")
    yield Point(what, "recommend, as_of an hour ago", size, *_reading(connection, _READ_LATELY, ["ordinary"]))
    yield Point(what, "recommend, as_of ten days ago", size, *_reading(connection, _READ_AS_OF, ["ordinary"]))
    yield Point(what, "retention, nothing is due", size, *_reading(connection, _RETENTION, []))
    advance()


def _add_versions(
    connection: Connection, statement: LiteralString, made: Catalogue, entity: str, versions: int
) -> None:
    step = timedelta(days=30) / versions
    connection.execute(statement, {"versions": versions, "step": step, "model": made.model_version, "entity": entity})


def _changes(connection: Connection, _: Catalogue, size: int, advance: Advance) -> Iterator[Point]:
    what = "changes that wait"
    connection.execute(_CHANGES, [size])
    yield Point(what, "the dispatcher looks", size, *_reading(connection, _PENDING, []))
    yield Point(what, "claim 256 items", size, *_reading(connection, _CLAIM, [], before=_FREE))
    yield Point(what, "recommend", size, *_reading(connection, _READ, ["ordinary"]))
    connection.execute(_FREE)
    connection.execute(_NO_CHANGES)
    advance()


def _interactions(connection: Connection, made: Catalogue, size: int, advance: Advance) -> Iterator[Point]:
    what, user = "interactions of everybody", "crowd 1"  # one of those with a hundred
    # of the others no step asks for a vector: they need not be published
    connection.execute(_QUIET)
    connection.execute("truncate growth.events")
    connection.execute(_OF_MANY, {"events": size, "items": made.items})
    connection.execute(_LOUD)
    connection.execute("vacuum analyze growth.events")
    connection.execute(_COUNT_AFRESH)
    connection.execute("select dynrec.refresh('growth', user_ids => %s)", [[user]])
    catalogue.work_off(connection, made, advance)
    connection.execute("vacuum analyze dynrec_data.item_popularity")  # as autovacuum does within a minute
    yield Point(what, "recommend", size, *_reading(connection, _READ, [user]))
    yield Point(what, "trending", size, *_reading(connection, _TRENDING, []))
    yield Point(what, "publish a new event", size, *_publishing_event(connection, made, user))
    advance()


def _reading(
    connection: Connection, statement: LiteralString, arguments: Sequence[object], before: LiteralString = "select 1"
) -> Cost:
    def once() -> Cost:
        connection.execute(before)
        return _explained(connection, statement, arguments)

    once()  # what is planned and cached once
    return _median(once)


def _publishing_event(connection: Connection, made: Catalogue, user: str) -> Cost:
    def once() -> Cost:
        _new_event(connection, made, user)
        return _explained(connection, _PUBLISH_USER, [queue.claim(connection, NAME, "user", 1, LEASE)])

    once()
    return _median(once)


def _publishing_item(connection: Connection, item: str) -> Cost:
    def once() -> Cost:
        connection.execute(_MOVE, [int(item)])
        return _explained(connection, _PUBLISH_ITEM, [queue.claim(connection, NAME, "item", 1, LEASE)])

    once()
    return _median(once)


def _new_event(connection: Connection, made: Catalogue, user: str) -> None:
    connection.execute(sql.SQL("insert into {} values (%s, 5, now())").format(made.events), [user])


def _median(once: Callable[[], Cost]) -> Cost:
    costs = [once() for _ in range(TIMES)]
    return statistics.median(ms for ms, _ in costs), int(statistics.median(pages for _, pages in costs))


def _explained(connection: Connection, statement: LiteralString, arguments: Sequence[object]) -> Cost:
    row = connection.execute("explain (analyze, buffers, timing off, format json) " + statement, arguments).fetchone()
    assert row is not None  # noqa: S101 - explain has one row
    (explained,) = cast("list[dict[str, dict[str, int]]]", row[0])
    plan = explained["Plan"]
    return cast("float", explained["Execution Time"]), plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
