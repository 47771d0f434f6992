"""What a training needs, and what it says where that is gone."""

import pytest

from dynrec_store import queue
from dynrec_store.exceptions import ConfigurationError
from dynrec_store.settings import Settings
from tests.learned import backfill, stage
from tests.workers.support import Connection
from workers.learning.run import train_staged


def test_a_training_whose_parent_was_retired_fails_and_names_it(
    products: Connection, settings: Settings, database_url: str
) -> None:
    products.execute("insert into products values ('1', 'red lamp'), ('2', 'blue lamp')")
    parent = stage(products)
    backfill(products)
    products.execute("select dynrec.promote_model('shop')")
    ((model,),) = products.execute("select dynrec.stage_model('shop', continue_active => true)").fetchall()
    # it failed once, and is tried again when nobody has kept its parent for it
    products.execute("select dynrec._training_failed(%s, 'no memory')", [model])
    products.execute("select dynrec.rollback_model('shop')")
    products.execute("select dynrec.retire_model('shop', %s)", [parent])
    with (
        queue.connect(database_url, application_name="test") as connection,
        pytest.raises(
            ConfigurationError, match=f"model version {parent}, which the training goes on from, was retired"
        ),
    ):
        train_staged(connection, settings, model, lambda _stage, _done: None)
    noted = "select state, error from dynrec.model_versions where model_version = %s"
    ((state, error),) = products.execute(noted, [model]).fetchall()
    assert state == "failed"
    assert error.startswith(f"ConfigurationError: model version {parent}")
