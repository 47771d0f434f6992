"""Training of the two towers together."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from workers.learning.data import Earlier, Floats, Histories, Integers, Times, TrainingData
from workers.learning.examples import Examples, join, next_turns, ranges, snapshots
from workers.learning.history import Thinning, ValueScale, history_batch
from workers.learning.objective import NEVER, softmax_loss
from workers.learning.settings import Settings
from workers.learning.tasks import Tasks
from workers.learning.towers import HistoryBatch, ItemTower, ItemVectors, Shape, UserTower
from workers.learning.transitions import Pace
from workers.learning.trends import Trend, Trends

DAMPING = 0.75  # power of an item's interactions in its chance to be drawn


class Towers(nn.Module):
    """Both towers."""

    def __init__(self, shape: Shape, settings: Settings) -> None:
        super().__init__()
        self.items = ItemTower(shape, settings)
        self.users = UserTower(shape, settings)
        self.trend = Trend()
        self.tasks = Tasks(shape, settings)
        self.candidates = settings.candidates  # nearest items that are ranked


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
    content: Tensor  # (items, p), as they are
    codes: Tensor  # (items, labels), as they are
    earlier: tuple[tuple[float, Tensor, Tensor], ...]  # moments with what both were then
    met: Tensor  # (items,): 1 where the item was ever met, else 0
    trends: Trends
    drawing: Times  # (items,): running sum of the chances to be drawn, by interactions to the power of 3/4
    paces: tuple[Pace, ...] = ()  # what follows what, for ranking

    @classmethod
    def of(cls, data: TrainingData, towers: Towers) -> "Arrays":
        """Prepare the data for these towers."""
        first_met = data.first_met()
        count = np.bincount(data.item[data.wanted()], minlength=len(data.items)) ** DAMPING
        content = towers.items.project(torch.from_numpy(data.content)).detach()
        codes = torch.from_numpy(data.codes.reshape(len(data.items), -1))
        return cls(
            data=data,
            histories=Histories.of(data),
            values=ValueScale.of(data),
            first_met=first_met,
            content=content,
            codes=codes,
            earlier=tuple(_as_it_was(then, towers, content, codes) for then in data.earlier),
            met=torch.from_numpy(np.isfinite(first_met).astype(np.float32)),
            trends=Trends.of(data),
            drawing=np.cumsum(count) / max(float(count.sum()), 1.0),
        )

    def on(self, device: str) -> "Arrays":
        """Return the same with its tensors on a device."""
        return replace(
            self,
            content=self.content.to(device),
            codes=self.codes.to(device),
            earlier=tuple((moment, content.to(device), codes.to(device)) for moment, content, codes in self.earlier),
            met=self.met.to(device),
            trends=self.trends.on(device),
        )

    def vectors(
        self, towers: Towers, moment: float, identity: Tensor | None = None, rows: Tensor | None = None
    ) -> ItemVectors:
        """Return the vectors of the catalogue, or of some `rows` of it, as items were at that moment."""
        rows = torch.arange(len(self.content), device=self.content.device) if rows is None else rows
        numbers = self.data.numbers_at(moment)
        content, codes = self._at(moment)
        vectors: ItemVectors = towers.items(
            content[rows],
            codes[rows],
            None if numbers is None else torch.from_numpy(numbers).to(rows.device)[rows],
            rows,
            (self.met if identity is None else identity)[rows],
        )
        return vectors

    def _at(self, moment: float) -> tuple[Tensor, Tensor]:
        """Return content and codes as they were: before the first moment that is known of as at that one."""
        known = [then for then in self.earlier if then[0] <= moment] or self.earlier[:1]
        return known[-1][1:] if known else (self.content, self.codes)


def _as_it_was(then: Earlier, towers: Towers, content: Tensor, codes: Tensor) -> tuple[float, Tensor, Tensor]:
    if not len(then.rows):
        return then.moment, content, codes
    rows = torch.from_numpy(then.rows)
    projected = towers.items.project(torch.from_numpy(then.content)).detach()
    return then.moment, content.index_copy(0, rows, projected), codes.index_copy(0, rows, torch.from_numpy(then.codes))


def epoch_examples(arrays: Arrays, settings: Settings, horizon: float) -> tuple[Examples, Examples]:
    """Return the two sorts of examples: the next turn, and snapshots with a longer horizon."""
    data = arrays.data
    begin, end = float(data.occurred_at[0]), float(data.occurred_at[-1]) + 1e-6
    early = float(data.occurred_at[len(data.occurred_at) // 100])
    first = early if early - begin > end - early else begin  # a few of long ago would leave most moments to themselves
    moments = first + (end - first) * np.linspace(0.1, 1.0, settings.snapshots + 1)[:-1]
    moments = np.append(moments[moments < end - horizon], max(end - horizon, begin))
    turns = next_turns(arrays.histories, begin, end, exclude_seen=data.exclude_seen)
    return turns, snapshots(arrays.histories, moments, horizon, exclude_seen=data.exclude_seen)


@dataclass(frozen=True)
class Course:
    """How long to train, for what, on what."""

    epochs: int
    planned: int  # epochs over which the rate would fall to nothing; training may end before
    horizon: float  # seconds that snapshots look ahead
    since: float = -np.inf  # what came later makes half of the examples
    device: str = "cpu"


def drawn(examples: Examples, settings: Settings, since: float, random: np.random.Generator) -> Examples:
    """Draw the examples of an epoch, later ones more often; half of them since that moment, if it divides them."""
    if not len(examples):
        return examples
    rank = np.argsort(np.argsort(examples.moment, kind="stable"), kind="stable") / len(examples)
    weight = np.exp(settings.recency * rank)
    later = examples.moment >= since
    if later.any() and not later.all():
        weight = np.where(later, weight / weight[later].sum(), weight / weight[~later].sum())
    count = min(len(examples), settings.examples)
    return examples.take(random.choice(len(examples), count, p=weight / weight.sum()))


def train(
    towers: Towers, arrays: Arrays, settings: Settings, course: Course, after_epoch: Callable[[int], bool]
) -> None:
    """Train until the epochs are done or `after_epoch` (given the number of epochs done) returns False.

    The towers become the running mean of the weights that are learned: after any epoch, however high the rate still
    is, they are as calm as at the end. Between epochs they are on the CPU.
    """
    random = np.random.default_rng(settings.seed)
    torch.manual_seed(settings.seed)
    sorts = epoch_examples(arrays, settings, course.horizon)
    arrays = arrays.on(course.device)
    steps = _steps(sorts, settings, arrays.data) * course.planned
    learner = copy.deepcopy(towers).to(course.device).train()
    parameters, means = ([p for p in each.parameters() if p.requires_grad] for each in (learner, towers))
    initial: list[Tensor] = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.AdamW(parameters, lr=settings.rate, weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    step = 0
    for epoch in range(course.epochs):
        towers.to(course.device)
        for batch in batches(arrays.data, sorts, settings, course.since, random):
            optimizer.zero_grad()
            with torch.autocast("cuda", torch.bfloat16, enabled=arrays.content.is_cuda):
                loss = batch_loss(learner, arrays, batch, settings, random)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            step += 1
            new = max(1 - settings.averaging, 9 / (10 + step))  # of the mean: the first steps do not linger in it
            pull = optimizer.param_groups[0]["lr"] * settings.pull
            with torch.no_grad():
                for parameter, start, mean in zip(parameters, initial, means, strict=True):
                    parameter.lerp_(start, pull)
                    mean.lerp_(parameter, new)
            schedule.step()
        towers.to("cpu").eval()
        if not after_epoch(epoch + 1):
            return


def _steps(sorts: tuple[Examples, ...], settings: Settings, data: TrainingData) -> int:
    """Return how many batches an epoch has, at most."""
    return sum(min(len(sort), settings.examples) for sort in sorts) // settings.batch + 1 + len(data.numerics)


def batches(
    data: TrainingData, sorts: tuple[Examples, ...], settings: Settings, since: float, random: np.random.Generator
) -> Iterator[Examples]:
    """Yield the batches of one epoch, both sorts mixed; the examples of a batch see the same numbers of items."""
    epoch = join([part for part in (drawn(sort, settings, since, random) for sort in sorts) if len(part)])
    mixed = random.permutation(len(epoch))
    snapshot = data.snapshot_of(epoch.moment[mixed])
    parts = [
        chosen[begin : begin + settings.batch]
        for chosen in (mixed[snapshot == number] for number in np.unique(snapshot))
        for begin in range(0, len(chosen), settings.batch)
    ]
    for number in random.permutation(len(parts)):
        yield epoch.take(parts[number])


def batch_loss(
    towers: Towers, arrays: Arrays, examples: Examples, settings: Settings, random: np.random.Generator
) -> Tensor:
    """Return the loss of a batch, with everything dropped at random that training drops."""
    device = arrays.content.device
    thinning = Thinning(settings.recent, settings.older, settings.history_dropout, random)
    history = history_batch(arrays.histories, examples, arrays.values, thinning)
    columns = Columns.of(arrays, history, examples, settings, random)
    history = replace(history, item=torch.from_numpy(columns.place(history.item.numpy()))).to(device)
    kept = torch.rand(len(arrays.met)) >= settings.identity_dropout
    looked_at = torch.from_numpy(columns.item).to(device)
    items = arrays.vectors(towers, float(examples.moment.min()), arrays.met * kept.to(device), looked_at)
    query = towers.users.queries(towers.users.full_pass(items, history), history.context)
    rivals = items.rows(torch.from_numpy(columns.place(columns.rival)).to(device))
    logits = inner(query, rivals).float()
    logits = logits + arrays.trends.logits(towers.trend, examples.moment, columns.rival, history.context)
    competing = logits + torch.from_numpy(barred(arrays, examples, columns) + columns.correction).to(device)
    row, column = torch.from_numpy(examples.target_row()), torch.from_numpy(columns.find(examples.target))
    row, column = row.to(device), column.to(device)
    loss = softmax_loss(logits, competing, row, column, torch.from_numpy(examples.weight).to(device))
    value = torch.from_numpy(arrays.values.standard(examples.value)).to(device)
    code = arrays.codes[torch.from_numpy(examples.target).to(device), 0] if arrays.codes.shape[1] else None
    further: Tensor = towers.tasks(query[0][row], rivals.item[column], value, code)
    return loss + further


@dataclass(frozen=True)
class Columns:
    """The items that a batch looks at, and those among them that compete in its softmax."""

    item: Integers  # ascending
    rival: Integers  # ascending
    correction: Floats  # of a rival: -ln of the chance that it was drawn

    @classmethod
    def of(
        cls,
        arrays: Arrays,
        history: HistoryBatch,
        examples: Examples,
        settings: Settings,
        random: np.random.Generator,
    ) -> "Columns":
        """Let all items compete, or where they are too many, the targets and others drawn by popularity."""
        everything = np.arange(len(arrays.content))
        if len(everything) <= settings.full_softmax:
            return cls(everything, everything, np.zeros(len(everything), dtype=np.float32))
        drawn = np.searchsorted(arrays.drawing, random.random(settings.negatives)).clip(max=len(everything) - 1)
        rival = np.unique(np.concatenate([examples.target, drawn]))
        share = np.diff(arrays.drawing, prepend=0.0)[rival]
        chance = -np.expm1(-(settings.negatives + len(examples.target)) * share)
        correction = -np.log(np.maximum(chance, 1e-9)).astype(np.float32)
        return cls(np.union1d(rival, history.item.numpy()), rival, correction)

    def place(self, item: Integers) -> Integers:
        """Return where items are among those that are looked at."""
        return np.searchsorted(self.item, item)

    def find(self, item: Integers) -> Integers:
        """Return where items are among the rivals."""
        return np.searchsorted(self.rival, item)


def inner(query: tuple[Tensor, Tensor, Tensor], items: ItemVectors) -> Tensor:
    """Return the inner products (B, N)."""
    learned, content, bias = query
    return learned @ items.item.T + content @ items.content.T + bias[:, None] * items.bias


def barred(arrays: Arrays, examples: Examples, columns: Columns) -> Floats:
    """Return NEVER (B, N) for items that nobody had met by then, or the user had and is not to get again; else 0."""
    barred = arrays.first_met[columns.rival] > examples.moment[:, None]
    if arrays.data.exclude_seen:
        start = arrays.histories.start[examples.user]
        length = examples.end - start
        seen = arrays.histories.item[ranges(start, length)]
        row = np.repeat(np.arange(len(examples)), length)
        here = np.isin(seen, columns.rival)
        barred[row[here], columns.find(seen[here])] = True
    barred[examples.target_row(), columns.find(examples.target)] = False
    return barred.astype(np.float32) * np.float32(NEVER)
