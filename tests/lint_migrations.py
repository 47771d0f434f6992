"""Run as a program: squawk on the SQL of every revision. The rules are in .squawk.toml."""

import subprocess
import sys
import tempfile
from io import StringIO
from pathlib import Path
from unittest.mock import patch

from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import Script, ScriptDirectory

from dynrec_store.migrate import LOCK_TIMEOUT
from dynrec_store.resources import resource_folder

CONFIGURATION = Path(__file__).parents[1] / ".squawk.toml"

# Released revisions are not edited: the rules that they break. A new revision has an entry only where nothing else is possible.
EXCUSED = {
    "0002": [
        # recommender and model_version have a row for each declaration: checking these takes no time
        "adding-foreign-key-constraint",
        "constraint-missing-not-valid",
        # popularity is counted anew in another form, and the code that read the old one goes in the same transaction
        "ban-drop-column",
        "ban-drop-table",
        "ban-drop-constraint",  # a check, which is replaced by a wider one
    ],
    "0004": ["adding-field-with-default"],  # item_popularity is written anew: a row for each item
    # of partitioned tables no index can be made concurrently; these read a table once and write next to nothing
    "0016": ["require-concurrent-index-creation"],
    "0017": ["ban-drop-not-null"],  # the code that reads the columns is exchanged in the same transaction
    # a check on the encoders, a handful of rows, which is replaced by a wider one
    "0018": ["ban-drop-constraint", "constraint-missing-not-valid"],
}


def main() -> int:
    """Lint; the exit status is squawk's."""
    revisions = ScriptDirectory(str(resource_folder("migrations"))).walk_revisions()
    with tempfile.TemporaryDirectory() as folder:
        files = [_written(revision, Path(folder)) for revision in revisions]
        squawk = str(Path(sys.executable).with_name("squawk"))  # of the same environment
        command = [squawk, f"--config={CONFIGURATION}", "--reporter=gcc", *sorted(files)]
        return subprocess.run(command, check=False).returncode


def _written(revision: Script, folder: Path) -> str:
    """The file with what a revision sends to the server on the way up."""
    statements = StringIO()
    excused = EXCUSED.get(revision.revision)
    statements.write(f"-- squawk-ignore-file {', '.join(excused)}\n" if excused else "")
    statements.write(f"set lock_timeout = '{LOCK_TIMEOUT}';\n")  # as dynrec migrate does
    context = MigrationContext.configure(dialect_name="postgresql", opts={"as_sql": True, "output_buffer": statements})
    # rows are nothing to lint, and cannot be written out without the types of their columns
    with Operations.context(context), patch.object(context.impl, "bulk_insert"):
        revision.module.upgrade()
    file = folder / f"{revision.revision}.sql"
    file.write_text(statements.getvalue())
    return str(file)


if __name__ == "__main__":
    sys.exit(main())
