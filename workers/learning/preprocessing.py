"""Numbers of items as towers can read them: nothing missing, nothing beyond bounds, one scale."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, cast

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from scipy.special import ndtri
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_iterative_imputer  # noqa: F401  without it there is no IterativeImputer
from sklearn.impute import IterativeImputer, SimpleImputer
from sklearn.preprocessing import QuantileTransformer, StandardScaler

from dynrec_store.exceptions import ConfigurationError
from workers.learning.cleaning import LARGEST, finite, robust_bounds
from workers.learning.data import Flags, Floats, Integers, Times

LIMIT = 3.0  # of what is scaled, in standard deviations: what is beyond all that was seen goes no farther
QUANTILES = 1000  # kept of a column, at most
PREDICTED_FROM = 10_000  # rows that a predictor is fitted to, at most
OUTERMOST = 1e-7 - np.spacing(1)  # quantile, as of scikit-learn: of the least that was seen, one less of the greatest

Missing = Literal["drop", "mean", "median", "mode", "constant", "interpolate", "predict"]
Scale = Literal["quantile", "standard", "none"]
STRATEGIES = {"mean": "mean", "mode": "most_frequent"}  # SimpleImputer's names; every other falls back to the median


class ColumnOptions(BaseModel):
    """How a column of numbers is prepared.

    `missing`: `drop` (the item takes no part in fitting; when serving it has the median), `mean`, `median`, `mode`,
    `constant` (`fill`), `interpolate` (the item's last number that was known by then), `predict` (the other columns).
    `scale`: `quantile` (to a normal distribution), `standard` (mean 0, standard deviation 1) or `none`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    missing: Missing = "median"
    scale: Scale = "quantile"
    fill: Annotated[float, Field(strict=True, ge=-LARGEST, le=LARGEST)] = 0.0

    @model_validator(mode="after")
    def _fill_is_used(self) -> Self:
        if "fill" in self.model_fields_set and self.missing != "constant":
            raise ValueError('fill is the number for "missing": "constant", give both or neither')
        return self


class FeatureOptions(BaseModel):
    """The `features` of a model's options: columns that are prepared in another way than the default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: dict[str, ColumnOptions] = {}


def column_options(options: object, numbers: Sequence[str]) -> list[ColumnOptions]:
    """Return the options of each column of numbers.

    `options`: `{"columns": {name: {"missing": …, "scale": …, "fill": …}}}`, every part of which can be left out.
    Raises ConfigurationError for anything else, and for a name that is not among `numbers`.
    """
    try:
        columns = FeatureOptions.model_validate(options).columns
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in ("features", *fault["loc"]))
        raise ConfigurationError(
            f"option {where} cannot be {fault['input']!r}: {fault['msg']}; the form is "
            '{"columns": {name: {"missing": …, "scale": …, "fill": …}}}'
        ) from error
    if unknown := sorted(columns.keys() - set(numbers)):
        raise ConfigurationError(
            f"option features.columns: there is no column of numbers {unknown[0]!r}, choose from "
            f"{', '.join(numbers) or 'none: the items have no numbers'}"
        )
    return [columns.get(name, ColumnOptions()) for name in numbers]


@dataclass(frozen=True)
class Column:
    """What was fitted to one column of numbers."""

    name: str
    missing: Missing
    scale: Scale
    low: float  # bounds; the same: the column never varied
    high: float
    fill: float  # for what nothing better is known for
    rows: int  # of all items at all moments
    absent: int  # rows without a finite number
    clipped: int  # rows beyond the bounds

    @classmethod
    def fitted(cls, name: str, options: ColumnOptions, values: Times, kept: Flags) -> "Column":
        """Fit to those of the finite numbers (n,) that are kept (n,); NaN where there is none."""
        known = values[kept & ~np.isnan(values)]
        low, high = robust_bounds(known) if len(known) else (0.0, 0.0)
        return cls(
            name,
            options.missing,
            options.scale,
            low,
            high,
            fill=_fill(options, np.clip(known, low, high)),
            rows=len(values),
            absent=int(np.isnan(values).sum()),
            clipped=int(np.sum((values < low) | (values > high))),
        )

    @property
    def imputed(self) -> str:
        """How missing values were replaced."""
        return "zero" if self.absent == self.rows else self.missing

    @property
    def scaled(self) -> bool:
        """Whether there is a scale: what never varied has none, and is 0 throughout."""
        return self.scale != "none" and self.low < self.high


def _fill(options: ColumnOptions, known: Times) -> float:
    if not len(known):
        return 0.0
    if options.missing == "constant":
        return options.fill
    imputer = SimpleImputer(strategy=STRATEGIES.get(options.missing, "median")).fit(known[:, None])
    return float(imputer.statistics_[0])


@dataclass(frozen=True)
class Numbers:
    """Prepares the numbers of items: F columns become F + I, a flag for each of the I that had missing values.

    Rows are prepared each for itself: the same numbers give the same result in any company.
    """

    columns: tuple[Column, ...]
    sources: Integers  # columns that the predictor reads; none: there is no predictor
    predictor: Any  # a fitted IterativeImputer, or None
    quantile: Any  # a fitted QuantileTransformer (uniform) for the columns of scale "quantile", or None
    standard: Any  # a fitted StandardScaler for those and the columns of scale "standard", or None
    limit: float = LIMIT  # of what is scaled, in standard deviations

    @classmethod
    def fitted(cls, names: Sequence[str], options: Sequence[ColumnOptions], numbers: Times) -> "Numbers":
        """Fit to the rows (n, F) of items at any moments, NaN where a number is missing.

        Raises ConfigurationError where columns that drop items leave none.
        """
        numbers = finite(numbers)
        kept = ~dropped(options, numbers)
        if len(kept) and not kept.any():
            raise ConfigurationError(
                "option features.columns: every item lacks a number in one of the columns whose missing is 'drop' "
                f"({', '.join(_of(names, options, 'drop'))}): choose another for one of them"
            )
        columns = tuple(
            Column.fitted(name, given, values, kept)
            for name, given, values in zip(names, options, numbers.T, strict=True)
        )
        bounded = _clip(columns, numbers[kept])
        sources, predictor = _predictor(columns, bounded)
        return cls(columns, sources, predictor, *_scalers(columns, bounded))

    @property
    def flagged(self) -> list[int]:
        """The columns that had missing values."""
        return [place for place, column in enumerate(self.columns) if column.absent]

    def prepare(self, numbers: Times, remembered: Times) -> Floats:
        """Return the rows (n, F) prepared (n, F + I), float32 without NaN.

        `remembered` (n, F): what stands in for missing numbers before anything else is tried, NaN for nothing.
        """
        numbers = finite(numbers)
        missing = np.isnan(numbers)
        filled = self._filled(_clip(self.columns, np.where(missing, remembered, numbers)))
        return np.hstack([self._scaled(filled), missing[:, self.flagged]]).astype(np.float32)

    def _filled(self, numbers: Times) -> Times:
        if self.predictor is not None:
            numbers = np.where(np.isnan(numbers), self._predicted(numbers), numbers)
        return np.where(np.isnan(numbers), [column.fill for column in self.columns], numbers)

    def _predicted(self, numbers: Times) -> Times:
        predicted = np.full_like(numbers, np.nan)
        # of a row where nothing is known scikit-learn says one thing alone and another among others
        rows = np.flatnonzero(~np.isnan(numbers[:, self.sources]).all(axis=1))
        if len(rows):
            predicted[np.ix_(rows, self.sources)] = self.predictor.transform(numbers[np.ix_(rows, self.sources)])
        others = [place for place, column in enumerate(self.columns) if column.missing != "predict"]
        predicted[:, others] = np.nan
        return predicted

    def _scaled(self, numbers: Times) -> Times:
        scaled = numbers.copy()
        quantile, both = _scaled_columns(self.columns)
        if len(numbers) and quantile:
            scaled[:, quantile] = _normal(self.quantile.transform(scaled[:, quantile]))
        if len(numbers) and both:
            scaled[:, both] = np.clip(self.standard.transform(scaled[:, both]), -self.limit, self.limit)
        still = [place for place, column in enumerate(self.columns) if column.scale != "none" and not column.scaled]
        scaled[:, still] = 0.0
        return scaled

    def report(self) -> dict[str, Mapping[str, object]]:
        """Return for each column what was missing, how it was replaced, and the bounds."""
        return {
            column.name: {
                "rows": column.rows,
                "missing": column.absent,
                "imputed": column.imputed,
                "fill": column.fill,
                "scale": column.scale,
                "low": column.low,
                "high": column.high,
                "clipped": column.clipped,
            }
            for column in self.columns
        }


def dropped(options: Sequence[ColumnOptions], numbers: Times) -> Flags:
    """Return which rows (n, F) take no part in fitting: a column that drops has no number there, but elsewhere."""
    missing = np.isnan(finite(numbers))
    drops = np.array([given.missing == "drop" for given in options], dtype=np.bool_)
    return cast("Flags", (missing & drops & ~missing.all(axis=0)).any(axis=1))


def _of(names: Sequence[str], options: Sequence[ColumnOptions], missing: Missing) -> list[str]:
    return [name for name, given in zip(names, options, strict=True) if given.missing == missing]


def _clip(columns: Sequence[Column], numbers: Times) -> Times:
    return np.clip(numbers, [column.low for column in columns], [column.high for column in columns])


def _scaled_columns(columns: Sequence[Column]) -> tuple[list[int], list[int]]:
    """Return the columns that get quantiles, and those that are standardised: the same and more."""
    scaled = [place for place, column in enumerate(columns) if column.scaled]
    return [place for place in scaled if columns[place].scale == "quantile"], scaled


def _scalers(columns: Sequence[Column], numbers: Times) -> tuple[Any, Any]:
    """Fit both to what is known (n, F): what was imputed says nothing of how a column is distributed.

    Quantiles are standardised as well: where most items share the least or the greatest number, it gets the far end.
    """
    quantile, both = _scaled_columns(columns)
    transformer = scaler = None
    numbers = numbers.copy()
    if quantile:
        kept = min(QUANTILES, len(numbers))
        transformer = QuantileTransformer(n_quantiles=kept, subsample=None)
        numbers[:, quantile] = _normal(transformer.fit_transform(numbers[:, quantile]))
    if both:
        scaler = StandardScaler().fit(numbers[:, both])
    return transformer, scaler


def _normal(quantiles: Times) -> Times:
    """Return where quantiles (n, F) lie in a normal distribution.

    Just what scikit-learn's output_distribution="normal" gives, for all columns at once: one row takes .4 ms of ten
    columns and not 3.7, on its way to a fresh vector.
    """
    return cast("Times", ndtri(np.clip(quantiles, OUTERMOST, 1 - OUTERMOST)))


def _predictor(columns: Sequence[Column], numbers: Times) -> tuple[Integers, Any]:
    """Return the columns that predict each other and what does it; none if there are not two, or none is asked for."""
    rows = np.arange(len(numbers))
    if len(rows) > PREDICTED_FROM:
        rows = np.sort(np.random.default_rng(0).choice(rows, PREDICTED_FROM, replace=False))
    sample = numbers[rows]
    varying = np.array([len(np.unique(values[~np.isnan(values)])) > 1 for values in sample.T], dtype=np.bool_)
    sources = np.flatnonzero(varying)
    read = [columns[place] for place in sources.tolist()]
    if len(read) < 2 or not any(column.missing == "predict" for column in read):
        return np.zeros(0, dtype=np.int64), None
    predictor = IterativeImputer(
        initial_strategy="median",
        min_value=[column.low for column in read],
        max_value=[column.high for column in read],
        random_state=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # ten rounds are enough for a guess
        predictor.fit(sample[:, sources])
    return sources, predictor
