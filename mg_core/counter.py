"""Counter-based random numbers: a draw depends on its key, and never on earlier draws.

A resumed trial therefore draws the same numbers as an uninterrupted one, and its checkpoints need
no state of a generator.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


def digest(*key: int | str) -> int:
    """Return 64 well-mixed bits of a key such as `(seed, "shuffle", epoch)`."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in key)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def generator(*key: int | str) -> np.random.Generator:
    """Return a fresh Philox generator for a key (Salmon et al., 2011)."""
    return np.random.Generator(np.random.Philox(key=digest(*key)))


def permutation(length: int, *key: int | str) -> NDArray[np.int64]:
    """Return a random permutation of `range(length)`."""
    return generator(*key).permutation(length)


def uniforms(length: int, *key: int | str) -> NDArray[np.float64]:
    """Return one number in [0, 1) for each of `length` samples; entry i belongs to sample i."""
    return generator(*key).random(length)
