"""How to go on from here."""

from pathlib import Path

from rich.panel import Panel

from workers.demo.grocery import HOUSEHOLD
from workers.demo.stage import Stage, milliseconds


def close_shop(stage: Stage, url: str, data_dir: Path, *, keep: bool) -> None:
    """Say how it stands, how long it took, and what to try next."""
    stage.part("How it stands")
    stage.show("select kind, entities, stale, lag_p50, lag_p99 from dynrec.freshness order by kind")
    findings = stage.show("select subject, severity, finding, remedy from dynrec.doctor()")
    stage.claim("dynrec.doctor() has nothing to complain of", holds=not findings)
    stage.end_part()
    stage.say("\n[bold]How long it took[/]")
    stage.show_rows([{"part": title, "time": milliseconds(seconds)} for title, seconds in stage.times])
    stage.say("\n[bold]How to go on[/]")
    stage.say("dynrec demo --keep leaves everything running." if not keep else f"psql '{url}'")
