"""pgai's vectorizer worker beside dynrec: from a commit to the new vector, with the same model on the same server."""

import random
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO, LiteralString

import psutil
from psycopg import sql

from dynrec_store import queue
from dynrec_store.database import translated_errors
from dynrec_store.exceptions import DynrecError
from dynrec_store.queue import Connection
from dynrec_store.settings import Settings
from workers.bench import texts
from workers.bench.measure import Figure, p50
from workers.bench.peers.endpoint import endpoint
from workers.bench.peers.environments import PeerUnavailableError, version_of
from workers.bench.place import bench_database, url_of
from workers.bench.report import Advance, progress
from workers.inprocess import running

ITEMS = 1000
IDLE_SECONDS = 0.3  # before a change: everything has fallen asleep that can
LOOK_SECONDS = 0.0002  # between looks for the new vector
START_SECONDS = 120.0  # until a worker that has not embedded what waits is an error
PATIENCE = 60.0  # seconds beyond the interval until a vector that does not come is an error
SHARE_SECONDS = 2.0  # for which the idle worker's processor time is read
LOAD_TIMEOUT = timedelta(minutes=10)
SAID = 600  # characters of pgai's last words that are shown

_TABLES: LiteralString = """
    create table items (id bigint primary key, title text not null);
    create table documents (id bigint primary key, title text not null);
"""

_FILL: LiteralString = "insert into {} select n, t from unnest(%s::text[]) with ordinality u (t, n)"

_DECLARE: LiteralString = """
    select model_version
    from dynrec.create_recommender(name => 'bench', items => 'public.items', text_columns => '{title}')
"""

_VECTORIZE: LiteralString = """
    select ai.create_vectorizer('public.documents'::regclass,
      loading => ai.loading_column('title'), chunking => ai.chunking_none(),
      embedding => ai.embedding_openai(%s, %s, base_url => %s, api_key_name => 'BENCH_KEY'),
      destination => ai.destination_table(target_table => 'vectors', view_name => 'documents_embedded'),
      scheduling => ai.scheduling_none(), indexing => ai.indexing_none())
"""

# dynrec keeps such an index; pgai's own indexing waits for 100,000 rows and a schedule.
_INDEX: LiteralString = """
    create index on public.vectors using hnsw (embedding vector_ip_ops) with (ef_construction = 128)
"""

# An item's vector was stored again when this differs.
_OURS: LiteralString = "select created_at from {} where item_id = %s"
_THEIRS: LiteralString = "select embedding_uuid from {} where id = %s"

_CHANGE: LiteralString = "update {} set title = %s where id = %s"


@dataclass(frozen=True)
class _Followed:
    """A table whose changes are followed."""

    change: sql.Composed  # of a title and an item
    mark: sql.Composed  # of an item: another value once its vector is new


@dataclass(frozen=True)
class _Run:
    """What a run needs."""

    connection: Connection
    ours: _Followed
    theirs: _Followed
    samples: int
    advance: Advance


def pgai(settings: Settings, python: Path, *, samples: int, runs: int, polls: Sequence[int]) -> list[Figure]:
    """p50 from a commit until another statement sees the new vector, by the poll interval of pgai's worker (seconds).

    Changes come one by one, at a random moment of the interval. The model is the same object in this process: dynrec
    calls it, pgai's worker asks for it over HTTP. While dynrec is measured pgai's worker stands still, as one that
    polls without pause would take a processor away; dynrec sleeps while pgai is measured.
    """
    with (
        bench_database(settings) as own,
        queue.connect(url_of(own), application_name="dynrec bench") as connection,
        running(own, url_of(own)) as context,
    ):
        _install(python, url_of(own))
        ours = _followed("items", _declare(connection))
        encoder = context.encoder(queue.encoding(connection, "bench"))
        assert encoder is not None  # noqa: S101 - _DECLARE adopts no vectors
        with endpoint(encoder) as address, progress("pgai", len(polls) * runs * samples) as advance:
            with translated_errors():
                connection.execute(_VECTORIZE, [encoder.name, encoder.dimension, address])
                connection.execute(_INDEX)
            theirs = _followed("documents", sql.SQL(_THEIRS).format(sql.Identifier("public", "vectors")))
            run = _Run(connection, ours, theirs, samples, advance)
            return [_figure(run, python, url_of(own), poll, runs) for poll in polls]


def _install(python: Path, url: str) -> None:
    done = subprocess.run(
        [str(python), "-I", "-m", "pgai", "install", "--db-url", url], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise PeerUnavailableError(f"pgai does not install into this database: {done.stderr.strip()[-SAID:]}")


def _declare(connection: Connection) -> sql.Composed:
    """Fill both tables and wait for dynrec's vectors and index; the statement that marks one."""
    with translated_errors():
        connection.execute(_TABLES)
        for table in ("items", "documents"):
            connection.execute(sql.SQL(_FILL).format(sql.Identifier(table)), [texts.titles(ITEMS)])
        row = connection.execute(_DECLARE).fetchone()
        assert row is not None  # noqa: S101 - the function returns one row or raises
        fresh = connection.execute("select dynrec.wait_until_fresh('bench', %s)", [LOAD_TIMEOUT]).fetchone()
    if fresh != (True,):
        raise DynrecError(f"{ITEMS} items were not encoded in {LOAD_TIMEOUT}")
    time.sleep(5)  # the index is built after the backfill: an idle system has it
    return sql.SQL(_OURS).format(sql.Identifier("dynrec_data", f"item_vector_{row[0]}"))


def _followed(table: str, mark: sql.Composed) -> _Followed:
    return _Followed(sql.SQL(_CHANGE).format(sql.Identifier("public", table)), mark)


def _figure(run: _Run, python: Path, url: str, poll: int, runs: int) -> Figure:
    with _worker(run.connection, run.theirs, python, url, poll) as worker:
        share = _idle_share(worker)
        taken = [_samples(run, worker, poll, number) for number in range(runs)]
    polling = f"polling every {poll} s" if poll else "polling without pause"
    return Figure(
        f"freshness, pgai {polling}",
        f"p50 of commit to new vector visible, dynrec against pgai {version_of('pgai')}; "
        f"idle, pgai's worker uses {share:.0%} of a core, and what its queries cost the server",
        tuple(1000 * p50([ours for ours, _ in pairs]) for pairs in taken),
        tuple(1000 * p50([theirs for _, theirs in pairs]) for pairs in taken),
        unit="ms",
        higher_is_better=False,
        target=None,
    )


@contextmanager
def _worker(connection: Connection, theirs: _Followed, python: Path, url: str, poll: int) -> Iterator[psutil.Popen]:
    """pgai's vectorizer worker, once it has embedded what waits: a change at least."""
    with translated_errors():
        connection.execute(theirs.change, [f"a title of {time.time()}", "1"])
    command = [str(python), "-I", "-m", "pgai", "vectorizer", "worker", "--db-url", url, "--poll-interval", str(poll)]
    with tempfile.TemporaryFile("w+") as said:
        worker = psutil.Popen(command, stdout=said, stderr=said, env={"BENCH_KEY": "none"})
        try:
            _wait_until_embedded(connection, worker, said)
            yield worker
        finally:
            worker.kill()
            worker.wait()


def _wait_until_embedded(connection: Connection, worker: psutil.Popen, said: IO[str]) -> None:
    until = time.monotonic() + START_SECONDS
    statement = "select ai.vectorizer_queue_pending(id) from ai.vectorizer"
    while connection.execute(statement).fetchone() != (0,):
        if worker.poll() is not None or time.monotonic() > until:
            said.seek(0)
            raise PeerUnavailableError(f"pgai's worker did not embed {ITEMS} rows: {said.read().strip()[-SAID:]}")
        time.sleep(0.1)


def _idle_share(worker: psutil.Popen) -> float:
    """The share of a core that the worker uses while nothing changes."""
    before = worker.cpu_times()
    time.sleep(SHARE_SECONDS)
    after = worker.cpu_times()
    return float(after.user + after.system - before.user - before.system) / SHARE_SECONDS


def _samples(run: _Run, worker: psutil.Popen, poll: int, number: int) -> list[tuple[float, float]]:
    """(dynrec's, pgai's) seconds for each sample."""
    titles = texts.titles(2 * run.samples, seed=number + 1)
    draw = random.Random(number)  # noqa: S311 - moments, no secrets
    taken = []
    for sample in range(run.samples):
        item = str(sample % ITEMS + 1)
        worker.suspend()
        time.sleep(IDLE_SECONDS)
        ours = _until_visible(run.connection, run.ours, item, f"{titles[2 * sample]} run {number}", PATIENCE)
        worker.resume()
        time.sleep(IDLE_SECONDS + draw.uniform(0, poll))
        title = f"{titles[2 * sample + 1]} run {number}"
        taken.append((ours, _until_visible(run.connection, run.theirs, item, title, poll + PATIENCE)))
        run.advance()
    return taken


def _until_visible(connection: Connection, table: _Followed, item: str, title: str, patience: float) -> float:
    """Seconds from the commit of a new title until its vector is there."""
    before = connection.execute(table.mark, [item], prepare=True).fetchone()
    connection.execute(table.change, [title, item], prepare=True)
    committed = time.perf_counter()
    while connection.execute(table.mark, [item], prepare=True).fetchone() == before:
        if time.perf_counter() - committed > patience:
            raise DynrecError(f"item {item} got no new vector in {patience} s")
        time.sleep(LOOK_SECONDS)
    return time.perf_counter() - committed
