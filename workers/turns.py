"""Taking turns at a device."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """A lock that is given in the order of asking: who comes back for more queues behind those who wait."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._next = 0  # the number that the next who asks will draw
        self._served = 0  # the number whose turn it is

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for one's turn and have it for the length of the block."""
        with self._changed:
            mine = self._next
            self._next += 1
            self._changed.wait_for(lambda: self._served == mine)
        try:
            yield
        finally:
            with self._changed:
                self._served += 1
                self._changed.notify_all()
