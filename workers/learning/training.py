"""Training of the two towers together."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from workers.learning.data import Histories, Times, TrainingData
from workers.learning.examples import Examples, join, next_turns, ranges, snapshots
from workers.learning.history import Thinning, ValueScale, history_batch
from workers.learning.objective import NEVER, softmax_loss
from workers.learning.settings import Settings
from workers.learning.towers import ItemTower, ItemVectors, Shape, UserTower


class Towers(nn.Module):
    """Both towers."""

    def __init__(self, shape: Shape, settings: Settings) -> None:
        super().__init__()
        self.items = ItemTower(shape, settings)
        self.users = UserTower(shape, settings)


def shape_of(data: TrainingData) -> Shape:
    """Return the sizes that the data ask for."""
    sizes = tuple(int(column.max(initial=0)) + 1 for column in data.codes.T)
    numbers = data.numerics[0][1].shape[1] if data.numerics else 0
    return Shape(len(data.items), len(data.kinds), data.content.shape[1], sizes, numbers)


@dataclass(frozen=True)
class Arrays:
    """What stays the same during training, ready for use."""

    data: TrainingData
    histories: Histories
    values: ValueScale
    first_met: Times
    content: Tensor  # (items, p)
    codes: Tensor  # (items, labels)
    met: Tensor  # (items,): 1 where the item was ever met, else 0

    @classmethod
    def of(cls, data: TrainingData, towers: Towers) -> "Arrays":
        """Prepare the data for these towers."""
        first_met = data.first_met()
        return cls(
            data=data,
            histories=Histories.of(data),
            values=ValueScale.of(data),
            first_met=first_met,
            content=towers.items.project(torch.from_numpy(data.content)).detach(),
            codes=torch.from_numpy(data.codes),
            met=torch.from_numpy(np.isfinite(first_met).astype(np.float32)),
        )

    def vectors(self, towers: Towers, moment: float, identity: Tensor | None = None) -> ItemVectors:
        """Return the vectors of the whole catalogue with the numbers of that moment."""
        numbers = self.data.numbers_at(moment)
        vectors: ItemVectors = towers.items(
            self.content,
            self.codes,
            None if numbers is None else torch.from_numpy(numbers),
            torch.arange(len(self.content)),
            self.met if identity is None else identity,
        )
        return vectors


def epoch_examples(arrays: Arrays, settings: Settings, horizon: float) -> tuple[Examples, Examples]:
    """Return the two sorts of examples: the next turn, and snapshots with a longer horizon."""
    data = arrays.data
    begin, end = float(data.occurred_at[0]), float(data.occurred_at[-1]) + 1e-6
    moments = begin + (end - begin) * np.linspace(0.1, 1.0, settings.snapshots + 1)[:-1]
    moments = np.append(moments[moments < end - horizon], max(end - horizon, begin))
    turns = next_turns(arrays.histories, begin, end, exclude_seen=data.exclude_seen)
    return turns, snapshots(arrays.histories, moments, horizon, exclude_seen=data.exclude_seen)


def drawn(examples: Examples, settings: Settings, random: np.random.Generator) -> Examples:
    """Draw the examples of an epoch, later ones more often."""
    if not len(examples):
        return examples
    rank = np.argsort(np.argsort(examples.moment, kind="stable"), kind="stable") / len(examples)
    weight = np.exp(settings.recency * rank)
    count = min(len(examples), settings.examples)
    return examples.take(random.choice(len(examples), count, p=weight / weight.sum()))


def train(
    towers: Towers,
    arrays: Arrays,
    settings: Settings,
    epochs: int,
    horizon: float,
    after_epoch: Callable[[int], bool],
) -> None:
    """Train until `epochs` are done or `after_epoch` (given the number of epochs done) returns False."""
    random = np.random.default_rng(settings.seed)
    torch.manual_seed(settings.seed)
    sorts = epoch_examples(arrays, settings, horizon)
    steps = epochs * sum(-(-min(len(sort), settings.examples) // settings.batch) for sort in sorts)
    parameters = [p for p in towers.parameters() if p.requires_grad]
    initial: list[Tensor] = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.AdamW(parameters, lr=settings.rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    for epoch in range(epochs):
        towers.train()
        for batch in batches(sorts, settings, random):
            optimizer.zero_grad()
            loss = batch_loss(towers, arrays, batch, settings, random)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            pull = optimizer.param_groups[0]["lr"] * settings.pull
            with torch.no_grad():
                for parameter, start in zip(parameters, initial, strict=True):
                    parameter.lerp_(start, pull)
            schedule.step()
        towers.eval()
        if not after_epoch(epoch + 1):
            return


def batches(sorts: tuple[Examples, ...], settings: Settings, random: np.random.Generator) -> Iterator[Examples]:
    """Yield the batches of one epoch, both sorts mixed."""
    epoch = join([part for part in (drawn(sort, settings, random) for sort in sorts) if len(part)])
    yield from epoch.take(random.permutation(len(epoch))).batches(settings.batch)


def batch_loss(
    towers: Towers, arrays: Arrays, examples: Examples, settings: Settings, random: np.random.Generator
) -> Tensor:
    """Return the loss of a batch, with everything dropped at random that training drops."""
    thinning = Thinning(settings.recent, settings.older, settings.history_dropout, random)
    history = history_batch(arrays.histories, examples, arrays.values, thinning)
    identity = arrays.met * (torch.rand(len(arrays.met)) >= settings.identity_dropout)
    items = arrays.vectors(towers, float(np.median(examples.moment)), identity)
    query = towers.users.queries(towers.users.full_pass(items, history), history.context)
    logits = inner(query, items) + barred(arrays, examples)
    row, column = torch.from_numpy(examples.target_row()), torch.from_numpy(examples.target)
    return softmax_loss(logits, row, column, torch.from_numpy(examples.weight))


def inner(query: tuple[Tensor, Tensor, Tensor], items: ItemVectors) -> Tensor:
    """Return the inner products (B, N)."""
    learned, content, bias = query
    return learned @ items.item.T + content @ items.content.T + bias[:, None] * items.bias


def barred(arrays: Arrays, examples: Examples) -> Tensor:
    """Return NEVER (B, N) for items that nobody had met by then, or the user had and is not to get again; else 0."""
    barred = arrays.first_met > examples.moment[:, None]
    if arrays.data.exclude_seen:
        start = arrays.histories.start[examples.user]
        length = examples.end - start
        seen = arrays.histories.item[ranges(start, length)]
        row = np.repeat(np.arange(len(examples)), length)
        barred[row[seen >= 0], seen[seen >= 0]] = True
    barred[examples.target_row(), examples.target] = False
    return torch.from_numpy(barred.astype(np.float32) * np.float32(NEVER))
