"""The plans of statements, for tests that care how an answer is found."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from tests.drain import Session


@contextmanager
def plans(connection: Session) -> Iterator[list[str]]:
    """The plans of all statements, those inside functions included."""
    messages: list[str] = []

    def note(diagnostic: psycopg.errors.Diagnostic) -> None:
        messages.append(diagnostic.message_primary or "")

    try:
        connection.execute("load 'auto_explain'")
    except psycopg.errors.UndefinedFile:
        pytest.skip("this PostgreSQL comes without auto_explain")
    connection.execute(
        "  set auto_explain.log_min_duration = 0; set auto_explain.log_nested_statements = on; "
        "set auto_explain.log_analyze = on; set auto_explain.log_timing = off; set auto_explain.log_level = notice"
    )
    connection.add_notice_handler(note)
    try:
        yield messages
    finally:
        connection.remove_notice_handler(note)
        connection.execute("reset all")
