"""The end of the story, and how to go on from there."""

from pathlib import Path
from typing import LiteralString

from workers.demo.stage import Stage, duration

TO_PASTE: LiteralString = """\
-- what household 18 could have for less than two dollars
select r.*, p.name, p.price from dynrec.recommend('shop', '18', filter => 'price < 2') r
  join shop.products p on p.product_id = r.item_id::integer;
-- words; `dynrec search` looks for the meaning as well
select r.*, p.name from dynrec.search('shop', 'chocolate -milk') r
  join shop.products p on p.product_id = r.item_id::integer;
-- somebody without an account, with two products in the basket
select r.*, p.name from dynrec.recommend_for_items('shop', array['1106523', '998373']) r
  join shop.products p on p.product_id = r.item_id::integer;
select * from dynrec.status;
"""


def close_shop(stage: Stage) -> None:
    """Say how everything stands in the end."""
    stage.part("How it stands")
    stage.show("select recommender, encoder, queued, dead_letters, dispatchers, workers from dynrec.status")
    stage.show("select model_version, state, dimension, items, users, bytes, indexed from dynrec.model_versions")
    findings = stage.show("select subject, severity, finding, remedy from dynrec.doctor()")
    stage.claim("dynrec.doctor() has nothing to complain about", holds=not findings)
    stage.end_part()
    stage.console.rule("How long it took", align="left", style="blue")
    stage.show_rows([{"part": title, "time": duration(seconds)} for title, seconds in stage.times])


def say_how_to_go_on(stage: Stage, url: str, data_dir: Path, *, keep: bool) -> None:
    """Give the database's URL and statements that are worth pasting."""
    stage.console.rule("How to go on", align="left", style="blue")
    stage.ask(TO_PASTE)  # has to work, as a reader is invited to paste it
    if keep:
        stage.say("Everything goes on running until you press ctrl-c. Connect from another terminal:")
    else:
        stage.say(
            f"""
            Everything stops now; the data stay in {data_dir}. [bold]dynrec demo --keep[/] (or [bold]make demo
            KEEP=1[/]) tells the story again and leaves everything running, for you to connect:
            """
        )
    stage.console.print(f"\n  psql '{url}'\n", markup=False, soft_wrap=True)
    stage.say("and paste, for example:")
    stage.show_sql(TO_PASTE)
    stage.say(
        """
        Then change a name, insert a purchase, and ask again. [bold]dynrec up[/] runs the same over tables of your own.
        """
    )
