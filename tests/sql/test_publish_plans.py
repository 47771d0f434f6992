"""What a publish costs does not depend on what the statistics happen to say of tables that fill and empty all day."""

import re

from tests.drain import Session, drain
from tests.sql.plans import plans
from tests.sql.shop import create_shop

BATCH = 500


def test_a_batch_is_not_compared_with_itself(connection: Session) -> None:
    shop = create_shop(connection)
    shop.add_products(range(1, 6 * BATCH))
    drain(connection, batch_size=BATCH)
    connection.execute("vacuum analyze dynrec_data.lease")  # as autovacuum does when it comes between two batches
    shop.add_products(range(6 * BATCH, 10 * BATCH))
    with plans(connection) as seen:
        drain(connection, batch_size=BATCH)
    publishes = [plan for plan in seen if "item_content_new" in plan or "content_new" in plan]
    assert publishes
    for plan in publishes:
        compared = [int(number) for number in re.findall(r"Rows Removed by Join Filter: (\d+)", plan)]
        assert sum(compared) < 10 * BATCH, plan
        assert "Filter: ((ANY (id = (SubPlan" not in plan, "a set that is not hashed is read again for each row"
