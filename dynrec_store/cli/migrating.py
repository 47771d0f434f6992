"""dynrec migrate: upgrade, downgrade, current."""

from typing import Annotated

import typer

from dynrec_store import migrate
from dynrec_store.cli.options import DatabaseUrl, DataDir, Json, settings_of
from dynrec_store.cli.output import print_rows, say, working
from dynrec_store.settings import Settings
from dynrec_store.target import target_database

app = typer.Typer(help="Bring a database to this version of dynrec_store, or back.")


@app.callback(invoke_without_command=True)
def _migrate(ctx: typer.Context, database_url: DatabaseUrl = None, data_dir: DataDir = None) -> None:
    """Bring a database to this version of dynrec_store (as `upgrade`), or back."""
    settings = settings_of(database_url=database_url, data_dir=data_dir)
    ctx.obj = settings
    if ctx.invoked_subcommand is None:
        _upgrade(settings)


@app.command()
def upgrade(ctx: typer.Context, database_url: DatabaseUrl = None, data_dir: DataDir = None) -> None:
    """Create or update both schemas, in one transaction; nothing happens if they are up to date."""
    _upgrade(_settings(ctx, database_url=database_url, data_dir=data_dir))


@app.command()
def downgrade(
    ctx: typer.Context,
    revision: Annotated[str, typer.Argument(help="Of the tables; base: remove everything of dynrec.")],
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Take the tables back to a revision; the application's own tables stay as they are."""
    settings = _settings(ctx, database_url=database_url, data_dir=data_dir)
    with working(f"Going back to {revision}"), target_database(settings) as url:
        migrate.downgrade(url, revision)
    say(f"the database is at {revision}")


@app.command()
def current(
    ctx: typer.Context, as_json: Json = False, database_url: DatabaseUrl = None, data_dir: DataDir = None
) -> None:
    """Print how far the database is."""
    settings = _settings(ctx, database_url=database_url, data_dir=data_dir)
    with working("Looking"), target_database(settings) as url:
        state = migrate.current(url)
    print_rows([state], none="", as_json=as_json)


def _settings(ctx: typer.Context, **given: object) -> Settings:
    """The options of the sub-command over those that stand before it."""
    above: Settings = ctx.obj
    return settings_of(**{name: value or getattr(above, name) for name, value in given.items()})


def _upgrade(settings: Settings) -> None:
    with working("Migrating"), target_database(settings, create=True) as url:
        before, after = migrate.upgrade(url)
    if before == after:
        say(f"the database is up to date: {after.revision}")
    elif before.revision == after.revision:
        say(f"the code of schema dynrec was brought up to date; the tables are at {after.revision}")
    else:
        say(f"migrated from {before.revision or 'nothing'} to {after.revision}")
