"""Lists of users of whom nothing was known are trending; what is trending is read once for all of them."""

import pytest

from tests.drain import Session


@pytest.mark.parametrize("k", [10, 60, 300])
def test_strangers_are_shown_what_recommend_shows_them(many: Session, k: int) -> None:
    """With 300 the first 200, which are read once, are not enough."""
    with many.transaction(force_rollback=True):
        row = many.execute("select clock_timestamp()").fetchone()
        assert row
        many.execute("insert into events select 900000 + n, n, clock_timestamp() from generate_series(1, 5) n")
        lists = many.execute(
            "select user_id, recommended, sources, is_new from dynrec.evaluation_lists('many', %s, clock_timestamp() + interval '1 s', %s, user_ids => %s)",
            [row[0], k, [str(900000 + n) for n in range(1, 6)]],
        ).fetchall()
        assert len(lists) == 5
        for user, recommended, sources, is_new in lists:
            assert is_new
            assert set(sources) == {"trending"}
            served = many.execute(
                "select array_agg(item_id order by rank) from dynrec.recommend('many', %s, %s, as_of => %s)",
                [user, k, row[0]],
            ).fetchone()
            assert served == (recommended,)


def test_a_filter_asks_for_all_that_is_trending(many: Session) -> None:
    with many.transaction(force_rollback=True):
        row = many.execute("select clock_timestamp()").fetchone()
        assert row
        many.execute("insert into events values (900001, 1, clock_timestamp())")
        lists = many.execute(
            "select recommended from dynrec.evaluation_lists('many', %s, clock_timestamp() + interval '1 s', 20, user_ids => '{900001}', filter => 'price between 4000 and 4500')",
            [row[0]],
        ).fetchall()
        assert len(lists[0][0]) == 20
        assert all(4000 <= int(item) <= 4500 for item in lists[0][0])
