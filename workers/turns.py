"""Taking turns at a device."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """A lock that is given in the order of asking: who comes back for more queues behind those who wait.

    With more `places` so many have it at once.
    """

    def __init__(self, places: int = 1) -> None:
        self._places = places
        self._changed = threading.Condition()
        self._next = 0  # the number that the next who asks will draw
        self._served = 0  # how many have had their turn

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for one's turn and have it for the length of the block."""
        with self._changed:
            mine = self._next
            self._next += 1
            self._changed.wait_for(lambda: mine < self._served + self._places)
        try:
            yield
        finally:
            with self._changed:
                self._served += 1
                self._changed.notify_all()
