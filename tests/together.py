"""Which modules one process runs. xdist 3.8 overlooks its own mark for that under pytest 9.2 (pytest-xdist#1386)."""

from xdist.scheduler import LoadScopeScheduling

GROUPS = {
    "tests/acceptance/test_compose.py": "containers",  # there is one machine to start them on
    # they share twenty thousand items
    "tests/sql/test_evaluate_trending.py": "many",
    "tests/sql/test_exactly_k.py": "many",
    "tests/sql/test_filter_choice.py": "many",
    "tests/sql/test_index.py": "many",
}


class Together(LoadScopeScheduling):  # type: ignore[misc]
    """Each test goes to a process that is free, and those of a group to the same."""

    def _split_scope(self, nodeid: str) -> str:
        return GROUPS.get(nodeid.partition("::")[0], nodeid)
