"""FeatureStore: what applications call from Python. Each method is the SQL function of the same name."""

from contextlib import ExitStack
from types import TracebackType
from typing import Self

from sqlalchemy import Engine, create_engine

from dynrec_store import database
from dynrec_store.settings import Settings, load_settings
from dynrec_store.store.calls import Connections, EngineConnections, Key
from dynrec_store.store.declarations import Declarations
from dynrec_store.store.evaluating import Evaluating
from dynrec_store.store.experimenting import Experimenting
from dynrec_store.store.modelling import Modelling
from dynrec_store.store.operations import Operations
from dynrec_store.store.privacy import Privacy
from dynrec_store.store.reading import Reading
from dynrec_store.store.searching import Encode, Searching, worker_encode
from dynrec_store.store.timeline import Timeline
from dynrec_store.store.traffic import Traffic
from dynrec_store.store.watching import Watching
from dynrec_store.target import target_database

__all__ = ["Connections", "Encode", "EngineConnections", "FeatureStore", "Key"]


class FeatureStore(
    Declarations,
    Reading,
    Searching,
    Timeline,
    Evaluating,
    Experimenting,
    Traffic,
    Watching,
    Privacy,
    Modelling,
    Operations,
):
    """The recommenders of one database.

        with FeatureStore.connect("postgresql://localhost/shop") as store:
            for row in store.recommend("shop", user_id=42, k=10):
                print(row.rank, row.item_id, row.score, row.source)

    From a SQLAlchemy engine (driver psycopg) or a psycopg_pool.ConnectionPool that the application has already:
    `FeatureStore(engine)`; nothing is opened before the first call. Each call is a transaction of its own; to read
    what a transaction has not committed yet, select from dynrec_store.sqlalchemy inside it. `encode` makes vectors of
    search texts; without it `search` loads the recommender's own encoder.

    Threads may share a store. Errors are those of dynrec_store.exceptions.
    """

    def __init__(self, connections: Engine | Connections, *, encode: Encode | None = None) -> None:
        super().__init__(connections)
        self._encode = encode or worker_encode()
        self._opened = ExitStack()

    @classmethod
    def connect(cls, url: str | None = None, *, settings: Settings | None = None, encode: Encode | None = None) -> Self:
        """Open the database of that URL, else of `settings`, else of the environment (DYNREC_DATABASE_URL).

        Without any of them, the embedded server that `dynrec up` made is used, and started unless it runs. Close the
        store, or use it in a with statement, to let go of it.
        """
        settings = settings or load_settings()
        with ExitStack() as opened:
            url = url or opened.enter_context(target_database(settings))
            engine = create_engine(
                "postgresql+psycopg://",
                creator=lambda: database.connect(url, application_name="dynrec store"),
                pool_pre_ping=True,
            )
            opened.callback(engine.dispose)
            with database.translated_errors(), EngineConnections(engine).connection():
                pass  # a URL that does not work is found out here
            store = cls(engine, encode=encode or worker_encode(settings))
            store._opened = opened.pop_all()
        return store

    def close(self) -> None:
        """Close what `connect` opened; an engine or pool that was given stays as it is."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
