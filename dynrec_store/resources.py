"""Where the files lie that are not Python modules: sql/ and migrations/."""

from pathlib import Path

from dynrec_store.exceptions import ConfigurationError

_PACKAGE = Path(__file__).resolve().parent


def resource_folder(name: str) -> Path:
    """The folder `sql` or `migrations`: inside the installed package, or at the top of a checkout."""
    candidates = (_PACKAGE / f"_{name}", _PACKAGE.parent / name)
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise ConfigurationError(
        f"the folder {name!r} is missing (looked at {', '.join(map(str, candidates))}): "
        "the installation is incomplete; install dynrec-store again"
    )
