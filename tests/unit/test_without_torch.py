"""What an installation with the extra `dispatcher` can start: no package of a model is there."""

import subprocess
import sys

import pytest

PROGRAM = """
import importlib, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"onnx", "onnxruntime", "scipy", "sentence_transformers", "sklearn", "torch", "transformers"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
importlib.import_module(sys.argv[1])
"""


@pytest.mark.parametrize("module", ["dynrec_store.cli", "dynrec_store.migrate", "workers.dispatcher", "workers.health"])
def test_no_model_is_imported(module: str) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, module], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
