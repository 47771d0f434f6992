"""Every public SQL function against hostile values in several arguments at once: an answer or a clear error, and nothing left behind."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from hypothesis import event, given
from hypothesis import strategies as st
from psycopg import sql

from dynrec_store.resources import resource_folder
from tests.drain import Session
from tests.hostile import ledger
from tests.hostile.canary import has_sung
from tests.hostile.values import HOSTILE
from tests.sql.test_surface import RIGHT, RIGHT_FOR

# What is said to a caller: data that will not do, and names of things that are not there or not of that sort.
CALLERS_ERRORS = {"42703", "42704", "42P01", "42809", "P0002", "25000"}
LONGEST_MESSAGE = 3_000  # characters: a value of a million must not be echoed

SIGNATURES = """
    select p.proname, p.proargnames[1:p.pronargs], p.pronargs - p.pronargdefaults, p.provolatile = 'v',
      array(select format_type(t, null) from unnest(p.proargtypes) with ordinality x (t, i) order by i)
    from pg_proc p where p.pronamespace = 'dynrec'::regnamespace and p.proname not like '\\_%' and p.pronargs > 0 order by p.oid
"""

Arguments = dict[str, str | None]


@dataclass(frozen=True)
class Signature:
    """A function as it can be called."""

    function: str
    types: dict[str, str]  # of the arguments, by name
    required: tuple[str, ...]
    writes: bool  # volatile: a success may change something

    def arguments(self) -> st.SearchStrategy[Arguments]:
        """Right, null or hostile values for what is required, and for some of the rest."""
        return st.fixed_dictionaries(
            {name: self._values(name) for name in self.required},
            optional={name: self._values(name) for name in self.types if name not in self.required},
        )

    def _values(self, name: str) -> st.SearchStrategy[str | None]:
        right = RIGHT_FOR.get(self.function, {}).get(name, RIGHT.get(name))
        hostile: st.SearchStrategy[str | None] = st.one_of(HOSTILE[self.types[name]], st.none())
        # mostly right, so that the others are reached at all
        return hostile if right is None else st.one_of(st.just(right), st.just(right), hostile)

    def call(self, connection: Session, arguments: Arguments) -> None:
        """Call it; the statement commits by itself."""
        named = sql.SQL(", ").join(
            sql.SQL("{} => {}::{}").format(sql.Identifier(name), sql.Literal(value), sql.SQL(self.types[name]))
            for name, value in arguments.items()
        )
        connection.execute(
            sql.SQL("select * from dynrec.{}({})").format(sql.Identifier(self.function), named)
        ).fetchall()


def public_functions() -> list[str]:
    """The names in the files of sql/ that do not begin with an underscore and are called with something."""
    definition = re.compile(r"^create or replace function dynrec\.([a-z]\w*)\(\s*\w", re.MULTILINE)
    texts = (path.read_text(encoding="utf-8") for path in sorted(Path(resource_folder("sql")).glob("*.sql")))
    return sorted({name for text in texts for name in definition.findall(text)})


def signatures(connection: Session) -> list[Signature]:
    """Those that the database has."""
    return [
        Signature(function, dict(zip(names, types, strict=True)), tuple(names[:required]), writes)
        for function, names, required, writes, types in connection.execute(SIGNATURES.encode()).fetchall()
    ]


def test_none_is_left_out(connection: Session) -> None:
    assert {one.function for one in signatures(connection)} == set(public_functions())


@pytest.mark.parametrize("function", public_functions())
def test_hostile_arguments(fresh_session: Callable[[], Session], function: str) -> None:
    for signature in signatures(fresh_session()):
        if signature.function == function:
            throw_at(signature, fresh_session)


def throw_at(signature: Signature, fresh_session: Callable[[], Session]) -> None:
    """Call one function many times on the same database; a new one where the shop did not survive a success."""
    connection = fresh_session()
    before, held = ledger.rows(connection), ledger.session(connection)

    @given(signature.arguments())
    def throw(arguments: Arguments) -> None:
        nonlocal connection, before
        error = refusal(signature, connection, arguments)
        after = ledger.rows(connection)
        event(f"{signature.function}: {error.sqlstate if error else 'answered'}")
        if error:
            assert complaint(error, arguments, signature.types) is None
        assert after == before or (signature.writes and not error)
        assert ledger.session(connection) == held
        assert not has_sung(connection)
        before = after
        if (
            signature.writes
            and not connection.execute("select from dynrec.status where recommender = 'shop'").fetchall()
        ):
            connection = fresh_session()
            before = ledger.rows(connection)

    throw()


def refusal(signature: Signature, connection: Session, arguments: Arguments) -> psycopg.Error | None:
    """The error that a call ends in; None: it was answered."""
    try:
        signature.call(connection, arguments)
    except psycopg.Error as error:
        return error
    return None


def complaint(error: psycopg.Error, arguments: Arguments, known: Iterable[str]) -> str | None:
    """What is wrong with an error: nothing, if it is one for callers, short, and names a value or an argument."""
    state = error.sqlstate or ""
    message = f"{error.diag.message_primary} {error.diag.message_detail} {error.diag.message_hint}"
    if not state.startswith("22") and state not in CALLERS_ERRORS:
        return f"{state} is not for callers: {message[:LONGEST_MESSAGE]}"
    if len(message) > LONGEST_MESSAGE:
        return f"{state}: {len(message)} characters, beginning {message[:200]}"
    if not any(names(message, argument, arguments.get(argument, "")) for argument in known):
        return f"{state} names nothing that was given: {message}"
    return None


def names(message: str, argument: str, value: str | None) -> bool:
    """Whether a message has an argument's name, or its value, or as much of it as a line holds."""
    words = ["null"] if value is None else re.findall(r"\w+", value)[:50]
    if value and "[" in value and "dimension" in message:
        return True  # of a vector its length says more
    shown = re.findall(r"'([^']{1,10})", message)
    return (
        argument in message
        or any(word[:20].lower() in message.lower() for word in words)
        or any(part in (value or "") for part in shown)
    )
