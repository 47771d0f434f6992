"""In which lists a place is held for items that nobody has met."""

import numpy as np
import pytest
import torch

from workers.learning.examples import Examples
from workers.learning.exploration import exploration
from workers.learning.ranking import Candidates, Ranking
from workers.learning.validation import Sort

LISTS, MET = 200, 12  # lists, and met items in each; the item after them was met by nobody


def lists(right: int, asked: int, *, reached: bool = True) -> list[Sort]:
    """Return lists of which `asked` came to an unmet item, `right` of them to the best; it lies ever further below the others."""
    scores = torch.cat([torch.linspace(1, 2, MET).expand(LISTS, MET), -torch.arange(float(LISTS))[:, None] / 10], dim=1)
    width, flags = MET + 1, torch.zeros(LISTS, MET + 1, dtype=torch.bool)
    cold = flags.clone()
    cold[:, MET] = reached
    target = np.zeros(LISTS, dtype=np.int64)
    target[:asked] = width  # an unmet item that is no candidate
    target[:right] = MET
    unmet = np.zeros(width + 1, dtype=np.bool_)
    unmet[MET:] = True
    zeros = torch.zeros(LISTS, width)
    candidates = Candidates(
        context=torch.zeros(LISTS, dtype=torch.int64),
        products=torch.stack([scores, zeros, zeros], dim=2),
        following=torch.zeros(LISTS, width, 1),
        rates=torch.ones(LISTS, width, 5),
        cold=cold,
        times_met=zeros,
        days_since=zeros,
        allowed=~flags,
        target_row=torch.arange(0),
        target_column=torch.arange(0),
        weight=torch.ones(LISTS),
    )
    examples = Examples(
        user=np.arange(LISTS),
        end=np.arange(LISTS),
        moment=np.zeros(LISTS),
        first=np.arange(LISTS + 1),
        target=target,
        value=np.zeros(LISTS, dtype=np.float32),
        weight=np.ones(LISTS, dtype=np.float32),
    )
    batches = []
    for begin in range(0, LISTS, 128):
        rows = slice(begin, begin + 128)
        part = Candidates(
            **{
                name: value[rows] if name not in ("target_row", "target_column") else value
                for name, value in vars(candidates).items()
            }
        )
        batches.append((part, np.tile(np.arange(width), (len(part.context), 1))))
    return [Sort("lists", examples, batches, unmet)]


def shares(right: int, asked: int) -> float:
    """Return the share of the lists that have a place."""
    sorts = lists(right, asked)
    found = exploration(Ranking(2, 1), sorts)
    assert found.share == 0.1
    assert found.gap is not None
    return sum(gap <= found.gap for gap in gaps(sorts)) / LISTS


def gaps(sorts: list[Sort]) -> list[float]:
    ranking = Ranking(2, 1)
    with torch.no_grad():
        scores = torch.cat([ranking(candidates) for candidates, _ in sorts[0].batches])
    return (scores.topk(10, dim=1).values[:, -1] - scores[:, MET]).tolist()


@pytest.mark.parametrize(("right", "asked", "share"), [(100, 100, 0.5), (2, 100, 0.5), (1, 100, 0.25), (0, 100, 0.05)])
def test_the_more_often_unmet_items_are_right_the_more_lists_have_one(right: int, asked: int, share: float) -> None:
    assert shares(right, asked) == pytest.approx(share, abs=0.01)


def test_nothing_is_held_where_nobody_met_what_was_unmet() -> None:
    assert exploration(Ranking(2, 1), lists(0, 0)).share == 0


def test_nothing_is_held_where_no_unmet_item_is_a_candidate() -> None:
    assert exploration(Ranking(2, 1), lists(0, 100, reached=False)).share == 0
