"""How much to do at once."""

FIRST = 32  # on a device nobody has timed yet
GROWTH = 8  # at most, from one batch to the next: its texts may be longer


class BatchSize:
    """Grows in steps from a careful start to what takes `seconds`, and shrinks at once."""

    def __init__(self, largest: int, seconds: float) -> None:
        self._largest = largest
        self._seconds = seconds
        self.current = min(FIRST, largest)

    def record(self, count: int, seconds: float) -> None:
        """Take note of how long `count` took; far fewer than asked for say nothing about the limit."""
        affordable = int(self._seconds * count / max(seconds, 1e-6))
        if count * 2 >= self.current or affordable < self.current:
            self.current = max(1, min(self._largest, GROWTH * self.current, affordable))
