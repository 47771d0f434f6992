"""Hyper-parameters."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

Decays = Annotated[tuple[Annotated[float, Field(ge=0.001, le=1)], ...], Field(min_length=1)]


@dataclass(frozen=True)
class Settings:
    """Defaults that are meant to hold on any data; chosen on validation periods."""

    learned: int = 128  # dimension of the learned vectors
    content: int = 64  # principal components of the encoder's vectors
    decays: Decays = (1.0, 0.9, 0.5)  # of the learned heads, for each later turn
    content_decays: Decays = (0.93, 0.3)  # of the content heads
    numbers_rank: int = 8  # of the map from numbers to vectors
    identity_dropout: float = 0.1  # share of items that stand for nobody's, batch by batch
    dropout: float = 0.2  # of users' vectors
    history_dropout: float = 0.2  # up to this share of a history is left out
    recent: int = 64  # interactions of a history that training always sees
    older: int = 64  # and how many stand for all before them
    epochs: int = 5
    patience: int = 2  # epochs without a better validation before training stops
    batch: int = 256  # examples
    rate: float = 2e-3  # step of AdamW
    averaging: float = 0.99  # what a step leaves of the running mean of the weights, which is what serves
    pull: float = 3.0  # decoupled decay towards the initial values
    recency: float = 3.0  # the last example weighs e^this times as much as the first
    examples: int = 20_000  # of each sort in an epoch
    validation: float = 1 / 9  # share of the interactions, the last ones
    snapshots: int = 20  # moments with a longer horizon
    value_task: float = 0.0  # weight of foreseeing values in the loss
    category_task: float = 0.0  # weight of foreseeing the first label
    full_softmax: int = 12_000  # items up to which the loss looks at all of them
    negatives: int = 4_096  # sampled where it does not
    ease_items: int = 8_000  # the most popular of them start from EASE
    ease_penalty: float = 500.0
    transition_decays: tuple[float, ...] = (0.5, 0.9)  # of the past from which the next turn is foreseen, item by item
    transition_items: int = 6_000  # the most popular of them have transitions
    transition_neighbours: int = 30  # of each
    transition_penalty: float = 10.0
    transition_examples: int = 400_000  # interactions, the latest, that they are made of
    companions: Annotated[int, Field(ge=0)] = 128  # items met last, of which what goes with them counts; 0: none
    fewest_interactions: int = 200  # with fewer there is no validation period, and nothing is trained
    fewest_examples: int = 20  # and in the period
    continued_epochs: int = 2
    validated: int = 2_000  # examples of each sort that the ranking is fitted to and an epoch is measured on
    exploration: float | None = None  # share of a list that is held for items nobody has met; None: as validation says
    candidates: int = 200  # nearest items that are ranked
    seed: int = 0

    @property
    def head_decays(self) -> tuple[float, ...]:
        """Return the decays of all heads, the learned ones first."""
        return (*self.decays, *self.content_decays)
