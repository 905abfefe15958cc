"""The adaptive coder of labels: exact, near the entropy of columns, and suspicious of what it reads."""

import format_reader
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_range_coding import entropy_bytes, skewed

from weightlab.packing import adaptive_coding, parts, range_coding


def with_columns(rows, columns, seed=0):
    """Labels, of which some columns are nearly always 0 and others seldom."""
    generator = np.random.default_rng(seed)
    return generator.binomial(4, generator.beta(0.2, 1, columns), (rows, columns)).astype(np.uint8).ravel()


def both(stored, n):
    """What the two readers say, None if they refuse."""
    read = adaptive_coding.decode(stored, n)
    try:
        other = format_reader.adaptive_labels(stored.tobytes(), n)
    except ValueError:
        other = None
    assert (read is None) == (other is None) and (read is None or np.array_equal(read, other))
    return read


@settings(max_examples=60)
@given(st.lists(st.integers(0, 255), min_size=1, max_size=300), st.integers(1, 12))
def test_labels_come_back(numbers, columns):
    labels = np.array(numbers, dtype=np.uint8)
    stored = adaptive_coding.encode(labels, columns)
    assert stored is not None and np.array_equal(both(stored, len(labels)), labels)


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 40))
def test_columns_come_back(seed, rows, columns):
    labels = with_columns(rows, columns, seed)
    for inertia in (1, 4, 12):
        stored = adaptive_coding._encoded(labels, int(labels.max()) + 1, inertia, columns)
        assert np.array_equal(both(stored, len(labels)), labels)


def test_bytes_before_are_carried_into():
    """Labels whose range lies at the top again and again make bytes of 255, which a carry turns over."""
    for seed in range(200):
        labels = np.full(400, 1, dtype=np.uint8)
        labels[np.random.default_rng(seed).integers(0, 400, 3)] = 0
        labels[-1] = 2
        assert np.array_equal(adaptive_coding.decode(adaptive_coding.encode(labels), 400), labels)


@pytest.mark.parametrize(("n", "k"), [(48_000, 3), (48_000, 10), (200_000, 33), (400_000, 200)])
def test_without_columns_the_stream_is_near_the_entropy(n, k):
    labels = skewed(n, k)
    assert len(adaptive_coding.encode(labels)) <= 1.002 * entropy_bytes(labels) + 2 * k + 8


def test_columns_save_what_they_know():
    labels = with_columns(120, 400)
    adaptive, static = len(adaptive_coding.encode(labels, 400)), len(range_coding.encode(labels))
    assert adaptive < 0.85 * static
    assert parts.coded(labels, 3, list(parts.CODINGS), 400)[0] == "adaptive"


def test_what_it_cannot_hold_is_left_to_others():
    many = np.arange(300, dtype=np.uint16)
    assert adaptive_coding.encode(many) is None and parts.coded(many, 9, list(parts.CODINGS))[0] != "adaptive"
    one = np.zeros(1000, dtype=np.uint8)
    assert np.array_equal(adaptive_coding.decode(adaptive_coding.encode(one), 1000), one)


@given(st.data())
def test_what_is_not_n_labels_is_refused_or_read_alike(given):
    labels = with_columns(20, 20, given.draw(st.integers(0, 5)))
    stored = adaptive_coding.encode(labels, 20)
    for _ in range(given.draw(st.integers(1, 3))):
        stored[given.draw(st.integers(0, len(stored) - 1))] ^= 1 << given.draw(st.integers(0, 7))
    both(stored, len(labels))


def test_other_lengths_and_heads_are_refused():
    labels = with_columns(20, 20)
    stored = adaptive_coding.encode(labels, 20)
    for wrong in (np.append(stored, np.uint8(0)), np.append(stored, np.uint8(1)), stored[:3], stored[:0]):
        assert both(wrong, 400) is None
    assert both(stored, 401) is None and adaptive_coding.decode(stored, (1 << 24) + 1) is None
    assert stored[1] > 0
    for at, value in ((1, 0), (1, 13), (2, 0), (2, 19), (3, 1)):
        changed = stored.copy()
        changed[at] = value
        assert both(changed, 400) is None
