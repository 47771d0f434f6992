"""`dynrec health`: whether a process of this machine, or of this container, does its work."""

from datetime import timedelta

from dynrec_store import database, queue
from dynrec_store.exceptions import DynrecError
from dynrec_store.settings import Settings
from dynrec_store.target import target_database
from workers.context import process_prefix

OLD = timedelta(seconds=30)  # heartbeats come every five seconds
OLD_PROOF = timedelta(minutes=2)  # a try waits for the batch that is being encoded


class Unhealthy(DynrecError):  # noqa: N818  the name says what was found
    """The process is not there, does not move, or cannot encode; the message says which."""


def check_health(settings: Settings, role: str) -> str:
    """Say how a process of this role is; raises Unhealthy. Of several on a machine the last to beat is judged."""
    with target_database(settings) as url, database.connect(url, application_name="dynrec health") as connection:
        last = queue.last_beat(connection, process_prefix(role))
    if last is None:
        raise Unhealthy(f"no {role} of this machine has ever said that it is alive")
    age, details = last
    if age > OLD:
        raise Unhealthy(f"the {role} was last alive {age.total_seconds():.0f} s ago")
    proved, trouble = details.get("proved"), details.get("trouble")
    if trouble is not None:
        raise Unhealthy(f"the worker cannot encode: {trouble}")
    if isinstance(proved, int | float) and age + timedelta(seconds=proved) > OLD_PROOF:
        raise Unhealthy(f"the worker encoded something for the last time {proved:.0f} s ago")
    return f"the {role} was alive {age.total_seconds():.1f} s ago"
