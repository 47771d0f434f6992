"""What a process says of itself in its heartbeats."""

from functools import cache
from uuid import uuid4

from dynrec_store import __version__, code
from dynrec_store.resources import resource_folder


@cache
def identity() -> dict[str, object]:
    """`run` differs from start to start; `code` is the state of sql/ that this process was made for."""
    return {"run": uuid4().hex, "version": __version__, "code": code.fingerprint(resource_folder("sql"))}
