"""Training a staged model: from the tables of its recommender to a model that begins its backfill."""

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

import structlog
import tenacity

from dynrec_store import models, queue
from dynrec_store.exceptions import BusyError, ConfigurationError, ConnectionFailedError
from dynrec_store.models import Training
from dynrec_store.queue import Connection
from dynrec_store.settings import Settings as StoreSettings
from workers.device import torch_device
from workers.exceptions import TrainingError
from workers.learning.artefact import Model, from_artefacts, to_artefacts
from workers.learning.continuing import check_unchanged
from workers.learning.features import FeatureMaker
from workers.learning.fit import fit
from workers.learning.serving import transitions_of
from workers.learning.settings import PREPARING, SMALLEST, training_settings
from workers.learning.source import FEATURES, read_sources

Progress = Callable[[str, float], None]  # what is being done, and how much of it is done (0 to 1)

WAITING = ("staged", "training")  # the states of a model that is yet to be trained
ATTEMPTS = 3  # trainings of a model that may end with their process before nobody tries it again
LOOK_AGAIN = 1.0  # seconds between looks at what another trains
STORING = 600.0  # seconds for which a trained model waits for locks that others hold

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
    space that it is made of, None for the one in use. Where a worker was faster to take the model, its training is
    waited for. Raises ConfigurationError for an option that cannot be used, UnknownNameError for the recommender,
    TrainingError for what failed elsewhere.
    """
    training_settings(options, SMALLEST if continue_active else None)  # what it goes on from is not known here
    with closing(queue.connect(url, application_name="dynrec train")) as connection:
        model = models.stage_model(
            connection, recommender, options, continue_active=continue_active, base_model=base_model
        )
        while not models.lock_training(connection, model):
            progress("waiting for the worker that trains it", 0.0)
            time.sleep(LOOK_AGAIN)
        outcome = models.training_outcome(connection, model)
        if outcome.state == "failed":
            raise TrainingError(f"the worker that took model version {model} could not train it: {outcome.error}")
        if outcome.state in WAITING:
            train_staged(connection, settings, model, progress)
        return model


def train_staged(connection: Connection, settings: StoreSettings, model: int, progress: Progress) -> None:
    """Train a staged model whose lock this connection holds.

    Whatever goes wrong is noted with the model, and raised, but for ConnectionFailedError: another try can succeed.
    """
    training = models.begin_training(connection, model)
    try:
        _check_attempts(training)
        _train(connection, settings, model, training, progress)
    except ConnectionFailedError:
        raise
    except Exception as error:  # an error that is not noted would have the model trained for ever
        models.fail_training(connection, model, f"{type(error).__name__}: {error}")
        raise


def _check_attempts(training: Training) -> None:
    if training.attempts > ATTEMPTS:
        raise TrainingError(
            f"{ATTEMPTS} trainings of this model were begun and none came to an end: each time the process was killed, "
            "by a lack of memory perhaps, which its log or the kernel's tells. Give workers of the queue train more "
            "memory, or the model smaller options batch, ease_items and transition_items, and stage another"
        )


def _train(connection: Connection, settings: StoreSettings, model: int, training: Training, progress: Progress) -> None:
    previous, known = _previous(connection, training)
    chosen = training_settings(training.options, previous.settings if previous else None)
    if previous:
        check_unchanged(chosen, previous.settings, training.parent_model_id)
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
        chosen,
        previous=previous,
        device=str(torch_device(settings.device)),
        progress=progress,
    )
    patiently = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(BusyError),
        wait=tenacity.wait_random_exponential(multiplier=0.1, max=10),
        stop=tenacity.stop_after_delay(STORING),
        reraise=True,
    )
    patiently(
        models.store_model,
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
