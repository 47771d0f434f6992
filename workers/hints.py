"""How many hints to send for the work that waits: enough to keep the workers busy, never a flood."""

import math
from dataclasses import dataclass

from dynrec_store.queue import Pending

ENTITIES = 250  # for one hint: a worker is done with fewer before a second one would be of help
SOONEST = 0.02  # seconds between hints for the same work
LATEST = 2.0  # seconds; reached when nobody takes the hints, which wait for who comes
LEASES_DOUBTED = 1.0  # seconds after which leases without end no longer hold a hint back: their worker may be dead


@dataclass
class _Sent:
    at: float  # seconds, of the same clock as `now`
    pause: float  # seconds to wait before another
    leased: int  # batches that were in flight then
    newest: int  # change that waited then; 0: not known yet
    answered: bool = False  # a batch has been begun since


class Hints:
    """Remembers what was sent, by recommender and sort of work."""

    def __init__(self, *, most: int) -> None:
        self._most = most
        self._sent: dict[tuple[str, str], _Sent] = {}

    def due(self, pending: list[Pending], now: float) -> list[tuple[Pending, int]]:
        """Say how many hints to send now for each; `pending` is all the work that could be claimed."""
        waiting = {(work.recommender, work.work) for work in pending}
        self._sent = {key: sent for key, sent in self._sent.items() if key in waiting}
        counted = [(work, self._count(work, now)) for work in pending]
        return [(work, count) for work, count in counted if count > 0]

    def _count(self, work: Pending, now: float) -> int:
        key = (work.recommender, work.work)
        sent = self._sent.get(key)
        wanted = min(math.ceil(work.backlog / ENTITIES), self._most) - work.leased
        if sent is None or 0 < sent.newest < work.oldest:  # nothing is left of what the last hints were for
            self._sent[key] = _Sent(now, SOONEST, work.leased, work.newest)
            return max(wanted, 1)
        sent.newest = sent.newest or work.newest
        sent.answered |= work.leased > sent.leased
        elapsed = now - sent.at
        if elapsed < sent.pause or (wanted <= 0 and elapsed < LEASES_DOUBTED):
            return 0
        # where hints bring no new batches, more of them would not either
        pause = SOONEST if sent.answered else min(2 * sent.pause, LATEST)
        self._sent[key] = _Sent(now, pause, work.leased, work.newest)
        return max(wanted, 1) if sent.answered else 1
