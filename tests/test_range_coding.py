"""The range coder of labels: exact, near the entropy, and suspicious of what it reads."""

import math

import constriction
import format_reader
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weightlab.packing import range_coding


def entropy_bytes(labels):
    p = np.bincount(labels) / len(labels)
    return -(p[p > 0] * np.log2(p[p > 0])).sum() * len(labels) / 8


def skewed(n, k, seed=0):
    """Labels of k clusters whose sizes fall off geometrically, as those of weights around zero do."""
    p = 0.6 ** np.arange(k)
    labels = np.random.default_rng(seed).choice(k, n, p=p / p.sum())
    labels[:k] = np.arange(k)
    return labels.astype(np.uint8 if k <= 256 else np.uint16)


@settings(max_examples=40)  # the other reader is slow
@given(st.lists(st.integers(0, 40), min_size=2, max_size=400).filter(lambda labels: len(set(labels)) > 1), st.integers(1, 1600))
def test_labels_come_back(labels, factor):
    labels = (np.array(labels) * factor).astype(np.uint16)
    stored = range_coding.encode(labels)
    read = range_coding.decode(stored, len(labels))
    assert read is not None and np.array_equal(read, labels)
    assert np.array_equal(format_reader.range_labels(stored.tobytes(), len(labels)), labels)


@pytest.mark.parametrize(("n", "k"), [(48_000, 3), (48_000, 10), (200_000, 33), (400_000, 200)])
def test_the_stream_is_within_half_a_percent_of_the_entropy_and_no_longer_than_another_coders(n, k):
    labels = skewed(n, k)
    size = len(range_coding.encode(labels))
    assert size <= 1.005 * entropy_bytes(labels) + 2 * k + 7
    p = np.bincount(labels).astype(np.float64)
    coder = constriction.stream.queue.RangeEncoder()
    coder.encode(labels.astype(np.int32), constriction.stream.model.Categorical(p / p.sum(), perfect=False))
    assert size - 2 * k - 7 <= 1.005 * 4 * len(coder.get_compressed())


def test_rare_labels_keep_a_count_and_counts_add_up():
    occurrences = np.array([1_000_000, 1, 0, 3, 1, 2_000_000])
    for scale in range_coding.SCALES:
        counts = range_coding.scaled(occurrences, scale)
        assert counts.sum() == 1 << scale and ((counts > 0) == (occurrences > 0)).all()
    many = np.ones(4096, dtype=np.int64)
    many[0] = 100_000
    assert range_coding.scaled(many, 12).tolist() == [1] * 4096


@given(st.data())
def test_what_is_not_n_labels_is_refused_or_read_exactly(given):
    labels = skewed(500, 6, given.draw(st.integers(0, 5)))
    stored = bytearray(range_coding.encode(labels).tobytes())
    for _ in range(given.draw(st.integers(1, 3))):
        stored[given.draw(st.integers(0, len(stored) - 1))] ^= 1 << given.draw(st.integers(0, 7))
    read = range_coding.decode(np.frombuffer(bytes(stored), np.uint8), len(labels))
    assert read is None or len(read) == len(labels)


def test_other_lengths_are_refused():
    labels = skewed(500, 6)
    stored = range_coding.encode(labels)
    longer = np.append(stored, np.uint8(0))
    for wrong, n in ((stored[:-1], 500), (longer, 500), (stored, 499), (stored, 501), (stored[:5], 500), (stored[:0], 500)):
        assert range_coding.decode(wrong, n) is None
        with pytest.raises(ValueError):
            format_reader.range_labels(wrong.tobytes(), n)
    for at, value in ((0, 11), (0, 17), (1, 200), (2, 255)):
        changed = stored.copy()
        changed[at] = value
        assert range_coding.decode(changed, 500) is None


def test_a_label_takes_hardly_more_than_its_share_of_bits():
    labels = np.repeat(np.arange(2, dtype=np.uint8), [9_990, 10])
    assert len(range_coding.encode(labels)) <= math.ceil(entropy_bytes(labels)) + 12
