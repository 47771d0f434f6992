"""What was broken and what became of the changes meanwhile: counted by each test, printed as a table at the end."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field

PROPERTY = "faults"  # the name under which a test's report carries its ledger, also between processes


@dataclass
class Ledger:
    """One test's share of the table."""

    inflicted: Counter[str] = field(default_factory=Counter)  # fault -> how often
    committed: int = 0  # statements that changed the application's tables, committed while things broke
    answered: int = 0  # lists that readers got and checked
    lost: int = 0  # what was not as computed from the committed rows, in the end

    def inflict(self, fault: str) -> None:
        """Note a fault."""
        self.inflicted[fault] += 1

    def as_property(self) -> tuple[str, object]:
        """As a report carries it."""
        return PROPERTY, asdict(self) | {"inflicted": dict(self.inflicted)}


def table(properties: Iterable[tuple[str, object]]) -> Iterator[str]:
    """The lines of the table: a row for each set of faults that were inflicted together, and the sum."""
    rows: dict[tuple[str, ...], Ledger] = {}
    for name, kept in properties:
        if name != PROPERTY or not isinstance(kept, dict) or not kept["inflicted"]:
            continue
        row = rows.setdefault(tuple(sorted(kept["inflicted"])), Ledger())
        for sums in (row, rows.setdefault((), Ledger())):
            sums.inflicted.update(kept["inflicted"])
            sums.committed += kept["committed"]
            sums.answered += kept["answered"]
            sums.lost += kept["lost"]
    for faults, row in sorted(rows.items(), key=lambda item: (not item[0], item[0])):
        what = ", ".join(f"{fault} {row.inflicted[fault]}" for fault in faults) or f"all {row.inflicted.total()}"
        yield f"{row.committed:>8} {row.answered:>8} {row.lost:>5}  {what}"


HEADER = f"{'changes':>8} {'lists':>8} {'lost':>5}  faults"
