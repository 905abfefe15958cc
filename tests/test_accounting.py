"""Rates of plans: the published figures, and bits counted by writing the labels out.

Published values have four decimals, some rounded and some truncated, so everything published is compared at 1e-4.
"""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weightlab import accounting, formats
from weightlab.errors import UserError

LENET5 = np.array([150, 2_400, 48_000, 10_080, 840])
PUBLISHED_FORMATS = {"float32": "float32", "float16": "float16", "float8": "float8_thesis"}


def published_close(value):
    return pytest.approx(value, abs=1e-4)


def with_plan(table, column):
    """Rows of a published table whose plan is known: (plan, format, row)."""
    for _, row in table.dropna(subset=[column]).iterrows():
        name = PUBLISHED_FORMATS[row.get("quantization", "float32")]
        yield np.array(json.loads(row[column])), name, row


# --- published figures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plan", "format", "layer_mean", "thesis_model", "storage"),
    [
        ([3, 3, 8, 2, 2], "float32", 19.94281, 12.2453, 12.2484),
        ([3, 5, 3, 2, 2], "float16", 20.54513, 17.1508, 17.1554),
        ([3, 35, 3, 2, 2], "float8_thesis", 19.79398, 16.0961, 16.1259),
        ([3, 4, 6, 4, 7], "float32", 12.75298, 11.3959, 11.4000),
        ([2, 6, 8, 11, 4], "float16", 14.10837, 10.1424, 10.1474),
        ([2, 50, 10, 21, 4], "float8_e4m3", 12.72919, 7.5719, 7.5852),
    ],
)
def test_rates_of_known_plans(plan, format, layer_mean, thesis_model, storage):
    assert accounting.layer_mean_rate(LENET5, plan, format) == published_close(layer_mean)
    assert accounting.thesis_model_rate(LENET5, plan, format) == published_close(thesis_model)
    assert accounting.storage_rate(LENET5, plan, format) == published_close(storage)


def test_layer_rates_behind_a_layer_mean():
    """A layer alone has its own rate of equation 3.2."""
    rates = [accounting.layer_mean_rate([p], [k], "float32") for p, k in zip(LENET5, [3, 3, 8, 2, 2], strict=True)]
    np.testing.assert_allclose(rates, [11.9403, 15.6671, 10.6460, 31.7918, 29.6689], atol=1e-4)


def test_whole_net_of_six_clusters_with_and_without_the_byte_slip():
    assert accounting.thesis_model_rate([61_470], [6], "float32") == published_close(10.65453)
    assert accounting.thesis_model_rate([61_470], [6], "float32", published_byte_slip=True) == published_close(10.66424)


def test_mobilenet_with_64_clusters_everywhere(published):
    weights = published("table_B_4_mobilenet_layers")["weights_count"].to_numpy()
    assert len(weights) == 53 and weights.sum() == 3_469_760
    plan = [64] * 53
    assert accounting.layer_mean_rate(weights, plan, "float32") == published_close(4.8543)
    assert accounting.storage_rate(weights, plan, "float32") == published_close(5.3057)


def test_table_5_3_in_both_forms(published):
    """The published column charges bytes where bits are meant; the corrected one follows equation 3.2."""
    table = published("table_5_3_total_sharing")
    assert len(table) == 24
    for format, rows in table.groupby("quantization"):
        plans, name = rows["clusters"].to_numpy()[:, None], PUBLISHED_FORMATS[format]
        slipped = accounting.thesis_model_rate([61_470], plans, name, published_byte_slip=True)
        np.testing.assert_allclose(slipped, rows["compression_rate_ratio"], rtol=0, atol=1e-4)
        corrected = accounting.thesis_model_rate([61_470], plans, name)
        np.testing.assert_allclose(corrected, rows["compression_rate_corrected_bits_ratio"], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("table", "column", "count"),
    [
        ("table_5_9_and_B_1_fine_tuning", "clusters_per_layer", 6),
        ("table_5_7_target_results", "clusters_from_log", 8),
        ("table_5_8_quantization_results", "clusters_from_log", 18),
    ],
)
def test_published_rates_of_every_known_plan(published, table, column, count):
    rows = list(with_plan(published(table), column))
    assert len(rows) == count
    for plan, format, row in rows:
        assert accounting.layer_mean_rate(LENET5, plan, format) == published_close(row["compression_rate_ratio"]), list(plan)
        size_weighted = row["compression_rate_size_weighted_ratio"]
        assert accounting.thesis_model_rate(LENET5, plan, format) == published_close(size_weighted), list(plan)
        if "compression_rate_recomputed_unweighted_mean_ratio" in row:
            recomputed = row["compression_rate_recomputed_unweighted_mean_ratio"]
            assert accounting.layer_mean_rate(LENET5, plan, format) == published_close(recomputed)


# --- bits counted by writing them -----------------------------------------------------------------------------------------------


def written(weights, k, value_bits):
    """A layer written as text of 0 and 1: a key for each weight, each as long as the longest, then k values of any content."""
    width = 0 if k == 1 else len(bin(k - 1)[2:])
    keys = "".join(bin(i % k)[2:].zfill(width) if width else "" for i in range(weights))
    return keys + "0" * value_bits * k


layer_lists = st.lists(st.tuples(st.integers(1, 400), st.integers(1, 300)), min_size=1, max_size=5)


@given(layer_lists, st.sampled_from(list(formats.FORMATS)))
def test_stored_bits_are_those_of_a_layer_written_out(layers, format):
    weights, plan = np.array(layers).T
    lengths = [len(written(p, k, formats.get(format).bits)) for p, k in layers]
    np.testing.assert_array_equal(accounting.stored_bits(weights, plan, format), lengths)
    assert accounting.storage_rate(weights, plan, format) == pytest.approx(32 * sum(weights) / sum(lengths), rel=1e-12)


@given(layer_lists, st.sampled_from(list(formats.FORMATS)))
def test_the_thesiss_rates_add_a_key_column_and_never_go_below_one_bit(layers, format):
    """Equation 3.2: the table stores key and value, and one cluster still costs a bit a weight."""
    weights, plan = np.array(layers).T
    denominators = []
    for p, k in layers:
        key = max(1, len(bin(k - 1)[2:]))
        denominators.append(p * key + k * (key + formats.get(format).bits))
    rates = [32 * p / bits for p, bits in zip(weights, denominators, strict=True)]
    assert accounting.layer_mean_rate(weights, plan, format) == pytest.approx(sum(rates) / len(rates), rel=1e-12)
    whole = 32 * sum(weights) / sum(denominators)
    assert accounting.thesis_model_rate(weights, plan, format) == pytest.approx(whole, rel=1e-12)


def test_key_bits_of_every_allowed_k():
    ks = np.arange(1, 65_537)
    np.testing.assert_array_equal(accounting.key_bits(ks), [(int(k) - 1).bit_length() for k in ks])


# --- shapes ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [accounting.storage_rate, accounting.layer_mean_rate, accounting.thesis_model_rate])
def test_a_population_gets_the_rates_of_its_plans(rate):
    plans = np.random.default_rng(0).integers(1, 51, (7, 5))
    rates = rate(LENET5, plans, "float16")
    assert rates.shape == (7,)
    np.testing.assert_array_equal(rates, [rate(LENET5, plan, "float16") for plan in plans])
    assert rate(LENET5, plans.reshape(7, 1, 5), "float16").shape == (7, 1)


def test_stored_bits_of_a_population():
    bits = accounting.stored_bits(LENET5, np.ones((3, 5), dtype=int), "float8_e4m3")
    assert bits.shape == (3, 5) and bits.dtype == np.int64 and (bits == 8).all()  # k = 1: no keys, one value


def test_more_bits_a_value_or_more_clusters_never_compress_better():
    plans = np.array([[k] * 5 for k in range(1, 51)])
    for rate in (accounting.storage_rate, accounting.layer_mean_rate, accounting.thesis_model_rate):
        assert (np.diff(rate(LENET5, plans, "float32")) < 0).all()
        assert (rate(LENET5, plans, "float32") < rate(LENET5, plans, "float16")).all()


def test_unknown_format_is_an_error():
    with pytest.raises(UserError, match="unknown format 'float8'"):
        accounting.storage_rate(LENET5, [1] * 5, "float8")
