"""Tables of approximate multipliers: generated designs, folders of tables, their errors, weight tuning and factors."""

import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from weightlab.compression.multipliers import designs, metrics, tables
from weightlab.compression.multipliers.tables import Library, Multiplier
from weightlab.errors import UserError

PRODUCT = np.outer(np.arange(256), np.arange(256))
GENERATED = tables.generated()
FOLDER = os.environ.get(tables.VARIABLE)
HERE = Path(__file__).parent / "data"
evoapprox = pytest.mark.skipif(
    not FOLDER, reason=f"{tables.VARIABLE} names no folder with tables of EvoApprox8b (ehw-fit/tf-approximate)"
)

# Mean and largest absolute error follow from the weights of the partial products that are left out: each is set in a quarter of all products.
DROPPED = {
    **{f"trunc{k}": [2**c for c in range(k) for _ in range(c + 1)] for k in range(1, 9)},
    **{
        f"bam{h}_{v}": [2 ** (i + j) for i in range(8) for j in range(8) if i + j < v or j < h]
        for h, v in [(1, 4), (2, 5), (3, 7), (4, 8), (4, 9), (5, 10)]
    },
    **{f"operand{t}": [2 ** (i + j) for i in range(8) for j in range(8) if i < t or j < t] for t in range(1, 6)},
}


def table(name: str) -> np.ndarray:
    return GENERATED.multipliers[GENERATED.names.index(name)].table


@pytest.mark.parametrize("name", DROPPED)
def test_dropped_partial_products_are_the_whole_error(name):
    errors = metrics.errors(table(name))
    assert errors["mae"] == -errors["mean_error"] == sum(DROPPED[name]) / 4
    assert errors["wce"] == sum(DROPPED[name])


@pytest.mark.parametrize(
    ("name", "mae", "wce", "mre", "rank"),
    [
        ("trunc2", "1.25", 5, "0.08", 2),
        ("trunc4", "12.25", 49, "0.56", 4),
        ("trunc6", "80.25", 321, "2.64", 6),
        ("trunc8", "448.25", 1793, "9.78", 8),
        ("bam1_4", "72.25", 289, "1.72", 4),
        ("bam2_5", "208.25", 833, "4.20", 4),
        ("bam3_7", "544.25", 2177, "9.86", 5),
        ("bam4_8", "1152.25", 4609, "17.6", 5),
        ("operand1", "127.25", 509, "2.65", 2),
        ("operand2", "380.25", 1521, "7.00", 2),
        ("operand3", "880.25", 3521, "14.12", 2),
        ("operand4", "1856.25", 7425, "25.4", 2),
        ("drum3", "1847", 14849, "12.1", 2),
        ("drum4", "926", 7425, "5.89", 2),
        ("drum5", "465", 3904, "2.84", 2),
        ("drum6", "233", 2000, "1.30", 2),
        ("mitchell", "606.4", 4096, "3.79", 127),
        ("kulkarni", "903.1", 14450, "3.28", 1),
        ("or4", "3.34", 34, "0.10", 11),
        ("or6", "32.8", 258, "0.68", 57),
        ("or8", "230", 1538, "2.95", 247),
    ],
)
def test_errors_of_designs_are_the_known_ones(name, mae, wce, mre, rank):
    errors = metrics.errors(table(name))
    assert as_printed(errors["mae"], mae) and as_printed(errors["mre_pct"], mre), errors
    assert (errors["wce"], errors["rank"]) == (wce, rank)
    assert errors["zero_row"] == errors["zero_column"] == 0


def as_printed(value: float, text: str) -> bool:
    """A value is what was printed with so many digits; a tie may have gone either way."""
    mantissa, _, exponent = text.partition("e")
    unit = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
    return abs(value - float(text)) <= unit / 2 + 1e-9


def test_a_broken_array_leaves_low_bits_of_the_second_operand_out():
    assert np.array_equal(table("bam5_10")[:, :32], np.zeros((256, 32)))
    assert table("bam5_10")[:32].any()


def test_mitchell_never_exceeds_the_product_and_stays_within_a_ninth_of_it():
    below = PRODUCT - table("mitchell").astype(int)
    assert below.min() == 0
    assert (below[PRODUCT > 0] / PRODUCT[PRODUCT > 0]).max() == pytest.approx(1 / 9, abs=1e-12)  # at 3 x 3 among others


def test_drum_is_exact_where_nothing_is_cut_off():
    for k in range(3, 8):
        assert np.array_equal(table(f"drum{k}")[: 1 << k, : 1 << k], PRODUCT[: 1 << k, : 1 << k])


def test_two_bits_after_kulkarni_are_wrong_only_in_three_times_three():
    expected = PRODUCT[:4, :4].copy()
    expected[3, 3] = 7
    assert np.array_equal(table("kulkarni")[:4, :4], expected)


def test_or_takes_the_place_of_adders_in_low_columns():
    low = table("or4")[:4, :4]  # 3 x 3: the middle column has two bits, of which one is left
    assert low[3, 3] == 0b111 and low[1, 3] == 3


def test_gates_and_power_of_the_exact_array():
    gates = designs.exact().gates
    assert gates == designs.Gates(ands=168, xors=104, ors=48)
    assert gates.power_mw == pytest.approx(0.00074 * 168 + 0.00268 * 104)
    assert round(gates.power_mw, 2) == 0.40


def test_gates_of_a_smaller_array_are_those_of_its_size():
    """Of n x n bits: n^2 partial products, n half adders and n^2 - 2 n full ones."""
    for t in range(6):
        n = 8 - t
        adders = designs.HALF_ADDER * n + designs.FULL_ADDER * (n * n - 2 * n)
        assert designs.operand_truncated(t).gates == designs.PARTIAL_PRODUCT * (n * n) + adders


def test_powers_of_designs_spread_and_fall_with_what_is_left_out():
    power = dict(zip(GENERATED.names, GENERATED.power_mw.tolist(), strict=True))
    assert len(power) == 30 and max(power, key=power.get) == "exact"
    assert min(power.values()) < 0.1 * power["exact"]
    for family in (["exact", *(f"trunc{k}" for k in range(1, 9))], ["exact", *(f"operand{t}" for t in range(1, 6))]):
        assert [*map(power.get, family)] == sorted(map(power.get, family), reverse=True)


def test_weight_tuning_changes_nothing_for_the_exact_table_and_never_harms():
    for each in GENERATED.multipliers:
        chosen = metrics.tune_map(each.table)
        untuned = np.abs(each.table.astype(int) - PRODUCT).sum(0)
        tuned = np.abs(each.table.astype(int)[:, chosen] - PRODUCT).sum(0)
        assert chosen.dtype == np.uint8 and (tuned <= untuned).all(), each.name
        assert (chosen[tuned == untuned] == np.arange(256)[tuned == untuned]).all(), each.name
    assert np.array_equal(metrics.tune_map(table("exact")), np.arange(256))


def test_weight_tuning_takes_the_smallest_of_the_best_codes():
    broken = table("exact").copy()
    broken[:, 7] = 60000
    broken[:, 200] = PRODUCT[:, 7]
    broken[:, 100] = PRODUCT[:, 7]
    assert metrics.tune_map(broken)[7] == 100


def test_weight_tuning_equals_the_plain_sum():
    drum = table("bam4_9").astype(int)
    for w in (0, 1, 77, 128, 255):
        sums = [sum(abs(i * w - int(drum[i, other])) for i in range(256)) for other in range(256)]
        assert metrics.tune_map(table("bam4_9"))[w] == (w if sums[w] == min(sums) else sums.index(min(sums)))


def test_weight_tuning_takes_a_moment():
    def seconds() -> float:
        begin = time.thread_time()  # of one thread's work, so that a busy machine does not count
        metrics.tune_map(table("mitchell"))
        return time.thread_time() - begin

    assert min(seconds() for _ in range(5)) < 0.1


def test_factors_give_every_table_back():
    for each in GENERATED.multipliers:
        u, v = metrics.factors(each.table)
        assert u.shape == v.shape and u.dtype == v.dtype == np.float64
        assert np.abs(PRODUCT + u @ v.T - each.table).max(initial=0) < 1e-6


def test_metrics_have_a_row_for_each_multiplier():
    found = metrics.metrics(GENERATED.only(["trunc2", "exact"]))
    assert found.columns.tolist() == [
        *("name", "power_mw", "power_source", "power_pct", "area_um2", "delay_ns"),
        *("mae", "wce", "ep_pct", "mre_pct", "mean_error", "rank", "zero_row", "zero_column"),
    ]
    assert found["name"].tolist() == ["exact", "trunc2"] and found["power_pct"][0] == 100 and found["ep_pct"].tolist() == [0, 50]


def test_errors_of_products_that_are_zero():
    wrong = table("exact").copy()
    wrong[0, 3], wrong[5, 0], wrong[10, 10] = 8, 9, 90
    errors = metrics.errors(wrong)
    assert (errors["zero_row"], errors["zero_column"], errors["wce"]) == (8, 9, 10)
    assert errors["mre_pct"] == pytest.approx(100 * 0.1 / 255**2) and errors["ep_pct"] == pytest.approx(300 / 65536)
    assert errors["mae"] == 27 / 65536 and errors["mean_error"] == 7 / 65536


def test_a_library_has_an_order_and_parts():
    by_power = GENERATED.ordered("power")
    assert by_power.power_mw.tolist() == sorted(GENERATED.power_mw) and by_power.names[-1] == "exact"
    assert by_power.names[by_power.exact] == GENERATED.names[GENERATED.exact] == "exact"
    assert GENERATED.ordered("alphabetical").names == sorted(GENERATED.names)
    equal = Library(tuple(replace(each, power_mw=0.1) for each in GENERATED.multipliers))
    assert equal.ordered("power").names == sorted(GENERATED.names)
    assert GENERATED.without(["exact", "or4"]).names == [name for name in GENERATED.names if name not in ("exact", "or4")]
    assert GENERATED.only({"or4", "exact"}).names == ["exact", "or4"]
    assert by_power.tables.shape == (30, 256, 256) and by_power.tables.dtype == np.uint16
    assert all(np.array_equal(mine, each.table) for mine, each in zip(by_power.tables, by_power.multipliers, strict=True))


def test_the_cheapest_exact_multiplier_counts():
    cheap = Multiplier("cheap", PRODUCT.astype(np.uint16), 0.2, "model")
    assert Library((*GENERATED.multipliers, cheap)).exact == 30


def test_the_identity_tells_libraries_apart():
    exact, other = GENERATED.only(["exact"]), GENERATED.only(["trunc1"])
    (one,) = exact.multipliers
    same = Library((Multiplier("exact", np.asfortranarray(one.table), one.power_mw, "model", 12.0),))
    assert exact.identity == same.identity and len(exact.identity) == 64
    (changed,) = other.multipliers
    rest = [
        replace(one, name="other"),
        replace(one, power_mw=0.5),
        replace(one, power_source="pdk45"),
        replace(one, table=changed.table),
    ]
    assert len({exact.identity, *(Library((each,)).identity for each in rest)}) == 5
    assert GENERATED.identity != GENERATED.ordered("power").identity
    assert exact.describe() == {
        "names": ["exact"],
        "power_mw": [one.power_mw],
        "power_source": "model",
        "identity": exact.identity,
    }


def test_tables_are_copied_and_cannot_be_written():
    mine = PRODUCT.astype(np.uint16)
    kept = Multiplier("mine", mine, 1, "model").table
    mine[3, 3] = 7
    assert kept[3, 3] == 9 and kept.flags.c_contiguous and not kept.flags.writeable and not GENERATED.tables.flags.writeable


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"table": PRODUCT}, "the table of multiplier m must be uint16 of shape (256, 256), got int64 of shape (256, 256)"),
        ({"table": PRODUCT[:16].astype(np.uint16)}, "got uint16 of shape (16, 256)"),
        ({"table": [[0]]}, "got list of shape (1, 1)"),
        ({"name": ""}, "the name of a multiplier must be printable text, got ''"),
        ({"power_mw": -0.1}, "power_mw of multiplier m must be a number of at least 0, got -0.1"),
        ({"power_mw": float("nan")}, "power_mw of multiplier m must be a number of at least 0, got nan"),
        ({"power_mw": "much"}, "power_mw of multiplier m must be a number of at least 0, got 'much'"),
        ({"delay_ns": float("inf")}, "delay_ns of multiplier m must be a number of at least 0, got inf"),
        ({"power_source": "guess"}, "unknown source of power 'guess'; allowed: model, pdk45"),
    ],
)
def test_a_wrong_multiplier_is_refused_in_one_sentence(change, sentence):
    with pytest.raises(UserError) as error:
        Multiplier(**{"name": "m", "table": PRODUCT.astype(np.uint16), "power_mw": 0.4, "power_source": "model"} | change)
    assert sentence in str(error.value) and "\n" not in str(error.value)


def test_a_wrong_library_is_refused_in_one_sentence():
    one, two = GENERATED.only(["exact", "or4"]).multipliers
    wrong = {
        "a library must hold at least one multiplier, got none": lambda: Library(()),
        "names of multipliers must differ, got twice: exact": lambda: Library((one, one, two)),
        "power from a model is never mixed with measured power, got a library of model and pdk45": lambda: Library(
            (one, replace(two, power_source="pdk45"))
        ),
        "unknown multiplier 'or5'; allowed: exact, or4": lambda: Library((one, two)).only(["or5"]),
        "unknown multiplier '199Z'; allowed: exact, or4": lambda: Library((one, two)).without(["199Z"]),
        "names of multipliers must be a list, got the text 'or4'": lambda: Library((one, two)).only("or4"),
        "unknown order of multipliers 'size'; allowed: power, alphabetical": lambda: Library((one, two)).ordered("size"),
        "energies are relative to an exact multiplier, but there is none among or4": lambda: Library((two,)).exact,
        "energies are relative to the exact multiplier exact, whose power must be above 0 mW": lambda: (
            Library((replace(one, power_mw=0),)).exact
        ),
    }
    for sentence, act in wrong.items():
        with pytest.raises(UserError) as error:
            act()
        assert str(error.value) == sentence


@pytest.fixture
def folder(tmp_path):
    """Two multipliers as a folder of tables."""
    for name in ("exact", "bam2_5"):
        (tmp_path / f"mul8u_{name}.bin").write_bytes(table(name).astype("<u2").tobytes())
    (tmp_path / "circuits.csv").write_text("id,power_mw,area_um2,mae\nexact,0.4,700.5,0\nbam2_5,0.25,,208.25\n")
    return tmp_path


def test_a_folder_of_tables_is_read(folder):
    read = tables.load(folder)
    assert read.names == ["bam2_5", "exact"] and read.power_mw.tolist() == [0.25, 0.4] and read.power_source == "pdk45"
    assert np.array_equal(read.multipliers[0].table, table("bam2_5"))
    assert read.multipliers[1].area_um2 == 700.5 and np.isnan([read.multipliers[0].area_um2, read.multipliers[0].delay_ns]).all()


def test_a_source_of_multipliers_is_a_name_a_folder_or_the_environment(folder, monkeypatch):
    monkeypatch.delenv(tables.VARIABLE, raising=False)
    assert tables.library() is tables.library("generated") is GENERATED
    monkeypatch.setenv(tables.VARIABLE, str(folder))
    assert tables.library().names == tables.library(folder).names == ["bam2_5", "exact"]
    assert tables.library("generated") is GENERATED


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("mul8u_exact.bin", b"1234", "{folder}/mul8u_exact.bin must have 131072 bytes, 256 x 256 little-endian uint16, got 4"),
        ("mul8u_exact.bin", None, "{folder}/circuits.csv lists 'exact', but {folder} has no table mul8u_exact.bin"),
        ("mul8u_new.bin", b"", "{folder}/circuits.csv must list every table of its folder, and does not list 'new'"),
        ("circuits.csv", None, "{folder}/circuits.csv is missing, which must list id and power_mw of every table; the tables of Evo"),
        ("circuits.csv", b"", "{folder}/circuits.csv must have the columns id and power_mw, and lacks id and power_mw"),
        ("circuits.csv", b"id,power\nexact,1\n", "{folder}/circuits.csv must have the columns id and power_mw, and lacks power_mw"),
        ("circuits.csv", b"\xff\xfe", "{folder}/circuits.csv must be a table of comma-separated values in UTF-8: "),
        ("circuits.csv", b"id,power_mw\nexact,1\nexact,1\n", "{folder}/circuits.csv must list every table once, and lists 'exact' twice"),
        *(
            ("circuits.csv", f"id,power_mw\nexact,{text}\n".encode(), f"power_mw of exact in {{folder}}/circuits.csv must be a number of at least 0, got '{text}'")
            for text in ("much", "-1", "nan", "inf", "")
        ),
        ("circuits.csv", b"id,power_mw\nexact\n", "power_mw of exact in {folder}/circuits.csv must be a number of at least 0, got None"),
        ("circuits.csv", b"id,power_mw,delay_ns\nexact,1,long\n", "delay_ns of exact in {folder}/circuits.csv must be a number of at least 0, got 'long'"),
    ],
)  # fmt: skip
def test_a_wrong_folder_is_refused_in_one_sentence(folder, file, content, sentence):
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content)
    with pytest.raises(UserError) as error:
        tables.load(folder)
    assert str(error.value).startswith(sentence.format(folder=folder)) and "\n" not in str(error.value)


def test_a_folder_without_tables_says_where_they_are(tmp_path):
    for place, reason in [(tmp_path, "holds no table"), (tmp_path / "nowhere", "is no folder with tables")]:
        with pytest.raises(UserError) as error:
            tables.library(place)
        for part in (
            f"{place} {reason} mul8u_<id>.bin",
            "ehw-fit/tf-approximate",
            "tf2/examples/axmul_8x8",
            "circuits.csv",
            "power_mw",
        ):
            assert part in str(error.value)


def test_two_designs_equal_those_of_another_generator():
    arithmetic = pytest.importorskip("ariths_gen.multi_bit_circuits.approximate_multipliers")
    buses = pytest.importorskip("ariths_gen.wire_components.buses")
    first, second = np.indices((256, 256))

    def computed(kind: str, **cuts: int) -> np.ndarray:
        circuit = getattr(arithmetic, kind)(a=buses.Bus(N=8, prefix="a"), b=buses.Bus(N=8, prefix="b"), **cuts)
        return np.asarray(circuit(first, second))

    assert np.array_equal(computed("UnsignedBrokenArrayMultiplier", horizontal_cut=2, vertical_cut=5), table("bam2_5"))
    assert np.array_equal(computed("UnsignedTruncatedArrayMultiplier", truncation_cut=4), table("operand4"))


@pytest.fixture(scope="module")
def of_evoapprox():
    return tables.load(FOLDER)


@evoapprox
def test_every_table_of_evoapprox_is_read(of_evoapprox):
    assert len(of_evoapprox.names) == 36 and of_evoapprox.tables.shape == (36, 256, 256) and of_evoapprox.power_source == "pdk45"
    assert of_evoapprox.names[of_evoapprox.exact] == "1JFF" and of_evoapprox.ordered("power").names[0] == "199Z"
    assert sum(each.is_exact for each in of_evoapprox.multipliers) == 1


@evoapprox
def test_errors_of_evoapprox_are_those_of_its_headers(of_evoapprox):
    printed = pd.read_csv(Path(FOLDER) / tables.CIRCUITS, dtype=str, keep_default_na=False).set_index("id")
    ranks = pd.read_csv(HERE / "evoapprox_ranks.csv", dtype={"id": str}).set_index("id")["rank"]
    found = metrics.metrics(of_evoapprox).set_index("name")
    assert len(ranks) == len(printed) == len(found) == 36
    for name, row in found.iterrows():
        for column in ("mae", "wce", "ep_pct", "mre_pct", "power_mw", "area_um2", "delay_ns"):
            assert as_printed(row[column], printed[column][name]), (name, column, row[column], printed[column][name])
    assert found["rank"].to_dict() == ranks.to_dict()
    assert found.index[found["zero_row"] + found["zero_column"] > 0].tolist() == ["2AC", "2HH", "2P7"]


@evoapprox
def test_the_first_operand_of_evoapprox_is_the_row(of_evoapprox):
    symmetric = [each.name for each in of_evoapprox.multipliers if np.array_equal(each.table, each.table.T)]
    assert symmetric == ["199Z", "1JFF", "KEM", "Y48"]
    (table,) = (each.table for each in of_evoapprox.multipliers if each.name == "2P7")
    assert table[0].max() == 0 and table[:, 0].max() == 2


@evoapprox
def test_factors_and_tuning_of_evoapprox(of_evoapprox):
    for each in of_evoapprox.multipliers:
        u, v = metrics.factors(each.table)
        assert np.abs(PRODUCT + u @ v.T - each.table).max(initial=0) < 1e-6, each.name
        size = np.abs(each.table.astype(int)[:, metrics.tune_map(each.table)] - PRODUCT).sum(0)
        assert (size <= np.abs(each.table.astype(int) - PRODUCT).sum(0)).all(), each.name


@evoapprox
def test_a_copy_of_evoapprox_without_a_table_is_refused(tmp_path):
    shutil.copytree(FOLDER, tmp_path / "copy")
    (tmp_path / "copy" / "mul8u_1JFF.bin").unlink()
    with pytest.raises(UserError, match="lists '1JFF', but .* has no table mul8u_1JFF.bin"):
        tables.load(tmp_path / "copy")
