"""docs/deploy.md from top to bottom, where there is `docker compose`: its blocks are the script, the tests look between them.

They build on each other, in their order. tests/deploy/test_page.py sees to it that no block is left out.
"""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, LiteralString

import pytest

from tests.acceptance.compose import TIMEOUT, Terminal, compose_command, until
from tests.acceptance.page import script

COMMAND = compose_command()

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.slow,
    pytest.mark.timeout(3 * TIMEOUT),
    pytest.mark.skipif(COMMAND is None, reason="needs `docker compose`, or DYNREC_COMPOSE in its place"),
]

ITEMS = 1500  # that the workers share
ALONE = ("postgres", "redis", "worker-encode", "worker-train", "stream", "metrics")
LIVE = {"dispatcher": 2} | dict.fromkeys(ALONE, 1)


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    assert COMMAND is not None
    opened = Terminal.opened(tmp_path_factory.mktemp("deploy"), COMMAND)
    opened.run("docker compose --profile '*' build")  # or an earlier run's would do
    yield opened
    opened.run("docker compose --profile '*' down --volumes --timeout 20")


def ask(terminal: Terminal, statement: LiteralString) -> list[tuple[Any, ...]]:
    with terminal.connect() as connection:
        return connection.execute(statement).fetchall()


def list_of_42(terminal: Terminal) -> list[tuple[Any, ...]]:
    return ask(
        terminal, "select item_id, round(score::numeric, 4) from dynrec.recommend('gear', '42', k => 3) order by rank"
    )


def more_items(terminal: Terminal, first: int) -> None:
    """Work for some seconds."""
    with terminal.connect() as connection:
        connection.execute(
            "insert into product select i, 'thing ' || md5(i::text) from generate_series(%s::int, %s::int) i",
            [first, first + ITEMS - 1],
        )


def encoded(terminal: Terminal) -> dict[str, int]:
    """Texts, by worker."""
    return dict(
        ask(
            terminal,
            """
            select process, (details ->> 'encoded')::int from dynrec_data.heartbeat
            where details ? 'proved' and beat_at > now() - interval '20 seconds'
            """,
        )
    )


def test_the_files_are_valid_and_everything_is_pinned_limited_and_without_rights(terminal: Terminal) -> None:
    services = terminal.config("--profile '*'")["services"]
    for name, service in services.items():
        assert ":latest" not in service["image"], name
        assert ":" in service["image"], name
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["deploy"]["resources"]["limits"]["memory"], name
        assert service["restart"] == ("no" if name in {"migrate", "demo"} else "unless-stopped"), name
        assert "healthcheck" in service or name in {"migrate", "demo"}, name
        assert not any(
            "PASSWORD" in variable and "FILE" not in variable for variable in service.get("environment") or {}
        )
    for secret in terminal.config()["secrets"].values():
        assert Path(secret["file"]).read_text().strip()


def test_a_fresh_checkout_comes_up(terminal: Terminal) -> None:
    terminal.follow("Start")
    for service, count in LIVE.items():
        assert terminal.healthy(service, count), service
    [migrate] = terminal.containers("migrate")
    assert (migrate["State"], migrate["ExitCode"]) == ("exited", 0)
    for service in LIVE:
        assert terminal.run(f"docker compose exec -T {service} id -u").strip() != "0"


def test_no_torch_where_none_is_needed(terminal: Terminal) -> None:
    look = "import importlib.util as u; print([n for n in ('torch', 'sklearn', 'transformers') if u.find_spec(n)])"
    for service in ("dispatcher", "stream", "metrics"):
        assert terminal.run(f'docker compose exec -T {service} python -c "{look}"').strip() == "[]"
    assert "torch" in terminal.run(f'docker compose exec -T worker-encode python -c "{look}"')


def test_an_application_needs_its_connection_string_only(terminal: Terminal) -> None:
    terminal.follow("Connect")
    assert "personal" in terminal.follow("Connect")
    assert [item for item, _ in list_of_42(terminal)][:2] == ["2", "3"]


def test_the_demo_loads(terminal: Terminal) -> None:
    assert "loaded" in terminal.follow("The demo")
    assert "already" in terminal.repeat()
    many = ask(terminal, "select count(*) > 1000 from shop.products")
    assert many == [(True,)]
    stale = "select entities - stale from dynrec.freshness where recommender = 'shop' and kind = 'item'"
    until(lambda: ask(terminal, stale)[0][0] > 100, "workers fill in the vectors")
    ask(terminal, "select dynrec.drop_recommender('shop')")


def test_the_commands_that_watch(terminal: Terminal) -> None:
    watched = terminal.follow("Watch")
    assert "all is well" in watched
    assert "dispatcher_ready" in watched
    assert 'dynrec_processes{role="dispatcher"} 2.0' in watched
    assert 'dynrec_processes{role="worker"} 2.0' in watched
    assert re.search(r'^dynrec_active_model_info{.*recommender="gear"} 1.0$', watched, re.MULTILINE)


def test_prometheus_takes_what_is_exported_and_flower_sees_the_queues(terminal: Terminal) -> None:
    terminal.follow("Watch")
    ask_prometheus = (
        'curl --fail --silent "http://127.0.0.1:$STACK_PROMETHEUS_PORT/api/v1/query" --data-urlencode "query={}"'
    )
    until(lambda: '"1"]' in terminal.run(ask_prometheus.format("dynrec_up")), "Prometheus has the metrics")
    rules = terminal.run('curl --fail --silent "http://127.0.0.1:$STACK_PROMETHEUS_PORT/api/v1/rules"')
    assert "DynrecNoWorker" in rules
    assert terminal.run('curl --fail --silent "http://127.0.0.1:$STACK_FLOWER_PORT/healthcheck"') == "OK"
    terminal.run("docker compose rm --stop --force prometheus flower")


def test_health_is_said_by_the_containers(terminal: Terminal) -> None:
    assert terminal.follow("When something dies").count("alive") == 3


def test_a_worker_that_is_killed_comes_back(terminal: Terminal) -> None:
    before = terminal.pid("worker-encode")
    os.kill(before, signal.SIGKILL)
    until(lambda: terminal.containers("worker-encode")[0]["State"] == "running", "the container is started again")
    until(lambda: terminal.healthy("worker-encode"), "it is healthy again")
    assert terminal.pid("worker-encode") != before
    assert ask(terminal, "insert into product values (5, 'moka pot') returning id") == [(5,)]
    assert ask(terminal, "select dynrec.wait_until_fresh('gear', '2 minutes')") == [(True,)]


def test_three_workers_share_the_work(terminal: Terminal) -> None:
    terminal.follow("More workers")
    assert terminal.healthy("worker-encode", 3)
    before = encoded(terminal)
    more_items(terminal, 1001)
    assert ask(terminal, "select dynrec.wait_until_fresh('gear', '10 minutes')") == [(True,)]
    until(lambda: sum(encoded(terminal).values()) >= sum(before.values()) + ITEMS, "the heartbeats say so")
    after = encoded(terminal)
    shares = {process: after[process] - before.get(process, 0) for process in after}
    assert len(shares) == 3
    assert min(shares.values()) >= ITEMS / 6, shares  # half of what each would have if it were quite even
    terminal.follow("More workers")
    assert terminal.healthy("worker-encode")


def test_a_worker_that_is_told_to_stop_finishes_its_batches(terminal: Terminal) -> None:
    more_items(terminal, 1001 + ITEMS)
    leased = "select count(*) from dynrec_data.lease where kind = 'item'"
    until(lambda: ask(terminal, leased) != [(0,)], "the worker has begun")
    terminal.run("docker compose stop worker-encode")
    [stopped] = terminal.containers("worker-encode")
    assert stopped["ExitCode"] == 0
    assert ask(terminal, leased) == [(0,)]
    assert ask(terminal, "select coalesce(sum(entities), 0) > 0 from dynrec.queue where recommender = 'gear'") == [
        (True,)
    ]
    terminal.run("docker compose up -d --wait")
    assert ask(terminal, "select dynrec.wait_until_fresh('gear', '10 minutes')") == [(True,)]
    assert ask(terminal, "select count(*) from dynrec.failures") == [(0,)]


def counted(terminal: Terminal) -> bool:
    """Whether popularity has each purchase once."""
    return (
        ask(
            terminal,
            """
        select item_id::bigint, sum(event_count)::bigint from dynrec_data.item_popularity group by 1
        except select item_id, count(*) from purchase group by 1
        """,
        )
        + ask(
            terminal,
            """
        select item_id, count(*) from purchase group by 1
        except select item_id::bigint, sum(event_count)::bigint from dynrec_data.item_popularity group by 1
        """,
        )
        == []
    )


def captures(terminal: Terminal) -> tuple[int, int]:
    """How many triggers and replication slots dynrec has."""
    [(triggers,)] = ask(terminal, "select count(*) from pg_trigger where tgname like 'dynrec%'")
    [(slots,)] = ask(terminal, "select count(*) from pg_replication_slots where slot_name like 'dynrec%'")
    return triggers, slots


def test_the_stream_takes_the_place_of_triggers(terminal: Terminal) -> None:
    triggers, slots = captures(terminal)
    assert triggers > 0
    assert slots == 0
    terminal.follow("Without triggers")
    until(lambda: captures(terminal) == (0, 1), "the slot stands, and triggers are gone")
    before = ask(terminal, "select dynrec.user_vector_at('gear', '42')::text")
    ask(terminal, "insert into purchase values (42, 3), (43, 3) returning item_id")
    ask(terminal, "update product set title = 'light trail running shoes' where id = 1 returning id")
    until(lambda: ask(terminal, "select count(*) from dynrec.item_history('gear', '1')") == [(2,)], "a text came")
    until(lambda: ask(terminal, "select dynrec.user_vector_at('gear', '42')::text") != before, "a purchase came")
    until(lambda: counted(terminal), "each purchase counts once")
    assert 'active="true"' in next(line for line in terminal.metrics().splitlines() if "slot_lag_bytes{" in line)
    doctor = "docker compose run --rm --no-deps migrate doctor 2>&1"
    until(lambda: "all is well" in terminal.run(doctor), "the doctor has nothing to say", lambda: terminal.run(doctor))


def test_a_stream_that_is_killed_loses_nothing(terminal: Terminal) -> None:
    before = terminal.pid("stream")
    os.kill(before, signal.SIGKILL)
    ask(terminal, "insert into product values (7, 'tent peg') returning id")
    ask(terminal, "insert into purchase values (42, 7) returning item_id")
    until(
        lambda: ask(terminal, "select count(*) from dynrec.item_history('gear', '7')") == [(1,)], "it came all the same"
    )
    until(lambda: counted(terminal), "each purchase counts once")
    until(lambda: terminal.healthy("stream"), "it is healthy again")
    assert terminal.pid("stream") != before


def test_triggers_take_the_place_of_the_stream(terminal: Terminal) -> None:
    terminal.follow("Without triggers")
    until(lambda: captures(terminal)[1] == 0, "the slot is gone")
    assert captures(terminal)[0] > 0
    ask(terminal, "insert into purchase values (43, 7) returning item_id")
    assert ask(terminal, "select dynrec.wait_until_fresh('gear', '2 minutes')") == [(True,)]
    assert counted(terminal)


def test_the_gpu_file_reserves_one_for_the_workers(terminal: Terminal) -> None:
    terminal.follow("A GPU")
    services = terminal.config("-f docker-compose.yml -f docker-compose.gpu.yml")["services"]
    for name in ("worker-encode", "worker-train"):
        [device] = services[name]["deploy"]["resources"]["reservations"]["devices"]
        assert device["capabilities"] == ["gpu"]
        assert services[name]["image"].endswith("-cuda")
        assert services[name]["deploy"]["resources"]["limits"]["memory"]


def test_down_and_up_again_loses_nothing(terminal: Terminal) -> None:
    before = list_of_42(terminal)
    versions = ask(terminal, "select count(*) from dynrec.item_history('gear', '1')")
    terminal.follow("Stop and start")
    assert list_of_42(terminal) == before
    assert ask(terminal, "select count(*) from dynrec.item_history('gear', '1')") == versions


def test_a_backup_is_restored(terminal: Terminal) -> None:
    before = list_of_42(terminal)
    assert ask(terminal, "select dynrec.wait_until_fresh('gear', '2 minutes')") == [(True,)]
    terminal.follow("Back up and restore")
    terminal.follow("Back up and restore")
    assert list_of_42(terminal) == before
    ask(terminal, "insert into product values (6, 'tent') returning id")
    assert ask(terminal, "select dynrec.wait_until_fresh('gear', '2 minutes')") == [(True,)]
    assert ask(terminal, "select count(*) from dynrec.item_history('gear', '6')") == [(1,)]


def test_an_upgrade_to_other_images_keeps_everything(terminal: Terminal) -> None:
    before = list_of_42(terminal)
    terminal.follow("Upgrade")
    for service in ("dispatcher", "worker-encode", "worker-train", "stream", "metrics"):
        assert all(one["Image"].endswith(":next") for one in terminal.containers(service)), service
        assert terminal.healthy(service, LIVE[service]), service
    assert list_of_42(terminal) == before
    ask(terminal, "update product set title = 'gravel running shoes' where id = 2 returning id")
    assert ask(terminal, "select dynrec.wait_until_fresh('gear', '2 minutes')") == [(True,)]
    assert ask(terminal, "select count(*) from dynrec.item_history('gear', '2')") == [(2,)]


def test_the_page_was_followed_to_its_end(terminal: Terminal) -> None:
    assert terminal.followed == script()
