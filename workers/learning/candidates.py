"""Candidates of past calls, as recommend() would have gathered them, with all that the score looks at."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from workers.learning.data import Flags, Floats, Integers
from workers.learning.examples import Examples, ranges
from workers.learning.history import history_batch
from workers.learning.popularity import DAY, rates_at, relative
from workers.learning.ranking import Candidates
from workers.learning.training import Arrays, Towers
from workers.learning.transitions import following

TRENDING = 50  # of each of the rates at a day, a week and a month
FOLLOWING = 50  # that come next after the last interactions, all paces together
OWN = 50  # the user's last items, where items may come again
BATCH = 128  # calls


@torch.no_grad()
def gather(towers: Towers, arrays: Arrays, examples: Examples) -> Iterator[tuple[Candidates, Integers]]:
    """Yield batches of candidates and their items (B, K), -1 where padded; examples must come in order of time.

    `arrays` hold what is known by then and may reach beyond what the towers learned from. Targets that recommend()
    would not have looked at are no candidates either: added, they would teach the ranking to distrust the vectors.
    """
    rates = rates_at(arrays.data, examples.moment)
    for batch in examples.batches(BATCH):
        yield _batch(towers, arrays, batch, np.stack([next(rates) for _ in range(len(batch))]))


def _batch(towers: Towers, arrays: Arrays, examples: Examples, rates: Floats) -> tuple[Candidates, Integers]:
    items = arrays.vectors(towers, float(examples.moment[0]))
    history = history_batch(arrays.histories, examples, arrays.values)
    heads = towers.users.full_pass(items, history)
    learned, content, bias = towers.users.queries(heads, history.context)
    score = (learned @ items.item.T + content @ items.content.T + bias[:, None] * items.bias).numpy()
    times, last = _met(arrays, examples, score.shape[1])
    allowed = times == 0 if arrays.data.exclude_seen else np.ones_like(times, dtype=np.bool_)
    follow = following(arrays.paces, towers.users, history, score.shape[1])
    next_ = follow[[not pace.past.by_item for pace in arrays.paces]].sum(axis=0)
    chosen = _chosen(np.where(allowed, score, -np.inf), next_, rates, allowed, towers.candidates)
    if not arrays.data.exclude_seen:
        _add_own(chosen, last)
    item, padding = _padded(chosen)
    at = np.arange(len(examples))[:, None]
    gate = towers.users.gates()[:, history.context].T  # (B, H + C + 1)
    learned_heads = len(towers.users.turning)
    tables = [items.item] * learned_heads + [items.content] * (len(heads) - learned_heads)
    products = [torch.einsum("bd,bkd->bk", head, table[item]) for head, table in zip(heads, tables, strict=True)]
    products = [*products, items.bias[torch.from_numpy(item)]]
    row, column = _targets(examples, item, padding)
    days = (examples.moment[:, None] - last[at, item]) / DAY
    candidates = Candidates(
        context=history.context,
        products=torch.stack(products, dim=2) * gate[:, None, :],
        following=torch.from_numpy(follow[:, at, item]).permute(1, 2, 0),
        rates=torch.from_numpy(np.stack([relative(rate)[:, few].T for rate, few in zip(rates, item, strict=True)])),
        cold=torch.from_numpy(rates[at, -1, item] == 0),
        times_met=torch.from_numpy(times[at, item].astype(np.float32)),
        days_since=torch.from_numpy(np.where(np.isfinite(days), days, 0.0).astype(np.float32)),
        allowed=torch.from_numpy(~padding),
        target_row=torch.from_numpy(row),
        target_column=torch.from_numpy(column),
        weight=torch.from_numpy(examples.weight),
    )
    return candidates, np.where(padding, -1, item)


def _chosen(score: Floats, likely: Floats, rates: Floats, allowed: Flags, nearest: int) -> Flags:
    """Return which items are candidates (B, N)."""
    chosen = np.zeros(score.shape, dtype=np.bool_)
    _mark_highest(chosen, score, nearest)
    following = np.zeros_like(chosen)
    _mark_highest(following, likely, FOLLOWING)
    chosen |= following & (likely > 0)
    for half_life in (1, 2, 3):
        _mark_highest(chosen, rates[:, half_life], TRENDING)
    return chosen & allowed


def _mark_highest(chosen: Flags, score: Floats | NDArray[np.float64], count: int) -> None:
    count = min(count, score.shape[1])
    highest = torch.from_numpy(score).topk(count, dim=1, sorted=False).indices.numpy()
    np.put_along_axis(chosen, highest, values=True, axis=1)


def _add_own(chosen: Flags, last: NDArray[np.float64]) -> None:
    own = np.zeros_like(chosen)
    _mark_highest(own, last, OWN)
    chosen |= own & np.isfinite(last)


def _met(arrays: Arrays, examples: Examples, items: int) -> tuple[Integers, NDArray[np.float64]]:
    """Return how often (B, N) and when last (-inf: never) each user had met each item."""
    start = arrays.histories.start[examples.user]
    length = examples.end - start
    place = ranges(start, length)
    item, row = arrays.histories.item[place], np.repeat(np.arange(len(examples)), length)
    place, item, row = place[item >= 0], item[item >= 0], row[item >= 0]
    times = np.bincount(row * items + item, minlength=len(examples) * items).reshape(-1, items)
    last = np.full((len(examples), items), -np.inf)
    last[row, item] = arrays.histories.occurred_at[place]  # ascending: the latest stays
    return times, last


def _padded(chosen: Flags) -> tuple[Integers, Flags]:
    """Return the items (B, K) of each row's candidates, ascending, and where there is padding."""
    row, item = np.nonzero(chosen)
    count = np.bincount(row, minlength=len(chosen))
    padding = np.arange(max(int(count.max(initial=0)), 1)) >= count[:, None]
    items = np.zeros(padding.shape, dtype=np.int64)
    items[~padding] = item
    return items, padding


def _targets(examples: Examples, item: Integers, padding: Flags) -> tuple[Integers, Integers]:
    """Return row and column of each target that is among the candidates."""
    rows, columns = np.nonzero(~padding)
    catalogue = int(max(item.max(), examples.target.max())) + 1
    known = rows * catalogue + item[rows, columns]  # ascending
    row = examples.target_row()
    wanted = row * catalogue + examples.target
    place = np.searchsorted(known, wanted).clip(max=len(known) - 1)
    found = known[place] == wanted
    return row[found], columns[place[found]]


def together(batches: list[Candidates]) -> Candidates:
    """Return all batches as one, padded to the widest."""
    width = max(batch.allowed.shape[1] for batch in batches)
    sizes = np.cumsum([0, *(len(batch.context) for batch in batches)])

    def padded(name: str) -> torch.Tensor:
        parts = [getattr(batch, name) for batch in batches]
        pads = [[0, 0] * (part.dim() - 2) + [0, width - part.shape[1]] for part in parts]
        return torch.cat([torch.nn.functional.pad(part, pad) for part, pad in zip(parts, pads, strict=True)])

    return Candidates(
        context=torch.cat([batch.context for batch in batches]),
        products=padded("products"),
        following=padded("following"),
        rates=padded("rates"),
        cold=padded("cold"),
        times_met=padded("times_met"),
        days_since=padded("days_since"),
        allowed=padded("allowed"),
        target_row=torch.cat([batch.target_row + int(size) for batch, size in zip(batches, sizes[:-1], strict=True)]),
        target_column=torch.cat([batch.target_column for batch in batches]),
        weight=torch.cat([batch.weight for batch in batches]),
    )
