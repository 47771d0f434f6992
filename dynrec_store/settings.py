"""Settings, read from the environment (prefix DYNREC_) and from a file .env in the working directory."""

import os
from pathlib import Path
from typing import Annotated, Literal

import platformdirs
from pydantic import Field, PositiveInt, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from dynrec_store.exceptions import ConfigurationError


def default_data_dir() -> Path:
    """Where the embedded server keeps its data: below /var/lib for root, else in the user's data folder."""
    if os.name == "posix" and os.geteuid() == 0:
        return Path("/var/lib/dynrec")
    return platformdirs.user_data_path("dynrec")


Seconds = Annotated[float, Field(gt=0, le=86_400)]  # up to a day; infinity and what is no number are refused by that


class Settings(BaseSettings):
    """What can be set, in one place. An unset `database_url` means the embedded server."""

    model_config = SettingsConfigDict(
        env_prefix="DYNREC_", env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True
    )

    database_url: SecretStr | None = None
    database_password_file: Path | None = None  # holds the password, where database_url has none
    broker_url: str = "memory://"  # any Celery broker; memory:// runs everything in one process
    data_dir: Path = Field(default_factory=default_data_dir)

    device: str = "auto"  # auto, cpu, cuda, cuda:1, mps
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    batch_size: Annotated[int, Field(ge=1, le=10_000)] = 1024  # entities in a claim
    lease_seconds: Seconds = 60.0  # after that, others may take a claim over
    hang_seconds: Seconds = 600.0  # a worker whose model has computed one batch for so long ends itself
    max_parallel_hints: PositiveInt = 4  # messages in flight for each recommender and kind

    poll_seconds: Seconds = 0.005  # pause between looks at the queue while writers are active
    sleep_seconds: Seconds = 1.0  # longest wait for a notification in an idle system
    sweep_seconds: Seconds = 5.0  # pause between searches for expired leases and due retries

    kafka_brokers: str | None = None  # host:port, several separated by commas
    kafka_topic: str = "dynrec"  # {recommender} and {kind} in it stand for what an event is about
    kafka_options: SecretStr | None = None  # JSON: further properties of the client, such as security.protocol
    kafka_password_file: Path | None = None  # holds sasl.password

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["console", "json"] = "console"
    otlp_endpoint: str | None = None  # where traces go, such as http://collector:4318; unset: no traces


def load_settings() -> Settings:
    """Read the settings; a ConfigurationError names each variable that has no usable value."""
    try:
        return Settings()
    except ValidationError as error:
        problems = "\n".join(
            f"  DYNREC_{'_'.join(map(str, e['loc'])).upper()}={e['input']!r}: {e['msg']}" for e in error.errors()
        )
        raise ConfigurationError(f"these settings cannot be used:\n{problems}") from error
