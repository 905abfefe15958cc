"""Independent, recorded random generators derived from one seed."""

import hashlib

import numpy as np


def derive(seed: int, *names: object) -> np.random.Generator:
    """A generator that depends on `seed` and `names` only, so that an additional draw in one place changes nothing elsewhere."""
    digest = hashlib.sha256("/".join(map(str, names)).encode()).digest()
    words = np.frombuffer(digest, dtype="<u4").tolist()
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *words])))


def permutation(seed: int, name: str, n: int) -> np.ndarray:
    """A permutation of range(n), int64 (n,), the same on every machine and in every version of numpy.

    The numbers are ordered by the SHA-256 of "seed/name/number", because numpy promises no fixed stream.

    >>> permutation(42, "halves", 5)
    array([4, 2, 3, 0, 1])
    """
    keys = [hashlib.sha256(f"{seed}/{name}/{i}".encode()).digest() for i in range(n)]
    return np.array(sorted(range(n), key=keys.__getitem__), dtype=np.int64)
