"""The generated page says what the database says."""

import runpy
from pathlib import Path

import psycopg

ROOT = Path(__file__).parents[2]


def test_the_sql_reference_is_up_to_date(database_url: str) -> None:
    generator = runpy.run_path(str(ROOT / "docs" / "generate.py"))
    with psycopg.connect(database_url) as connection:
        page = generator["render"](connection)
    assert page == (ROOT / "docs" / "sql-reference.md").read_text(), "run `make docs` and commit the page"
