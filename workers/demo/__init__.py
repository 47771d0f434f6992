"""`dynrec demo`: a grocer's shop gets recommendations, told step by step with the SQL that runs and its times.

Every claim that it prints is checked first; a wrong one is an error.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from dynrec_store import migrate
from dynrec_store.logs import configure_logging
from dynrec_store.settings import Settings
from dynrec_store.target import target_database
from workers.background import Background
from workers.context import Context
from workers.demo.buying import buy
from workers.demo.closing import close_shop, say_how_to_go_on
from workers.demo.declaring import declare
from workers.demo.opening import clear_away, introduce, open_shop
from workers.demo.past import read_the_past
from workers.demo.recommending import recommend
from workers.demo.removing import remove
from workers.demo.renaming import rename
from workers.demo.stage import Stage, make_console, staged
from workers.exceptions import EncoderError
from workers.inprocess import running
from workers.proof import DEFAULT_ENCODING


def run_demo(settings: Settings, *, keep: bool = False, households: int | None = None) -> None:
    """Run the demo on an embedded server of its own, in the folder demo below the data folder of the settings.

    `keep` leaves server, dispatcher and worker running until ctrl-c. `households` takes the purchases of so many only.
    Raises ClaimError if something is not as the demo says.
    """
    own = settings.model_copy(
        update={"database_url": None, "data_dir": settings.data_dir / "demo", "log_level": "WARNING"}
    )
    configure_logging(own)
    with _everything(own) as (stage, url, context):
        open_shop(stage, households)
        declare(stage, lambda: context.total)
        recommend(stage)
        household_before = buy(stage)
        product_before = rename(stage)
        read_the_past(stage, household_before, product_before)
        remove(stage)
        close_shop(stage)
        say_how_to_go_on(stage, url, own.data_dir, keep=keep)
        if keep:
            with suppress(KeyboardInterrupt):
                threading.Event().wait()


@contextmanager
def _everything(settings: Settings) -> Iterator[tuple[Stage, str, Context]]:
    """A server, a connection to it, dispatcher and worker."""
    console = make_console()
    with ExitStack() as started:
        begun = time.perf_counter()
        with console.status("Starting PostgreSQL and migrating …"):
            url = started.enter_context(target_database(settings, create=True))
            migrate.upgrade(url)
        stage = started.enter_context(staged(url, console))
        introduce(stage, time.perf_counter() - begun)
        clear_away(stage)
        context = started.enter_context(running(settings, url))
        # while the purchases are loaded
        started.enter_context(Background("model", lambda: _load_model(context), stop=lambda: None))
        yield stage, url, context


def _load_model(context: Context) -> None:
    with suppress(EncoderError):  # the first batch meets it again, and the backfill says so
        context.encoder(DEFAULT_ENCODING)
