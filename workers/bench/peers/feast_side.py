"""Runs in Feast's environment, never in ours: fills Feast from a table, then answers searches with their seconds.

Reads one JSON object a line, writes one a line.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pandas as pd
import psycopg
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, PushSource, ValueType
from feast.repo_config import RepoConfig
from feast.types import Array, Float32, String

_BATCH = 5000


class Side:
    """A feature store for each table to search: Feast goes through all feature views of a project at each call."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url = url
        self._folder = folder
        self._vectors: dict[str, list[float]] = {}
        self._stores: dict[str, FeatureStore] = {}

    def fill(self, source: list[str], projects: list[str], dimension: int) -> None:
        """Write each item of the table `source` (schema, name; columns id, embedding) into each project."""
        item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.STRING)
        for project in projects:
            self.open(project)
            self._stores[project].apply([item, self._view(item, dimension)])
        for frame in self._read(source):
            self._vectors.update(zip(frame["item_id"], frame["embedding"], strict=True))
            for project in projects:
                self._stores[project].write_to_online_store("items", frame)

    def open(self, project: str) -> None:
        """Begin with a fresh connection: plans of before an index do not go on."""
        parts = urlsplit(self._url)
        online_store = {
            "type": "postgres",
            "host": parts.hostname,
            "port": parts.port or 5432,
            "database": parts.path.lstrip("/"),
            "user": unquote(parts.username or ""),
            "password": unquote(parts.password or ""),
            "sslmode": "prefer",
            "vector_enabled": True,
        }
        config = RepoConfig(
            project=project,
            provider="local",
            registry=str(self._folder / f"{project}.db"),
            entity_key_serialization_version=3,
            online_store=online_store,
        )
        self._stores[project] = FeatureStore(config=config)

    def search(self, method: str, project: str, item: str, top_k: int) -> dict[str, Any]:
        """The nearest items to an item's vector, as an application asks for them."""
        call = getattr(self._stores[project], method)
        # version 1 returns the keys only when asked, version 2 always
        keys = ["items:item_id"] if method == "retrieve_online_documents" else []
        features = ["items:embedding", *keys]
        query = self._vectors[item]
        started = time.perf_counter()
        found = call(features=features, query=query, top_k=top_k, distance_metric="inner_product").to_dict()
        return {"seconds": time.perf_counter() - started, "items": found["item_id"]}

    def _view(self, item: Entity, dimension: int) -> FeatureView:
        vector = Field(
            name="embedding",
            dtype=Array(Float32),
            vector_index=True,
            vector_length=dimension,
            vector_search_metric="inner_product",
        )
        batch = FileSource(path=str(self._folder / "items.parquet"), timestamp_field="event_timestamp")
        return FeatureView(
            name="items",
            entities=[item],
            ttl=timedelta(days=365),
            schema=[Field(name="item_id", dtype=String), vector],
            source=PushSource(name="push", batch_source=batch),
            online=True,
        )

    def _read(self, source: list[str]) -> Iterator[pd.DataFrame]:
        statement = psycopg.sql.SQL("select id::text, embedding::real[] from {}").format(
            psycopg.sql.Identifier(*source)
        )
        with psycopg.connect(self._url) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            while rows := cursor.fetchmany(_BATCH):
                frame = pd.DataFrame(rows, columns=["item_id", "embedding"])
                yield frame.assign(event_timestamp=datetime.now(UTC))


def main() -> None:
    """Answer until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what Feast prints is no answer
    with tempfile.TemporaryDirectory() as folder:
        side = Side(os.environ["DYNREC_BENCH_URL"], Path(folder))
        for line in sys.stdin:
            question = json.loads(line)
            answer = getattr(side, question.pop("do"))(**question)
            print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
