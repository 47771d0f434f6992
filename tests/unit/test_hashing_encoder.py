"""Hashed n-grams, and what all encoders share."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.encoders import Vectors, content_hash
from workers.encoders.base import unit_rows
from workers.encoders.hashing import HashingEncoder


def run_python(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def assert_sound(vectors: Vectors, texts: int, dimension: int) -> None:
    assert vectors.shape == (texts, dimension)
    assert vectors.dtype == np.float32
    lengths = np.linalg.norm(vectors, axis=1)
    assert np.all((np.abs(lengths - 1) < 1e-5) | (lengths == 0))


@given(st.lists(st.text(max_size=40), max_size=8), st.integers(1, 300))
def test_hashed_texts_are_sound(texts: list[str], dimension: int) -> None:
    encoder = HashingEncoder(dimension)
    vectors = encoder.encode(texts)
    assert_sound(vectors, len(texts), dimension)
    assert all(np.array_equal(encoder.encode([text])[0], row) for text, row in zip(texts, vectors, strict=True))


def test_hashed_blanks_are_zero() -> None:
    assert not HashingEncoder(256).encode(["", " \n"]).any()


def test_hashed_texts_that_share_words_are_near() -> None:
    apple, apples, tyre = HashingEncoder(256).encode(["red apple", "Red apples", "car tyre"])
    assert apple @ apples > 0.6
    assert abs(apple @ tyre) < 0.3


def test_hashed_texts_are_equal_in_every_process() -> None:
    code = (
        "import hashlib; from workers.encoders.hashing import HashingEncoder;"
        "print(hashlib.sha256(HashingEncoder(256).encode(['red apple', 'thé ☕']).tobytes()).hexdigest())"
    )
    here = hashlib.sha256(HashingEncoder(256).encode(["red apple", "thé ☕"]).tobytes()).hexdigest()
    assert {run_python(code, PYTHONHASHSEED=seed) for seed in ("1", "2")} == {here}


def test_hashing_and_the_package_itself_need_no_torch() -> None:
    code = (
        "import sys; from dynrec_store.settings import Settings; from workers.encoders import load_encoder;"
        "print(load_encoder('hashing', '', 64, Settings()).encode(['tea']).shape, 'torch' in sys.modules)"
    )
    assert run_python(code) == "(1, 64) False"


def test_the_hash_is_that_of_the_utf8_text() -> None:
    assert content_hash("thé ☕").hex() == hashlib.sha256("thé ☕".encode()).hexdigest()
    assert len({content_hash(text) for text in ("", " ", "\ud800", "\ud801", "?")}) == 5


def test_rows_of_any_magnitude_become_unit_rows() -> None:
    rows = unit_rows(np.array([[3e38, 3e38], [1e-40, 0], [0, 0], [-3, 4]]), "test")
    assert rows == pytest.approx(np.array([[0.5**0.5, 0.5**0.5], [1, 0], [0, 0], [-0.6, 0.8]]), abs=1e-6)
