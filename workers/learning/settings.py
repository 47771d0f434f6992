"""Hyper-parameters."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from dynrec_store.exceptions import ConfigurationError

PREPARING, PROMOTE = "features", "promote"  # the parts of a model's options that are no hyper-parameters

LARGEST = 2_000 - 1  # numbers of a vector that an index can hold, without its bias
MOST_HEADS = 10


def _whole(low: int, high: int) -> Any:  # noqa: ANN401 - as pydantic.Field says
    return Field(strict=True, ge=low, le=high, description=f"a whole number from {low} to {high}")


def _number(low: float, high: float) -> Any:  # noqa: ANN401 - as pydantic.Field says
    return Field(strict=True, ge=low, le=high, description=f"a number from {low:g} to {high:g}")


def _numbers(fewest: int, most: int, low: float, high: float) -> Any:  # noqa: ANN401 - as pydantic.Field says
    return Field(
        min_length=fewest, max_length=most, description=f"a list of {fewest} to {most} numbers from {low:g} to {high:g}"
    )


Dimension = Annotated[int, _whole(1, LARGEST - 1)]
Amount = Annotated[int, _whole(1, 10**9)]
Epochs = Annotated[int, _whole(1, 1_000)]
Catalogue = Annotated[int, _whole(0, 100_000)]  # items of which each pair has a number
Averaging = Annotated[float, _number(0, 0.99999)]
Dropout = Annotated[float, _number(0, 0.99)]
Weight = Annotated[float, _number(0, 100)]
Penalty = Annotated[float, _number(1e-3, 1e9)]
Decays = Annotated[tuple[Annotated[float, _number(0.001, 1)], ...], _numbers(1, MOST_HEADS - 1, 0.001, 1)]
# one that fades never would reach back for ever
PastDecays = Annotated[tuple[Annotated[float, _number(0.001, 0.99)], ...], _numbers(0, 8, 0.001, 0.99)]
Share = Annotated[
    Annotated[float, _number(0, 1)] | None, Field(description="a number from 0 to 1, or null: as validation says")
]


@dataclass(frozen=True)
class Settings:
    """Defaults that are meant to hold on any data; chosen on validation periods.

    The ranges are those of what is asked for, see training_settings; a model that was stored is read as it is.
    """

    learned: Dimension = 128  # dimension of the learned vectors
    content: Dimension = 64  # principal components of the encoder's vectors
    decays: Decays = (1.0, 0.9, 0.5)  # of the learned heads, for each later turn
    content_decays: Decays = (0.93, 0.3)  # of the content heads
    numbers_rank: Annotated[int, _whole(1, 1_000)] = 8  # of the map from numbers to vectors
    identity_dropout: Dropout = 0.1  # share of items that stand for nobody's, batch by batch
    dropout: Dropout = 0.2  # of users' vectors
    history_dropout: Dropout = 0.2  # up to this share of a history is left out
    recent: Amount = 64  # interactions of a history that training always sees
    older: Annotated[int, _whole(0, 100_000)] = 64  # and how many stand for all before them
    epochs: Epochs = 5
    patience: Epochs = 2  # epochs without a better validation before training stops
    batch: Annotated[int, _whole(1, 1_000_000)] = 256  # examples
    rate: Annotated[float, _number(1e-9, 1)] = 2e-3  # step of AdamW
    averaging: Averaging = 0.99  # what a step leaves of the running mean of the weights, which is what serves
    pull: Weight = 3.0  # decoupled decay towards the initial values
    recency: Weight = 3.0  # the last example weighs e^this times as much as the first
    examples: Amount = 20_000  # of each sort in an epoch
    validation: Annotated[float, _number(0.001, 0.5)] = 1 / 9  # share of the interactions, the last ones
    snapshots: Annotated[int, _whole(1, 10_000)] = 20  # moments with a longer horizon
    value_task: Weight = 0.0  # weight of foreseeing values in the loss
    category_task: Weight = 0.0  # weight of foreseeing the first label
    full_softmax: Annotated[int, _whole(0, 1_000_000)] = 12_000  # items up to which the loss looks at all of them
    negatives: Annotated[int, _whole(1, 1_000_000)] = 4_096  # sampled where it does not
    ease_items: Catalogue = 8_000  # the most popular of them start from EASE
    ease_penalty: Penalty = 500.0
    transition_decays: PastDecays = (0.5, 0.9)  # of the past from which the next turn is foreseen, item by item
    transition_items: Catalogue = 6_000  # the most popular of them have transitions
    transition_neighbours: Annotated[int, _whole(1, 1_000)] = 30  # of each
    transition_penalty: Penalty = 10.0
    transition_examples: Amount = 400_000  # interactions, the latest, that they are made of
    companions: Annotated[int, _whole(0, 10_000)] = 128  # items met last, of which what goes with them counts; 0: none
    fewest_interactions: Amount = 200  # with fewer there is no validation period, and nothing is trained
    fewest_examples: Amount = 20  # and in the period
    continued_epochs: Epochs = 2
    validated: Amount = 2_000  # examples of each sort that the ranking is fitted to and an epoch is measured on
    exploration: Share = None  # share of a list that is held for items nobody has met; None: as validation says
    candidates: Annotated[int, _whole(1, 1_000)] = 200  # nearest items that are ranked
    seed: Annotated[int, _whole(0, 2**63 - 1)] = 0

    @property
    def head_decays(self) -> tuple[float, ...]:
        """Return the decays of all heads, the learned ones first."""
        return (*self.decays, *self.content_decays)


SMALLEST = Settings(learned=1, content=1, decays=(1.0,), content_decays=(1.0,))  # beside it no value is too much


def training_settings(options: Mapping[str, object], base: Settings | None = None) -> Settings:
    """Return the hyper-parameters that a model's options give, over those of `base`.

    Raises ConfigurationError, which names the option that cannot be used, its value and what it can be.
    """
    given = {name: value for name, value in options.items() if name not in (PREPARING, PROMOTE)}
    names = {field.name for field in fields(Settings)}
    if unknown := sorted(given.keys() - names):
        raise ConfigurationError(f"there is no training option {unknown[0]!r}: choose from {', '.join(sorted(names))}")
    try:
        settings = _SETTINGS.validate_python(asdict(base or Settings()) | given)
    except ValidationError as error:
        fault = error.errors()[0]
        name = str(fault["loc"][0])
        raise ConfigurationError(
            f"training option {name} cannot be {fault['input']!r}: give {_RANGES[name]['description']}"
        ) from error
    _check_sums(settings)
    return settings


def _check_sums(settings: Settings) -> None:
    if settings.learned + settings.content > LARGEST:
        raise ConfigurationError(
            f"training options learned and content cannot be {settings.learned} and {settings.content}: "
            f"give numbers that add up to {LARGEST} at most"
        )
    if len(settings.head_decays) > MOST_HEADS:
        raise ConfigurationError(
            f"training options decays and content_decays cannot be {list(settings.decays)} and "
            f"{list(settings.content_decays)}: give {MOST_HEADS} numbers in both lists together at most"
        )


_SETTINGS = TypeAdapter(Settings)
_RANGES = _SETTINGS.json_schema()["properties"]
