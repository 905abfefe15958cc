"""Number formats, value by value, against independent sources: CPython's struct, ml_dtypes, and the thesis's table 2.4 spelled out."""

import itertools
import struct
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weightlab import formats
from weightlab.errors import UserError

NAMES = list(formats.FORMATS)
finite = st.floats(-(2.0**99), 2.0**99, width=32)
small = st.floats(-20, 20, width=32)


def rounded(name, values):
    return formats.get(name).round(np.asarray(values, dtype=np.float32))


def halves():
    """All finite half-precision numbers, float32, ascending (63 487 with one zero)."""
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    return np.unique(every[np.isfinite(every)].astype(np.float32))


def e4m3_values():
    """All finite OCP E4M3 numbers, float32, ascending, decoded by ml_dtypes."""
    every = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    return np.unique(every[np.isfinite(every)])


def thesis_values():
    """The thesis's float8 bit by bit (table 2.4), exact fractions, ascending: exponent 15 unused, no bias, least exponent 1/16."""
    values = set()
    for bits in range(256):
        sign, exponent, mantissa = bits >> 7, bits >> 3 & 15, bits & 7
        if exponent == 15:
            continue
        size = Fraction(mantissa, 16) if exponent == 0 else Fraction(8 + mantissa, 16) * 2**exponent
        values.add(-size if sign else size)
    return sorted(values)


def nearest_in_thesis(value):
    """By comparing all distances; `min` keeps the first of equals, which is the smaller value."""
    value = Fraction(float(value))
    return float(min(thesis_values(), key=lambda candidate: abs(candidate - value)))


# --- float16 --------------------------------------------------------------------------------------------------------------------


def test_float16_keeps_every_half():
    values = halves()
    assert len(values) == 2 * 31 * 1024 - 1  # 31 exponents, two signs, one zero
    np.testing.assert_array_equal(rounded("float16", values), values)


def test_float16_takes_midpoints_to_the_even_neighbour():
    """The midpoint of two neighbouring halves goes to the one whose bit pattern is even; a hair beside it goes to the nearer one."""
    bits = np.arange(0x7BFF, dtype=np.uint16)  # all positive finite halves but the largest
    low, high = (pattern.view(np.float16).astype(np.float32) for pattern in (bits, bits + np.uint16(1)))
    middle = (low + high) / 2  # exact: float32 has 13 more bits
    even = np.where(bits % 2 == 0, low, high)
    for sign in (1, -1):
        np.testing.assert_array_equal(rounded("float16", sign * middle), sign * even)
        np.testing.assert_array_equal(rounded("float16", sign * np.nextafter(middle, 0, dtype=np.float32)), sign * low)
        np.testing.assert_array_equal(rounded("float16", sign * np.nextafter(middle, np.inf, dtype=np.float32)), sign * high)


@given(st.floats(-65504, 65504, width=32))
def test_float16_equals_pythons_own_half(value):
    assert rounded("float16", [value])[0] == struct.unpack("e", struct.pack("e", value))[0]


def test_float16_saturates():
    np.testing.assert_array_equal(rounded("float16", [65504, 65519, 65520, 1e9, -1e38]), [65504] * 4 + [-65504])


# --- float8_e4m3 ----------------------------------------------------------------------------------------------------------------


def test_e4m3_has_253_values_and_keeps_them():
    values = e4m3_values()
    assert len(values) == 253 and values.max() == 448 and values[values > 0].min() == 2**-9
    np.testing.assert_array_equal(rounded("float8_e4m3", values), values)


def test_e4m3_equals_ml_dtypes_in_range():
    every = halves()
    random = np.random.default_rng(1).uniform(-448, 448, 20_000).astype(np.float32)
    tiny = np.random.default_rng(2).normal(0, 2**-8, 20_000).astype(np.float32)
    values = e4m3_values()
    middle = (values[:-1] + values[1:]) / 2
    for given_values in (every[np.abs(every) <= 448], random, tiny, middle):
        expected = given_values.astype(ml_dtypes.float8_e4m3fn).astype(np.float32)
        np.testing.assert_array_equal(rounded("float8_e4m3", given_values), expected)


def test_e4m3_saturates_at_448():
    np.testing.assert_array_equal(rounded("float8_e4m3", [448, 449, 464, 465, 1e30, -500]), [448] * 5 + [-448])


# --- float8_thesis --------------------------------------------------------------------------------------------------------------


def test_thesis_float8_has_the_239_values_of_its_table():
    values = [float(value) for value in thesis_values()]
    assert len(values) == 239 and values[-1] == 15_360 and min(v for v in values if v > 0) == 0.0625
    assert not [value for value in values if 0.4375 < value < 1]
    np.testing.assert_array_equal(rounded("float8_thesis", values), values)
    dense = np.concatenate([np.linspace(-16_000, 16_000, 200_001), np.linspace(-3, 3, 20_001)])
    np.testing.assert_array_equal(np.unique(rounded("float8_thesis", dense)), values)  # all are reached, and nothing else


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.03125, 0),
        (0.05, 0.0625),
        (0.7, 0.4375),
        (0.71875, 0.4375),
        (0.72, 1),
        (-0.71875, -1),
        (1.0625, 1),
        (1e6, 15_360),
        (-1e6, -15_360),
    ],
)
def test_thesis_float8_check_values(value, expected):
    assert rounded("float8_thesis", [value])[0] == expected


@given(st.one_of(small, st.floats(-16_000, 16_000, width=32)))
def test_thesis_float8_is_the_nearest_value(value):
    assert rounded("float8_thesis", [value])[0] == nearest_in_thesis(value)


def test_thesis_float8_takes_every_tie_to_the_smaller_value():
    values = [float(value) for value in thesis_values()]
    middle = [(low + high) / 2 for low, high in itertools.pairwise(values)]
    np.testing.assert_array_equal(rounded("float8_thesis", middle), values[:-1])


# --- all formats ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "bits"), [("float32", 32), ("float16", 16), ("float8_e4m3", 8), ("float8_thesis", 8)])
def test_bits_of_a_value(name, bits):
    assert formats.get(name).bits == bits


@pytest.mark.parametrize("name", NAMES)
@given(values=st.lists(st.one_of(finite, small), min_size=1, max_size=30))
def test_rounding_is_monotone_idempotent_and_leaves_its_argument_alone(name, values):
    given_values = np.sort(np.array(values, dtype=np.float32))
    before = given_values.copy()
    once = rounded(name, given_values)
    assert once.dtype == np.float32 and (np.diff(once) >= 0).all()
    np.testing.assert_array_equal(rounded(name, once), once)
    assert not np.shares_memory(once, given_values)
    np.testing.assert_array_equal(given_values, before)


@given(finite)
def test_float32_changes_nothing(value):
    assert rounded("float32", [value])[0] == np.float32(value)


@pytest.mark.parametrize("name", ["float8", "FLOAT32", "", "int8"])
def test_unknown_format_names_the_value_and_what_is_allowed(name):
    with pytest.raises(UserError, match=rf"unknown format '{name}'; allowed: float32, float16, float8_e4m3, float8_thesis"):
        formats.get(name)
