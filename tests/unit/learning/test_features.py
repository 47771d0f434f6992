"""Features: what is missing, what is scaled, and that serving does what training did."""

import json
from pathlib import PurePath
from typing import Any

import numpy as np
import pytest
import skops.io
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, SimpleImputer
from sklearn.preprocessing import QuantileTransformer, StandardScaler

from dynrec_store.exceptions import ConfigurationError
from workers.learning.data import Times
from workers.learning.features import TRUSTED, FeatureMaker, Snapshot, arranged

NAMES = [("price", "number"), ("brand", "label"), ("weight", "number"), ("age", "number"), ("colour", "label")]
EVERY_KIND = {
    "columns": {"price": {"missing": "predict"}, "weight": {"missing": "interpolate", "scale": "standard"}},
}


def numbers(rows: int = 200, *, missing: float = 0.2, seed: int = 0) -> Times:
    """Return three columns, of which the first follows from the other two."""
    random = np.random.default_rng(seed)
    weight, age = random.normal(size=rows), random.exponential(size=rows)
    columns = np.stack([3 * weight - age + 5, weight, age], axis=1)
    return np.where(random.random(columns.shape) < missing, np.nan, columns)


def snapshot(values: Times, moment: float = 0.0) -> Snapshot:
    labels = [[f"brand {row % 3}", None if row % 2 else "red"] for row in range(len(values))]
    return Snapshot(moment, [f"item {row}" for row in range(len(values))], values, labels)


def history() -> list[Snapshot]:
    return [snapshot(numbers(seed=seed), moment=1000.0 * seed) for seed in range(3)]


def one_column(values: list[float], **options: object) -> tuple[FeatureMaker, Snapshot]:
    taken = Snapshot(0.0, [str(row) for row in range(len(values))], np.array(values)[:, None], [[] for _ in values])
    return FeatureMaker.fitted([("price", "number")], [taken], {"columns": {"price": options}}), taken


def prepared(maker: FeatureMaker, taken: Snapshot) -> Times:
    return maker.numerics([taken], taken.items)[0][1].astype(np.float64)


@pytest.mark.parametrize(
    ("missing", "strategy"),
    [
        ("mean", "mean"),
        ("median", "median"),
        ("mode", "most_frequent"),
        ("constant", "constant"),
        ("drop", "median"),
        ("predict", "median"),
    ],
)
def test_missing_numbers_are_what_scikit_learn_says(missing: str, strategy: str) -> None:
    values = [1.0, 7.0, 7.0, 9.0, 30.0, np.nan]
    options: dict[str, Any] = {"missing": missing, "scale": "none"}
    if missing == "constant":
        options["fill"] = -2.5
    maker, taken = one_column(values, **options)
    imputer = SimpleImputer(strategy=strategy, fill_value=-2.5 if missing == "constant" else None)
    wanted = imputer.fit_transform(np.array(values)[:, None])
    np.testing.assert_allclose(prepared(maker, taken), np.hstack([wanted, [[0]] * 5 + [[1]]]))


@pytest.mark.filterwarnings("ignore:.*Early stopping criterion not reached")
def test_a_column_is_predicted_from_the_others() -> None:
    values = numbers(missing=0.2)
    values[np.isnan(values).all(axis=1)] = 1.0
    options = {"columns": {name: {"missing": "predict", "scale": "none"} for name in ("price", "weight", "age")}}
    taken = snapshot(values)
    maker = FeatureMaker.fitted(NAMES, [taken], options)
    bounds = {"min_value": np.nanmin(values, axis=0) - 99, "max_value": np.nanmax(values, axis=0) + 99}
    imputer = IterativeImputer(initial_strategy="median", random_state=0, **bounds)
    made = prepared(maker, taken)[:, :3]
    np.testing.assert_allclose(made, imputer.fit_transform(values), rtol=1e-4, atol=1e-4)
    lacking = np.isnan(values[:, 0]) & ~np.isnan(values[:, 1:]).any(axis=1)
    truth = (3 * values[:, 1] - values[:, 2] + 5)[lacking]
    assert np.abs(made[lacking, 0] - truth).mean() < 0.1 * np.abs(np.nanmedian(values[:, 0]) - truth).mean()


def test_quantiles_and_standard_scores_are_scikit_learns() -> None:
    values = numbers(missing=0.0)
    taken = snapshot(values)
    options = {"columns": {"weight": {"scale": "standard"}, "age": {"scale": "none"}}}
    scaled = prepared(FeatureMaker.fitted(NAMES, [taken], options), taken)
    transformer = QuantileTransformer(n_quantiles=len(values), output_distribution="normal")
    quantiles = StandardScaler().fit_transform(transformer.fit_transform(values[:, :1]))
    np.testing.assert_allclose(scaled[:, :1], np.clip(quantiles, -3, 3), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(scaled[:, 1:2], StandardScaler().fit_transform(values[:, 1:2]), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(scaled[:, 2], values[:, 2], rtol=1e-6)


def test_without_options_everything_is_finite_and_small_and_missing_numbers_are_flagged() -> None:
    values = numbers()
    values[:, 2] = np.abs(values[:, 2])
    values[3] = [np.inf, -1e300, 1e29]
    values[:, 1] = 4.0
    taken = snapshot(values)
    scaled = prepared(FeatureMaker.fitted(NAMES, [taken], {}), taken)
    assert scaled.shape == (200, 5)  # the column that never varied misses nothing, nor has it anything to say
    assert np.abs(scaled[:, :3]).max() <= 3
    assert (scaled[:, 1] == 0).all()
    np.testing.assert_array_equal(scaled[:, 3:], ~(np.abs(values[:, [0, 2]]) < 1e30))


def price_over_time(values: list[float]) -> list[Snapshot]:
    """An item whose price was that, one of which nothing is ever known, and one that costs 100 throughout."""
    return [
        Snapshot(10.0 * place, ["a", "b", "c"], np.array([[value], [np.nan], [100.0]]), [[], [], []])
        for place, value in enumerate(values)
    ]


def interpolating(taken: list[Snapshot]) -> FeatureMaker:
    options = {"columns": {"price": {"missing": "interpolate", "scale": "none"}}}
    return FeatureMaker.fitted([("price", "number")], taken, options)


def test_interpolation_keeps_the_items_last_number() -> None:
    values = [np.nan, 1.0, np.nan, 4.0, np.nan]
    taken = price_over_time(values)
    made = [numbers for _, numbers in interpolating(taken).numerics(taken, ["a", "b"])]
    median = float(np.median([1.0, 4.0] + [100.0] * 5))
    assert [float(numbers[0, 0]) for numbers in made] == [median, 1.0, 1.0, 4.0, 4.0]
    assert [float(numbers[0, 1]) for numbers in made] == [1.0, 0.0, 1.0, 0.0, 1.0]
    assert {float(numbers[1, 0]) for numbers in made} == {median}


def test_interpolation_sees_nothing_of_later_numbers() -> None:
    values = [np.nan, 1.0, np.nan, 4.0, np.nan]
    maker = interpolating(price_over_time(values))
    made = [numbers for _, numbers in maker.numerics(price_over_time(values), ["a"])]
    for place in range(len(values)):
        otherwise = price_over_time([*values[: place + 1], 77.0, 77.0])
        for known in (maker, maker.remembering(otherwise)):  # nor of what is remembered for serving
            other = [numbers for _, numbers in known.numerics(otherwise, ["a"])]
            np.testing.assert_array_equal(made[: place + 1], other[: place + 1])


@pytest.mark.parametrize("last", [4.0, np.nan])
def test_interpolation_in_serving_is_what_training_would_do_next(last: float) -> None:
    taken = price_over_time([np.nan, 1.0, np.nan, 4.0, last])
    maker = interpolating(taken)
    now = Snapshot(1000.0, ["a", "b", "never seen"], np.full((3, 1), np.nan), [[], [], []])
    trained = maker.numerics([*taken, now], now.items)[-1][1]
    assert trained[0].tolist() == [4.0, 1.0]
    served, _ = FeatureMaker.from_bytes(maker.to_bytes()).transform([[None]] * 3, [[]] * 3, now.items)
    np.testing.assert_array_equal(served, trained)
    assert maker.transform([[None]], [[]])[0][0, 0] == trained[1, 0]


def test_training_on_remembers_the_newest_numbers() -> None:
    options = {"columns": {"price": {"missing": "interpolate", "scale": "none"}}}
    taken = Snapshot(0.0, ["a"], np.array([[1.0]]), [[]])
    maker = FeatureMaker.fitted([("price", "number")], [taken], options)
    later = maker.remembering([Snapshot(5.0, ["a", "b"], np.array([[1.0], [0.5]]), [[], []])])
    assert later.transform([[None]] * 2, [[]] * 2, ["a", "b"])[0][:, 0].tolist() == [1.0, 1.0]  # bounds stay
    assert later.report() == maker.report()


@pytest.mark.parametrize("options", [{}, EVERY_KIND], ids=["defaults", "every kind"])
def test_serving_does_what_training_did(options: object) -> None:
    taken = history()
    last = taken[-1]
    maker = FeatureMaker.fitted(NAMES, taken, options)
    served = FeatureMaker.from_bytes(maker.to_bytes())
    trained, codes = maker.numerics(taken, last.items)[-1][1], maker.codes(last, last.items)
    bulk, bulk_codes = served.transform(last.numbers, last.labels, last.items)
    np.testing.assert_array_equal(bulk, trained)
    np.testing.assert_array_equal(bulk_codes, codes)
    for row, item in enumerate(last.items):
        alone, alone_codes = served.transform(last.numbers[row : row + 1], [last.labels[row]], [item])
        np.testing.assert_allclose(alone[0], trained[row], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(alone_codes[0], codes[row])
    assert served.report() == maker.report()


@pytest.mark.parametrize("scale", ["quantile", "standard"])
def test_what_is_beyond_all_that_was_seen_is_no_farther_than_three_deviations(scale: str) -> None:
    maker, _ = one_column([float(row) for row in range(200)], scale=scale)
    later = maker.transform([[150.0], [199.0], [250.0], [1e6]], [[]] * 4)[0][:, 0]
    assert (np.diff(later) >= 0).all()
    assert later[-1] <= 3
    assert later[-1] > later[0]


def test_models_that_were_stored_before_go_on_as_they_did() -> None:
    """With a limit of five, and a transformer that made quantiles normal by itself."""
    maker, _ = one_column([float(row) for row in range(2000)])
    state = skops.io.loads(maker.to_bytes(), trusted=TRUSTED)
    about = json.loads(state["about"])
    assert about.pop("limit") == 3
    state["quantile"].set_params(output_distribution="normal")
    before = FeatureMaker.from_bytes(bytes(skops.io.dumps(state | {"about": json.dumps(about)})))
    np.testing.assert_array_equal(before.transform([[700.0]], [[]])[0], maker.transform([[700.0]], [[]])[0])
    assert maker.transform([[1e6]], [[]])[0][0, 0] == pytest.approx(3)
    assert before.transform([[1e6]], [[]])[0][0, 0] == pytest.approx(5)
    assert FeatureMaker.from_bytes(before.to_bytes()).transform([[1e6]], [[]])[0][0, 0] == pytest.approx(5)


def test_an_item_of_which_nothing_is_known_is_the_same_alone_and_in_company() -> None:
    taken = history()
    maker = FeatureMaker.fitted(NAMES, taken, EVERY_KIND)
    company = np.vstack([np.full(3, np.nan), taken[0].numbers])
    alone = maker.transform([None], [None])[0]
    np.testing.assert_array_equal(alone[0], maker.transform(company, [None] * len(company))[0][0])
    assert np.isfinite(alone).all()


def test_fitting_twice_gives_the_same() -> None:
    taken = history()
    once, again = (FeatureMaker.fitted(NAMES, taken, EVERY_KIND) for _ in range(2))
    for (_, first), (_, second) in zip(
        once.numerics(taken, taken[0].items), again.numerics(taken, taken[0].items), strict=True
    ):
        np.testing.assert_array_equal(first, second)
    assert once.report() == again.report()


def test_items_without_a_number_that_drops_take_no_part_in_fitting() -> None:
    values = np.array([[1.0, 2.0], [3.0, 4.0], [np.nan, 1000.0]])
    taken = Snapshot(0.0, ["a", "b", "c"], values, [[], [], []])
    options = {"columns": {"price": {"missing": "drop", "scale": "none"}, "weight": {"scale": "none"}}}
    maker = FeatureMaker.fitted([("price", "number"), ("weight", "number")], [taken], options)
    assert FeatureMaker.from_bytes(maker.to_bytes()).dropped == ("c",)
    assert maker.report()["dropped"] == 1
    assert maker.transform([[None, None]], [[]])[0].tolist() == [[2.0, 3.0, 1.0]]


def test_columns_that_drop_everything_are_refused() -> None:
    taken = Snapshot(0.0, ["a", "b"], np.array([[1.0, np.nan], [np.nan, 1.0]]), [[], []])
    options = {"columns": {"price": {"missing": "drop"}, "weight": {"missing": "drop"}}}
    with pytest.raises(ConfigurationError, match=r"'drop' \(price, weight\): choose another"):
        FeatureMaker.fitted([("price", "number"), ("weight", "number")], [taken], options)


@pytest.mark.parametrize("missing", ["drop", "mean", "median", "mode", "constant", "interpolate", "predict"])
@pytest.mark.parametrize("scale", ["quantile", "standard", "none"])
@pytest.mark.parametrize("rows", [0, 1, 5])
def test_columns_without_any_number_are_zero(missing: str, scale: str, rows: int) -> None:
    options = {"columns": {"price": {"missing": missing, "scale": scale}}}
    values = np.column_stack([np.full(rows, np.nan), np.arange(rows), np.full(rows, 7.0)])
    taken = snapshot(values)
    maker = FeatureMaker.from_bytes(FeatureMaker.fitted(NAMES, [taken], options).to_bytes())
    made = prepared(maker, taken)
    assert made.shape == (rows, 4 if rows else 3)
    assert not made[:, 0].any()
    assert np.isfinite(maker.transform([[4.0, None, 1e9], None], [None, None])[0]).all()


def test_no_items_and_no_numbers_are_no_trouble() -> None:
    empty = Snapshot(0.0, [], np.array([]), [])
    maker = FeatureMaker.fitted(NAMES, [empty], {})
    assert maker.numerics([empty], [])[0][1].shape == (0, 3)
    assert maker.codes(empty, []).shape == (0, 2)
    nothing = FeatureMaker.from_bytes(FeatureMaker.fitted([], [empty], {}).to_bytes())
    assert nothing.numerics([empty], ["a"]) == ()
    made, codes = nothing.transform(np.zeros((2, 0)), [[], []])
    assert made.shape == codes.shape == (2, 0)


def test_labels_become_codes_and_unknown_ones_zero() -> None:
    taken = snapshot(numbers(6))
    maker = FeatureMaker.from_bytes(FeatureMaker.fitted(NAMES, [taken], {}).to_bytes())
    assert maker.label_sizes == (4, 2)
    assert maker.codes(taken, ["item 2", "gone", "item 1"]).tolist() == [[3, 1], [0, 0], [2, 0]]
    codes = maker.transform([None] * 3, [["brand 0", "red"], ["brand 9", None], None])[1]
    assert codes.tolist() == [[1, 1], [0, 0], [0, 0]]
    assert codes.dtype == np.int64


def test_features_go_by_their_names() -> None:
    read = ["stock", "age", "price", "size", "price", "brand"]  # three numbers, and a label called like one of them
    numbers, labels = arranged(NAMES, read, [[7.0, 2.0, 1.0], None], [["large", "low", "brand 0"], None])
    np.testing.assert_array_equal(numbers, [[1.0, np.nan, 2.0], [np.nan] * 3])
    assert labels == [["brand 0", None], [None, None]]


def test_features_of_which_none_was_read_are_missing() -> None:
    numbers, labels = arranged(NAMES, [], [None], [None])
    assert np.isnan(numbers).tolist() == [[True] * 3]
    assert labels == [[None, None]]
    numbers, labels = arranged(NAMES, ["colour"], [[]], [["red"]])
    assert np.isnan(numbers).tolist() == [[True] * 3]
    assert labels == [[None, "red"]]
    numbers, labels = arranged([], ["price", "colour"], [[1.0]], [["red"]])
    assert numbers.shape == (1, 0)
    assert labels == [[]]


def test_an_item_that_a_snapshot_lacks_misses_every_number() -> None:
    taken = snapshot(numbers(20))
    maker = FeatureMaker.fitted(NAMES, [taken], {})
    made = maker.numerics([taken], ["gone", "item 3"])[0][1]
    np.testing.assert_array_equal(made, maker.transform([None, taken.numbers[3].tolist()], [None, None])[0])
    assert made[0, 3:].tolist() == [1.0, 1.0, 1.0]


def test_the_report_says_what_was_done_to_each_column() -> None:
    values = [*np.arange(100.0), 1e6, np.nan, np.inf]
    maker, _ = one_column(values, missing="mean", scale="standard")
    assert maker.report() == {
        "numbers": {
            "price": {
                "rows": 103,
                "missing": 2,
                "imputed": "mean",
                "fill": pytest.approx((4950 + 950) / 101),
                "scale": "standard",
                "low": -850.0,
                "high": 950.0,
                "clipped": 1,
            }
        },
        "labels": {},
        "dropped": 0,
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (3, r"features cannot be 3"),
        ({"price": {}}, r"features\.price cannot be \{\}"),
        (
            {"columns": {"price": {"missing": "guess"}}},
            r"features\.columns\.price\.missing cannot be 'guess': .*'drop'",
        ),
        ({"columns": {"price": {"scale": "log"}}}, r"features\.columns\.price\.scale cannot be 'log': .*'quantile'"),
        ({"columns": {"price": {"fill": "0"}}}, r"features\.columns\.price\.fill cannot be '0'"),
        ({"columns": {"price": {"fill": float("nan")}}}, r"features\.columns\.price\.fill cannot be nan"),
        (
            {"columns": {"price": {"fill": 3}}},
            r"features\.columns\.price cannot be \{'fill': 3\}: .*\"missing\": \"constant\"",
        ),
        (
            {"columns": {"price": {"fill": 0, "missing": "mean"}}},
            r"features\.columns\.price cannot be .* both or neither",
        ),
        ({"columns": {"price": {"clip": 3}}}, r"features\.columns\.price\.clip cannot be 3"),
        ({"columns": {"brand": {}}}, r"no column of numbers 'brand', choose from price, weight, age"),
    ],
)
def test_options_that_cannot_be_used_are_refused(options: object, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        FeatureMaker.fitted(NAMES, [snapshot(numbers(5))], options)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no archive",
        skops.io.dumps({"about": PurePath("/")}),  # of a type that is not trusted
        skops.io.dumps({"something": "else"}),
        skops.io.dumps([1, 2]),
    ],
    ids=["empty", "garbage", "untrusted", "another", "a list"],
)
def test_what_is_not_features_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="not the features of a model"):
        FeatureMaker.from_bytes(content)
