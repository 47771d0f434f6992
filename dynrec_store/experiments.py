"""Which arm of an experiment a user is in: what dynrec.experiment_arm says, without asking the database each time."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

UNITS = 2**52  # a draw is one of so many steps from 0 to 1


@dataclass(frozen=True, slots=True)
class Arm:
    """What a part of the users gets."""

    name: str
    share: float  # of those who take part; of all arms together 1
    upper_bound: float  # users who draw less, and not less than the arm before, are in this one
    model_version: int | None  # that answers; None: whichever is active


@dataclass(frozen=True, slots=True)
class Experiment:
    """An experiment as it was when it was read: traffic may have grown since, and it may have ended."""

    recommender: str
    name: str
    traffic: float  # share of the users that take part, 0 to 1
    arms: Sequence[Arm]  # the baseline first
    ended_at: datetime | None

    def arm_of(self, user_id: object) -> str | None:
        """The arm of a user, always the same one; None for who does not take part, and after the end.

        `user_id`: the key as the source writes it, such as 7, "u42" or a UUID. The first and the second 52 bits of the
        SHA-256 of recommender, experiment and key, joined by the unit separator, say whether the user takes part and
        where.
        """
        digest = hashlib.sha256("\x1f".join((self.recommender, self.name, str(user_id))).encode()).hexdigest()
        participation, place = int(digest[:13], 16) / UNITS, int(digest[13:26], 16) / UNITS
        if self.ended_at is not None or participation >= self.traffic:
            return None
        return next(arm.name for arm in self.arms if place < arm.upper_bound)
