"""Arguments on their way to the database: as text that Postgres reads by the type that the function declares.

What is of no use is refused here with its name and value. All else Postgres refuses, in words of its own, which beat
those that a driver has for a value whose type no function takes.
"""

import json
import reprlib
from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from decimal import Decimal
from uuid import UUID

import numpy as np

from dynrec_store.exceptions import InvalidArgumentError
from dynrec_store.results import as_text

Key = str | int | UUID  # of an item or a user; goes to the database as text

_PLAIN_KEYS = "a key is a str, an int or a UUID"


def key(name: str, value: object) -> str:
    """The text of a key; InvalidArgumentError for what only looks like one, such as None, 1.0 and b'1'."""
    if isinstance(value, bool) or not isinstance(value, str | int | np.integer | UUID):
        raise refused(name, value, _PLAIN_KEYS)
    return str(adapted(name, value))


def keys(name: str, values: Iterable[object]) -> list[str]:
    """The texts of keys."""
    return [key(name, value) for value in listed(name, values)]


def listed(name: str, values: object) -> list[object]:
    """The values as a list; a text is none, as it would fall apart into letters."""
    if isinstance(values, str | bytes | bytearray | Mapping) or not isinstance(values, Iterable):
        raise refused(name, values, "a list is wanted")
    return list(values)


def json_text(name: str, value: object) -> str:
    """A value as JSON."""
    try:
        return json.dumps(value, allow_nan=False, default=_plain_json)
    except (TypeError, ValueError, RecursionError) as error:
        raise refused(name, value, f"it cannot be written as JSON: {error}") from error


def adapted(name: str, value: object) -> object:
    """What the driver is given for an argument: None, text, or lists of them."""
    try:
        if isinstance(value, list | tuple):
            return [adapted(name, one) for one in value]
        return value if value is None else _text(name, value)
    except RecursionError as error:
        raise refused(name, value, "it contains itself, or is nested too deep") from error


def refused(name: str, value: object, why: str) -> InvalidArgumentError:
    """The error that shows an argument's value, shortened."""
    return InvalidArgumentError(f"{name}: {_shown(value)} will not do: {why}")


def _text(name: str, value: object) -> str:
    match value:
        case str():
            text = _storable(name, value)
        case bool() | np.bool_():
            text = "true" if value else "false"
        case int() | np.integer():
            text = _digits(name, int(value))
        case float() | np.floating():
            text = repr(float(value))
        case date():  # and datetime
            text = value.isoformat()
        case timedelta():
            text = f"{value.days} days {value.seconds} seconds {value.microseconds} microseconds"
        case UUID() | Decimal():
            text = str(value)
        case Mapping():
            text = json_text(name, value)
        case np.ndarray():
            text = vector_text(name, value)
        case _:
            raise refused(name, value, f"there is no use for a {type(value).__name__}")
    return text


def _storable(name: str, value: str) -> str:
    if "\0" in value or (not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value)):
        raise refused(name, value, "Postgres stores neither NUL nor half of a surrogate pair")
    return value


def _digits(name: str, value: int) -> str:
    try:
        return str(value)
    except ValueError as error:  # Python writes no number of thousands of digits
        raise refused(name, value, "it is too large") from error


def vector_text(name: str, value: object) -> str:
    """A vector as pgvector reads it."""
    try:
        with np.errstate(over="ignore"):  # what is infinite in single precision is refused as such
            return as_text(value)
    except (TypeError, ValueError) as error:
        raise refused(name, value, str(error)) from error


def _plain_json(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"it contains a {type(value).__name__}")


def _shown(value: object) -> str:
    try:
        text = reprlib.repr(value)
    except (ValueError, RecursionError):  # of a number, see above, or a nesting
        text = f"a {type(value).__name__}"
    return text
