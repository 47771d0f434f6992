"""Options that stand for settings. The environment is read by the settings alone; an option takes its place."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic import ValidationError

from dynrec_store.settings import Settings, load_settings


def _setting(name: str, text: str) -> Any:  # noqa: ANN401 - as typer.Option says
    default = Settings.model_fields[name].default
    return typer.Option(
        f"--{name.replace('_', '-')}",
        help=f"{text} \\[env var: DYNREC_{name.upper()}]",
        show_default=default if isinstance(default, str) else False,
    )


DatabaseUrl = Annotated[
    str | None, _setting("database_url", "The database, postgresql://…; without one, the embedded server is used.")
]
DataDir = Annotated[Path | None, _setting("data_dir", "The folder of the embedded server.")]
BrokerUrl = Annotated[str | None, _setting("broker_url", "The message broker: redis://… or any other of Celery.")]
Device = Annotated[str | None, _setting("device", "Where models run: auto, cpu, cuda, cuda:1, mps.")]
Precision = Annotated[
    Literal["auto", "float32", "bfloat16"] | None, _setting("precision", "In which numbers models compute.")
]
BatchSize = Annotated[int | None, _setting("batch_size", "Items or users that are recomputed at once.")]
LeaseSeconds = Annotated[
    float | None, _setting("lease_seconds", "After how long others may take over what a worker has begun.")
]
LogLevel = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"] | None, _setting("log_level", "How much is logged.")]
LogFormat = Annotated[Literal["console", "json"] | None, _setting("log_format", "How it is logged.")]

KafkaBrokers = Annotated[str | None, _setting("kafka_brokers", "Kafka: host:port, several separated by commas.")]
KafkaTopic = Annotated[
    str | None,
    _setting("kafka_topic", "Where events go; {recommender} and {kind} in it stand for what they are about."),
]

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.", envvar="DYNREC_JSON")]


def settings_of(**given: object) -> Settings:
    """The settings, with the options that were given (not None) in their place; BadParameter names a bad one."""
    chosen = {name: value for name, value in given.items() if value is not None}
    settings = load_settings()
    try:
        return Settings.model_validate({**dict(settings), **chosen})
    except ValidationError as error:
        first = error.errors()[0]
        option = f"--{str(first['loc'][0]).replace('_', '-')}"
        raise typer.BadParameter(f"{first['input']!r}: {first['msg']}", param_hint=option) from error
