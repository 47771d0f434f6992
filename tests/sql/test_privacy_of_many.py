"""Forgetting in tables that are large: by indexes, and without putting everything into one value."""

from tests.sql.shop import NOON, Event, Shop

USER = "zoe"
FILL = """
    insert into dynrec_data.impression (recommender_id, user_id, shown_at, item_ids, first_position)
    select r.id, 'user ' || g, now() - g * interval '1 s', '{1,2,3}', 1 from dynrec_data.recommender r, generate_series(1, 20000) g;
    insert into dynrec_data.user_vector_history
        (model_id, user_id, state, half_lives, reference_time, event_count, closing_events, valid_from, valid_to, created_at, replaced_at)
    select v.model_id, 'user ' || g, v.state, v.half_lives, v.reference_time, v.event_count, '[]', h.at, h.at, h.at, h.at
    from (select * from dynrec_data.user_vector limit 1) v, generate_series(1, 20000) g, lateral (select now() - g * interval '1 s' as at) h;
    insert into shop.events (user_id, item_id, kind, occurred_at) select 'user ' || g, 1, 'view', now() from generate_series(1, 20000) g;
    delete from dynrec_data.change;
"""
READ_IN_FULL = """
    select relname, seq_tup_read from pg_stat_xact_user_tables where seq_tup_read > 1000
"""


def test_forgetting_reads_no_large_table_in_full(shop: Shop) -> None:
    shop.add_events([Event(USER, str(n), NOON, "view") for n in range(1, 5)])
    shop.drain()
    shop.execute(FILL)
    shop.execute("vacuum analyze")
    shop.execute("select pg_stat_force_next_flush()")  # what has been read up to here is not counted below
    shop.execute("begin")
    assert shop.value("select dynrec.forget_user('shop', %s) -> 'removed' ->> 'vectors'", [USER]) == "1"
    assert shop.execute(READ_IN_FULL) == []
    shop.execute("rollback")


def test_a_user_with_more_than_fits_into_one_value_is_forgotten(shop: Shop) -> None:
    shop.add_events([Event(USER, str(n), NOON, "view") for n in range(1, 5)])
    shop.drain()
    # of a million lists and versions the export would be as large as these few are
    shop.execute(
        """
        insert into dynrec_data.impression (recommender_id, user_id, item_ids, first_position, shown_at)
        select r.id, %s, array[repeat('x', 70000000)], 1, now() from dynrec_data.recommender r, generate_series(1, 4)
        """,
        [USER],
    )
    receipt = shop.value("select dynrec.forget_user('shop', %s)::text", [USER])
    assert '"impressions": 4' in receipt
    assert shop.value("select dynrec.verify_forgotten('shop', %s, %s::jsonb)", [USER, receipt])
