"""Training a staged model: from the tables of its recommender to a model that begins its backfill."""

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import fields
from typing import Any

import structlog
from pydantic import TypeAdapter, ValidationError

from dynrec_store import models, queue
from dynrec_store.exceptions import ConfigurationError, DynrecError
from dynrec_store.models import Training
from dynrec_store.queue import Connection
from dynrec_store.settings import Settings as StoreSettings
from workers.device import torch_device
from workers.learning.artefact import Model, from_artefacts, to_artefacts
from workers.learning.features import FeatureMaker
from workers.learning.fit import fit
from workers.learning.serving import transitions_of
from workers.learning.settings import Settings
from workers.learning.source import FEATURES, read_sources

Progress = Callable[[str, float], None]  # what is being done, and how much of it is done (0 to 1)

PREPARING, PROMOTE = "features", "promote"  # the parts of a model's options that are not of Settings

log = structlog.get_logger(__name__)


def train(
    settings: StoreSettings,
    url: str,
    recommender: str,
    *,
    options: Mapping[str, object] = {},
    continue_active: bool = False,
    base_model: int | None = None,
    progress: Progress = lambda _stage, _done: None,
) -> int:
    """Stage a model of a recommender, train it here, and store it; returns its number. Its backfill has begun then.

    `options`: fields of workers.learning.settings.Settings, and `features`, see FeatureMaker. `base_model`: the content
    space that it is made of, None for the one in use. Raises ConfigurationError for an option that is unknown or of
    the wrong type, UnknownNameError for the recommender.
    """
    training_settings(options)
    with closing(queue.connect(url, application_name="dynrec train")) as connection:
        model = models.stage_model(
            connection, recommender, options, continue_active=continue_active, base_model=base_model
        )
        if models.lock_training(connection, model):
            train_staged(connection, settings, model, progress)
        return model


def train_staged(connection: Connection, settings: StoreSettings, model: int, progress: Progress) -> None:
    """Train a staged model whose lock this connection holds; what goes wrong is noted with the model, and raised."""
    training = models.begin_training(connection, model)
    try:
        _train(connection, settings, model, training, progress)
    except (DynrecError, ValueError, RuntimeError) as error:  # torch and scikit-learn raise the latter two
        models.fail_training(connection, model, f"{type(error).__name__}: {error}")
        raise


def training_settings(options: Mapping[str, object], base: Settings | None = None) -> Settings:
    """The hyper-parameters that a model's options give; ConfigurationError names the option that cannot be used."""
    given = {name: value for name, value in options.items() if name not in (PREPARING, PROMOTE)}
    names = {field.name for field in fields(Settings)}
    if unknown := sorted(given.keys() - names):
        raise ConfigurationError(f"there is no training option {unknown[0]!r}: choose from {', '.join(sorted(names))}")
    values = {field.name: getattr(base or Settings(), field.name) for field in fields(Settings)}
    try:
        return TypeAdapter(Settings).validate_python(values | given)
    except ValidationError as error:
        fault = error.errors()[0]
        raise ConfigurationError(
            f"training option {fault['loc'][0]} cannot be {fault['input']!r}: {fault['msg']}"
        ) from error


def _train(connection: Connection, settings: StoreSettings, model: int, training: Training, progress: Progress) -> None:
    previous, known = _previous(connection, training)
    progress("reading", 0.0)
    preparing = training.options.get(PREPARING, {})
    sources = read_sources(connection, model, training, preparing, known)
    if not sources.data.items:
        raise ConfigurationError(
            f"the items of recommender {training.recommender!r} have no vectors yet: let the workers finish first, "
            "`dynrec status` shows what waits"
        )
    log.info(
        "training",
        recommender=training.recommender,
        model=model,
        interactions=len(sources.data.user),
        items=len(sources.data.items),
    )
    fitted = fit(
        sources.data,
        training_settings(training.options, previous.settings if previous else None),
        previous=previous,
        device=str(torch_device(settings.device)),
        progress=progress,
    )
    models.store_model(
        connection,
        model,
        _dimension(fitted.config),
        config=fitted.config,
        metrics=_summary(fitted.metrics),
        report={"interactions": sources.report.as_dict(), "features": sources.features.report()},
        files=to_artefacts(fitted) | {FEATURES: sources.features.to_bytes()},
        transitions=transitions_of(fitted),
    )


def _previous(connection: Connection, training: Training) -> tuple[Model | None, FeatureMaker | None]:
    """The model that training goes on from, with its features: they are made as before.

    Raises ConfigurationError if it was retired.
    """
    if training.parent_model_id is None:
        return None, None
    files = models.artefacts(connection, training.parent_model_id)
    if not files:
        raise ConfigurationError(
            f"model version {training.parent_model_id}, which the training goes on from, was retired: stage another"
        )
    return from_artefacts(files), FeatureMaker.from_bytes(files[FEATURES])


def _dimension(config: Mapping[str, Any]) -> int:
    return int(config["learned"]) + int(config["content"]) + 1


def _summary(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The figures with one number in front for each model: the mean nDCG@10 of lists and next turns."""
    summary = dict(metrics)
    if (ours := _mean(metrics)) is not None:
        summary["ndcg_at_10"] = ours
    if (theirs := _mean(metrics.get("previous", {}))) is not None:
        summary["active"] = {"ndcg_at_10": theirs}
    return summary


def _mean(metrics: Mapping[str, Any]) -> float | None:
    figures = [metrics[sort]["ndcg_at_10"] for sort in ("lists", "turns") if sort in metrics]
    return sum(figures) / len(figures) if figures else None
