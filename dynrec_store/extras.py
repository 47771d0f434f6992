"""Parts that only some installations have: imported when they are needed, by name."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from dynrec_store.exceptions import ConfigurationError


@contextmanager
def needs_extra(extra: str, *, otherwise: str = "") -> Iterator[None]:
    """Turn the lack of a package within the block into a ConfigurationError that says which extra to install.

    `otherwise` is what can be done instead.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"this needs the package {error.name!r}, which is not installed\n"
            f"Install it with: pip install 'dynrec-store[{extra}]'{otherwise}"
        ) from error


def load_extra(reference: str, extra: str, *, otherwise: str = "") -> Any:  # noqa: ANN401 - whatever has that name
    """The object that `module:name` names; ConfigurationError if a package is missing."""
    module, _, name = reference.partition(":")
    with needs_extra(extra, otherwise=otherwise):
        return getattr(import_module(module), name)
