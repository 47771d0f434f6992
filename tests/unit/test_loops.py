"""Few loops for one recommender, and one for live changes beside a backfill."""

from contextlib import ExitStack

import pytest

from workers.loops import Loop, Loops


def parts(loops: Loops, work: str, many: int, *, recommender: str = "shop") -> list[Loop]:
    """What so many loops at once have to do."""
    with ExitStack() as stack:
        return [stack.enter_context(loops.another(recommender, work)) for _ in range(many)]


@pytest.mark.parametrize(("work", "busy"), [("item", 2), ("derived", 2), ("user", 1), ("tasks", 1)])
def test_more_loops_than_can_be_busy_have_nothing_to_do(work: str, busy: int) -> None:
    assert parts(Loops(), work, 4) == [Loop.EVERYTHING] * busy + [Loop.NOTHING] * (4 - busy)


@pytest.mark.parametrize(("work", "busy"), [("item", 2), ("user", 1)])
def test_live_changes_have_a_loop_beside_a_backfill_and_only_then(work: str, busy: int) -> None:
    loops = Loops()
    loops.claimed("shop", work, backfill=True)
    expected = [Loop.EVERYTHING] * busy + [Loop.LIVE] + [Loop.NOTHING] * (3 - busy)
    assert parts(loops, work, 4) == expected
    assert parts(loops, work, 4, recommender="books")[busy] == Loop.NOTHING
    loops.claimed("shop", work, backfill=False)
    assert parts(loops, work, 4)[busy] == Loop.NOTHING


def test_a_loop_that_ends_makes_room() -> None:
    loops = Loops()
    assert parts(loops, "user", 2) == parts(loops, "user", 2) == [Loop.EVERYTHING, Loop.NOTHING]
