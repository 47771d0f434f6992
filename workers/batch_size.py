"""How many entities to claim at once."""

LEASE_FRACTION = 0.1  # of a lease's time may pass in computing a batch
FIRST = 32  # entities, on a device nobody has timed yet


class BatchSize:
    """Grows from a careful start to what is computed in a small fraction of a lease; at most doubles at a step."""

    def __init__(self, largest: int, lease_seconds: float) -> None:
        self._largest = largest
        self._seconds = lease_seconds * LEASE_FRACTION
        self.current = min(FIRST, largest)  # entities

    def record(self, entities: int, seconds: float) -> None:
        """Take note of how long a batch took; batches far smaller than asked for say nothing about the limit."""
        affordable = int(self._seconds * entities / max(seconds, 1e-6))
        if entities * 2 >= self.current or affordable < self.current:
            self.current = max(1, min(self._largest, 2 * self.current, affordable))
