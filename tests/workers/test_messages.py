"""Messages that are no hints of ours: they run nothing, and the worker goes on."""

import os
import pickle
from pathlib import Path

import pytest

from dynrec_store.settings import Settings
from tests.workers.support import Connection, fresh
from workers.celery_app import MAINTENANCE, MEMORY, RECOMPUTE_ITEMS, make_app
from workers.inprocess import running


class Bomb:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self._path}",)


def send(settings: Settings, body: bytes, content_type: str, headers: dict[str, object]) -> None:
    """Put a message into a queue as anybody can who reaches the broker."""
    app = make_app(settings.model_copy(update={"broker_url": MEMORY}))
    with app.connection_for_write() as connection, connection.Producer() as producer:
        producer.publish(
            body,
            routing_key=MAINTENANCE,
            exchange="",
            content_type=content_type,
            content_encoding="binary",
            headers=headers,
        )


@pytest.mark.parametrize("content_type", ["application/x-python-serialize", "application/json", "application/x-yaml"])
@pytest.mark.parametrize("task", [RECOMPUTE_ITEMS, "os.system", None])
def test_a_pickle_is_not_opened(
    products: Connection, settings: Settings, database_url: str, tmp_path: Path, content_type: str, task: str | None
) -> None:
    touched = tmp_path / "touched"
    bodies = [pickle.dumps(Bomb(touched)), pickle.dumps((["shop"], {}, {"callbacks": [Bomb(touched)]}))]
    with running(settings, database_url):
        for body in bodies:
            send(settings, body, content_type, {"task": task, "id": "1", "lang": "py"} if task else {})
        products.execute("insert into products values ('1', 'a hat')")
        assert fresh(products)
    assert not touched.exists()


def test_only_json_is_accepted(settings: Settings) -> None:
    app = make_app(settings)
    assert set(app.conf.accept_content) == {"json"}
    assert app.conf.worker_enable_remote_control is False
    assert {app.conf.task_serializer, app.conf.event_serializer, app.conf.result_serializer} == {"json"}
