"""`dynrec extension build`: what `dynrec migrate` does, as scripts of CREATE EXTENSION and for pg_tle.

An install script is the revisions, the files of sql/, and the marks by which pg_dump keeps the rows. An update script
is the revisions since, and the files again, after what they cannot replace has been dropped, as `dynrec migrate` does.
"""

import re
from collections.abc import Iterable
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory

import dynrec_store
from dynrec_store import catalog, code, grants
from dynrec_store.exceptions import ConfigurationError
from dynrec_store.migrate import SCHEMA_COMMENT
from dynrec_store.resources import resource_folder
from dynrec_store.schema import CONTEXT_OPTIONS
from dynrec_store.tables import metadata

COMMENT = "recommendations that follow your tables: vectors of items and users, kept up to date by workers"

_BLOCKS = Path(__file__).parent
_VERSION = re.compile(r"\d[\w.]*-(\d{4})-[0-9a-f]{8}")  # package, revision, code
_SCRIPT = re.compile(rf"dynrec--({_VERSION.pattern})\.sql")


def version(sql_folder: Path) -> str:
    """The version of the extension that these files make, such as 0.1.0-0011-5f2b91c0."""
    head = _revisions().get_current_head()
    return f"{dynrec_store.__version__}-{head}-{code.fingerprint(sql_folder)[:8]}"


def build(folder: Path, *, before: Iterable[str] = (), sql_folder: Path | None = None) -> list[Path]:
    """Write the control file, the install script, update scripts and the form for pg_tle; returns the files.

    Updates begin at the versions `before` and at those whose install scripts lie in the folder. Raises
    ConfigurationError if one of `before` is no version, or the folder cannot be written to.
    """
    sources = sql_folder or resource_folder("sql")
    new = version(sources)
    older = {*before, *(found[1] for file in folder.glob("dynrec--*.sql") if (found := _SCRIPT.fullmatch(file.name)))}
    updates = {one: _update(_revision(one), sources) for one in sorted(older - {new})}
    install = _install(sources)
    texts = {
        "dynrec.control": _control(new),
        f"dynrec--{new}.sql": _guarded(install, "create extension dynrec"),
        **{
            f"dynrec--{one}--{new}.sql": _guarded(text, "alter extension dynrec update")
            for one, text in updates.items()
        },
        "dynrec.pg_tle.install.sql": _for_pg_tle(new, install),
        "dynrec.pg_tle.update.sql": _update_for_pg_tle(new, install, updates),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"the files cannot be written to {str(folder)!r}: {error}") from error
    return [folder / name for name in texts]


def _install(sources: Path) -> str:
    revisions, encoders = _migrations(None)
    return _joined(
        _block("begin"),
        _block("install"),
        f"{SCHEMA_COMMENT};",
        revisions,
        *_code(sources),
        _code_is(sources),
        _data(encoders),
    )


def _update(revision: str, sources: Path) -> str:
    revisions, _ = _migrations(revision)
    _, encoders = _migrations(None)
    setting = f"select set_config('dynrec.code', {_quoted(_joined(*_code(sources)))}, true);"
    queries = {"objects": catalog.OBJECTS, "uses": catalog.USES, "grants": grants.GRANTS, "granted": grants.OBJECTS}
    files = _block("files")
    for name, query in queries.items():
        files = files.replace(f"{{{name}}}", query)
    return _joined(
        _block("begin"),
        _block("adopt"),
        revisions,
        setting,
        files,
        _code_is(sources),
        _block("release"),
        _data(encoders),
    )


def _control(new: str) -> str:
    # In pg_catalog, as plpgsql is: the objects have schemas of their own, and no other schema holds the extension.
    return (
        f"comment = '{COMMENT}'\ndefault_version = '{new}'\nrequires = 'vector'\nno_relocate = 'vector'\n"
        "relocatable = false\nschema = pg_catalog\nsuperuser = false\n"
    )


def _guarded(text: str, statement: str) -> str:
    return f'\\echo Use "{statement}" to load this file. \\quit\n{text}'


def _for_pg_tle(new: str, install: str) -> str:
    return _joined(
        f"select pgtle.install_extension('dynrec', '{new}', {_quoted(COMMENT)}, {_quoted(install)}, '{{vector}}');"
    )


def _update_for_pg_tle(new: str, install: str, updates: dict[str, str]) -> str:
    version_sql = f"select pgtle.install_extension_version_sql('dynrec', '{new}', {_quoted(install)});"
    paths = [
        f"select pgtle.install_update_path('dynrec', '{one}', '{new}', {_quoted(text)});"
        for one, text in updates.items()
    ]
    return _joined("begin;", version_sql, *paths, f"select pgtle.set_default_version('dynrec', '{new}');", "commit;")


def _migrations(start: str | None) -> tuple[str, list[str]]:
    """The SQL of the revisions after `start`, and the names of the encoders that they insert."""
    script, statements, encoders = _revisions(), StringIO(), list[str]()
    options = {**CONTEXT_OPTIONS, "as_sql": True, "output_buffer": statements, "starting_rev": start}
    options["target_metadata"] = metadata  # names what a revision leaves to the naming convention
    options["fn"] = lambda revision, _: script._upgrade_revs("head", revision)  # as alembic's cookbook has it
    context = MigrationContext.configure(dialect_name="postgresql", dialect_opts={"paramstyle": "named"}, opts=options)

    write = context.impl.bulk_insert

    def insert(table: sa.TableClause, rows: list[dict[str, Any]], **_: object) -> None:
        # alembic writes no rows whose columns have no type; the values have
        columns = [sa.column(name, sa.literal(value).type) for name, value in rows[0].items()]
        write(sa.table(table.name, *columns, schema=table.schema), rows)
        encoders.extend(row["name"] for row in rows)

    with Operations.context(context), patch.object(context.impl, "bulk_insert", insert):
        context.run_migrations()
    return statements.getvalue(), encoders


def _code(sources: Path) -> list[str]:
    return [file.read_text() for file in code.files(sources)]


def _code_is(sources: Path) -> str:
    return _block("code").replace("{hash}", _quoted(code.fingerprint(sources)))


def _data(encoders: list[str]) -> str:
    condition = f"where name not in ({', '.join(map(_quoted, encoders))})"
    return _block("data").replace("{encoders}", _quoted(condition))


def _block(name: str) -> str:
    return (_BLOCKS / f"{name}.sql").read_text()


def _joined(*parts: str) -> str:
    return "\n".join(part.strip() for part in parts) + "\n"


def _quoted(text: str) -> str:
    """A literal that stands for the text, legible: nothing in it is doubled or escaped."""
    if "\n" not in text and "'" not in text:
        return f"'{text}'"
    tag = next(tag for n in range(len(text)) if (tag := f"$dynrec{n}$") not in text)
    return f"{tag}{text}{tag}"


def _revision(of_version: str) -> str:
    found = _VERSION.fullmatch(of_version)
    known = {revision.revision for revision in _revisions().walk_revisions()}
    if found is None or found[1] not in known:
        raise ConfigurationError(
            f"{of_version!r} is no version of the extension that an update can begin at: "
            "pg_extension.extversion says which one is installed"
        )
    return found[1]


def _revisions() -> ScriptDirectory:
    return ScriptDirectory(str(resource_folder("migrations")))
