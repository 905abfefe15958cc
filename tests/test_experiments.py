"""Sections 5.3, 5.4 and 5.6: what their notebooks save, held against its own records, and the analysis behind their answers."""

import json
import shutil
import subprocess

import nbformat
import numpy as np
import pandas as pd
import pytest
from conftest import tracebacks
from scipy import stats
from sklearn.cluster import KMeans
from warm_python import python

from weightlab import analysis, data, models, runs, sharing, storage
from weightlab.errors import UserError
from weightlab.search.fitness import TargetRule

TARGETS, FORMATS, CLUSTERINGS = "03_dynamic_targets", "04_quantization", "06_clustering"
WEIGHTS = [150, 2400, 48000, 10080, 840]  # of LeNet-5's layers (table 2.1)
BITS = {"float32": 32, "float16": 16, "float8_thesis": 8, "float8_e4m3": 8}


def records(smoke_outputs, name):
    return pd.read_parquet(smoke_outputs(name) / "records.parquet")


def layer_bits(plan, format, least):
    """Equation 3.2 layer by layer, written down a second time: indices, then the table with `least` bits of key at least."""
    keys = [max(least, int(k - 1).bit_length()) for k in plan]
    table = [k * (BITS[format] + key * least) for k, key in zip(plan, keys, strict=True)]
    return np.array([n * key + more for n, key, more in zip(WEIGHTS, keys, table, strict=True)])


def answers(folder):
    """The sentences of a notebook's answer, one per network."""
    cells = nbformat.read(folder / "notebook.ipynb", as_version=4).cells
    answer = cells[[cell.source for cell in cells].index("## Answer") + 1]
    return [output.data["text/markdown"] for output in answer.outputs if "text/markdown" in output.get("data", {})]


def execute(name, own_root, *settings):
    root, environment = own_root
    given = [word for setting in settings for word in ("--set", setting)]
    command = [*python(), "-m", "weightlab", "run", name, "--profile", "smoke", *given]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    return root / "outputs" / "smoke" / name, done


# --- what the notebooks save ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [TARGETS, FORMATS, CLUSTERINGS])
def test_rates_and_losses_follow_from_the_plans(name, smoke_outputs):
    table = records(smoke_outputs, name)
    assert {"network", "format", "method", "search", "seed", "run", "evaluation", "protocol", "objective_rate"} <= set(table)
    for row in table.sample(60, random_state=1).itertuples():
        assert row.layer_mean_rate == pytest.approx(np.mean(32 * np.array(WEIGHTS) / layer_bits(row.plan, row.format, 1)))
        assert row.storage_rate == pytest.approx(32 * sum(WEIGHTS) / layer_bits(row.plan, row.format, 0).sum())
        assert row.loss_pp == row.validation_loss_pp and row.rate == row.layer_mean_rate
    for network, rows in table.groupby("network"):
        for split in ("validation", "test"):  # one unshared network: loss and accuracy add up to the same for all its plans
            unshared = rows[f"{split}_accuracy"] + rows[f"{split}_loss_pp"] / 100
            assert unshared.max() - unshared.min() < 1e-12, network


@pytest.mark.parametrize(("name", "group"), [(TARGETS, "target_type"), (FORMATS, "format"), (CLUSTERINGS, "method")])
def test_the_front_csv_is_what_no_acceptable_or_other_plan_beats(name, group, smoke_outputs):
    table, front = records(smoke_outputs, name), pd.read_csv(smoke_outputs(name) / "front.csv")
    for (network, kind), rows in table.groupby(["network", group]):
        points = set(zip(rows["loss_pp"], rows["layer_mean_rate"], strict=True))
        best = {own for own in points if not any(a <= own[0] and b >= own[1] and (a, b) != own for a, b in points)}
        mine = front[(front["network"] == network) & (front[group] == kind)]
        assert sorted(mine["layer_mean_rate"]) == pytest.approx(sorted(r for _, r in best))
        for plan, rate in zip(mine["plan"], mine["storage_rate"], strict=True):
            plan = json.loads(plan)
            assert rate == pytest.approx(
                32 * sum(WEIGHTS) / layer_bits(plan, mine["format"].iloc[0] if group == "format" else "float32", 0).sum()
            )


@pytest.mark.parametrize(("name", "group", "n"), [(FORMATS, "format", 4), (CLUSTERINGS, "method", 4)])
def test_smoke_runs_leave_enough_points_for_a_regression(name, group, n, smoke_outputs):
    """At least 12 points a group on the fronts of single runs, loss below 1 pp."""
    table = records(smoke_outputs, name)
    counts = {}
    for (network, kind, _), rows in table[table["loss_pp"] < 1].groupby(["network", group, "run"]):
        falling = rows.groupby("layer_mean_rate")["loss_pp"].min().iloc[::-1].cummin().drop_duplicates()
        counts[network, kind] = counts.get((network, kind), 0) + len(falling)
    assert len(counts) == 2 * n and min(counts.values()) >= 12, counts


def test_static_and_extreme_runs_are_shared_between_notebooks(smoke_outputs):
    """Nothing is searched twice: 5.3's static arm is 5.2's, 5.4's float32 and 5.6's exact arm are 5.3's extreme one."""
    of_searches = records(smoke_outputs, "02_optimizers")
    of_targets = records(smoke_outputs, TARGETS)
    of_formats, of_methods = records(smoke_outputs, FORMATS), records(smoke_outputs, CLUSTERINGS)
    static = set(of_targets.loc[of_targets["target_type"] == "static", "run"])
    extreme = set(of_targets.loc[of_targets["target_type"] == "extreme", "run"])
    assert static and static <= set(of_searches["run"])
    assert extreme and extreme <= set(of_formats.loc[of_formats["format"] == "float32", "run"])
    assert set(of_formats.loc[of_formats["format"] == "float32", "run"]) == set(
        of_methods.loc[of_methods["method"] == "exact", "run"]
    )


def test_targets_move_as_their_rule_says(smoke_outputs):
    """Section 4.2, replayed from the records alone."""
    table = records(smoke_outputs, TARGETS)
    moved = 0
    for (kind, _), rows in table[table["target_type"] != "static"].groupby(["target_type", "run"]):
        now = (
            np.array([0.01, 1.0]) if kind.startswith("extreme") else rows[["target_accuracy_start", "target_rate_start"]].iloc[0]
        )
        now = np.array(now, dtype=float)
        for _, generation in rows.groupby("generation"):
            points = generation[["accuracy", "rate"]].to_numpy()
            points = points[(points[:, 0] > 0.97) & (points[:, 1] > 1)]
            for axis, offset in enumerate((0.001, 0.1)):
                if kind.endswith("pointwise"):
                    for value in points[:, axis]:
                        now[axis] = value + offset if value > now[axis] else now[axis]
                elif len(points) and points[:, axis].max() >= now[axis]:
                    now[axis] = points[:, axis].max() + offset
            assert generation[["target_accuracy", "target_rate"]].to_numpy() == pytest.approx(np.tile(now, (len(generation), 1)))
            distance = np.hypot(1 - generation["accuracy"] / now[0], 1 - generation["rate"] / now[1])
            assert generation["fitness"].to_numpy() == pytest.approx((1 / distance).to_numpy())
        moved += not np.allclose(now, rows[["target_accuracy_start", "target_rate_start"]].iloc[0])
    assert moved > 10


def test_every_format_is_searched_in_ranges_of_its_own(smoke_outputs):
    table, scans = records(smoke_outputs, FORMATS), pd.read_parquet(smoke_outputs(FORMATS) / "scans.parquet")
    assert (scans["allowed"] == (scans["validation_accuracy"] >= 0.97)).all()
    lists = {}
    for (network, format), scan in scans.groupby(["network", "format"]):
        allowed = [set(rows.loc[rows["allowed"], "k"]) for _, rows in scan.groupby("layer")]
        plans = np.stack(table.loc[(table["network"] == network) & (table["format"] == format), "plan"])
        assert all(set(column) <= ks for column, ks in zip(plans.T, allowed, strict=True))
        lists[network, format] = allowed
    assert lists["lenet5_relu", "float8_thesis"] != lists["lenet5_relu", "float32"]


def test_timed_work_is_the_same_for_all_methods_and_is_the_real_work(smoke_outputs):
    """Same plans for every method, and the accuracy of a plan clustered anew equals the engine's in the records."""
    table, times = records(smoke_outputs, CLUSTERINGS), pd.read_parquet(smoke_outputs(CLUSTERINGS) / "times.parquet")
    seen = {(r.network, r.method, tuple(r.plan)): r.validation_accuracy for r in table.itertuples()}
    for _, rows in times.groupby("network"):
        plans = {method: sorted(map(tuple, part["plan"])) for method, part in rows.groupby("method")}
        assert len(plans) == 4 and len({tuple(each) for each in plans.values()}) == 1
        assert len(set(plans["exact"])) == len(plans["exact"]) >= 2
    assert (times[["clustering_s", "accuracy_s"]] > 0).all(axis=None)
    shared = [(row.accuracy, seen[row.network, row.method, tuple(row.plan)]) for row in times.itertuples()
              if (row.network, row.method, tuple(row.plan)) in seen]  # fmt: skip
    assert len(shared) >= len(times) / 8 and all(a == b for a, b in shared)


def test_no_method_beats_the_least_inertia(smoke_outputs):
    excess = pd.read_parquet(smoke_outputs(CLUSTERINGS) / "inertia_excess.parquet")
    assert excess["excess_pct"].min() > -1e-3  # float32 centroids
    worst = excess.groupby("method")["excess_pct"].max()
    assert worst["exact"] == 0 and (worst.drop("exact") > 0).all()
    row = excess[(excess["network"] == "lenet5_tanh") & (excess["layer"] == "classifier.2") & (excess["k"] == 6)].set_index(
        "method"
    )
    weights = models.load("lenet5_tanh").state_dict()["classifier.2.weight"].numpy().reshape(-1, 1)
    theirs = KMeans(6, n_init=10, random_state=42).fit(weights).inertia_
    assert row.at["kmeans", "inertia"] == pytest.approx(theirs, rel=1e-4)


# --- answers come from records --------------------------------------------------------------------------------------------------


def test_the_answer_changes_with_the_records(smoke_outputs, own_root):
    """All float16 plans of one network are made unacceptable: the sentences about it change, those about the other do not."""
    before = answers(smoke_outputs(FORMATS))
    root, _ = own_root
    searches = root / "outputs" / "smoke" / "searches"
    shutil.copytree(smoke_outputs(FORMATS).parent / "searches", searches)
    doctored = 0
    for file in searches.glob("*/evaluations.parquet"):
        table = pd.read_parquet(file)
        if table["network"].iloc[0] == "lenet5_tanh" and table["format"].iloc[0] == "float16":
            for column in ("loss_pp", "validation_loss_pp"):
                table[column] += 10
            storage.write_table(table, file.parent, file.stem)  # with its checksum, or it would be put aside as damaged
            doctored += 1
    folder, done = execute(FORMATS, own_root, "seed=1")
    assert doctored == 9 and done.returncode == 0, done.stderr[-2000:]
    after = answers(folder)
    assert "float16 1.00" in after[0] and "float16 1.00" not in before[0]
    assert "significant differences" in after[0] and "over float16" in after[0] and "over float16" not in before[0]
    assert after[1] == before[1]
    best = pd.read_parquet(folder / "best_by_layer_mean_rate.parquet").set_index(["network", "format"])
    assert best.loc[("lenet5_tanh", "float16")].isna()["storage_rate"]


def test_a_format_that_leaves_a_layer_no_k_is_said_and_left_out(own_root):
    """Up to k = 3, the thesis's float8 has no k for a layer of the ReLU network that reaches the threshold."""
    folder, done = execute(FORMATS, own_root, "k_max=3", "images=200", "runs_each=1", "budget=20")
    assert done.returncode == 0, done.stderr[-2000:]
    table = pd.read_parquet(folder / "records.parquet")
    found = table.groupby("network")["format"].unique().map(set)
    assert "float8_thesis" in found["lenet5_tanh"] and found["lenet5_relu"] == set(BITS) - {"float8_thesis"}
    tanh, relu = answers(folder)
    assert "float8 (thesis) was not searched: no k of feature_extractor" in relu and "was not searched" not in tanh


@pytest.mark.parametrize(
    ("name", "setting", "sentence"),
    [
        (TARGETS, "target_types=[static,fast]", "unknown target type 'fast'; allowed: static, preset, extreme"),
        (TARGETS, "target_types=[static,preset_pointwise]", "needs two of static, preset, extreme"),
        (FORMATS, "formats=[float32]", "at least two formats"),
        (FORMATS, "threshold=1.01", "threshold 1.01 is above the accuracy of the unshared network"),
        (CLUSTERINGS, "methods=[kmeans]", "two methods"),
        (CLUSTERINGS, "timed_plans=0", "one plan to time"),
        (CLUSTERINGS, "protocol=published", "got method 'exact'"),
    ],
)
def test_wrong_values_end_the_notebook_with_one_sentence(own_root, name, setting, sentence):
    _, done = execute(name, own_root, setting)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1 and last.startswith("error: ") and sentence in last and not tracebacks(done.stderr)


# --- the functions behind -------------------------------------------------------------------------------------------------------


def made_up():
    """Two runs of two plans each: one run whose splits disagree, one without an acceptable plan on validation."""
    rows = [
        # run, plan, accuracy, rate, validation loss, test loss
        ("a", [2, 2], 0.95, 20.0, 4.0, 3.0),
        ("a", [3, 3], 0.985, 12.0, 0.5, 1.25),
        ("a", [4, 4], 0.988, 8.0, 0.2, 0.76),
        ("b", [2, 2], 0.95, 20.0, 4.0, 0.5),
        ("b", [5, 5], 0.96, 7.0, 3.0, 2.0),
    ]
    table = pd.DataFrame(rows, columns=["run", "plan", "accuracy", "rate", "validation_loss_pp", "test_loss_pp"])
    table["plan"] = [np.array(plan) for plan in table["plan"]]
    return table.assign(
        network="lenet5_tanh", kind="x", loss_pp=table["validation_loss_pp"], layer_mean_rate=table["rate"], storage_rate=table["rate"],
        target_accuracy=[0.99, 0.99, 0.99, 0.98, 0.98], target_rate=[20.1, 20.1, 21.0, 20.0, 24.0], repeated=False,
    )  # fmt: skip


def test_optimism_lets_each_split_choose():
    table = analysis.optimism(made_up(), ["network"], "rate").set_index("chooser")
    assert table.loc["validation", ["runs", "rate", "own_loss_pp", "other_loss_pp", "test_loss_pp"]].tolist() == [
        1,
        12,
        0.5,
        1.25,
        1.25,
    ]
    assert table.loc["test", ["runs", "rate", "own_loss_pp"]].tolist() == [2, 14, 0.63]
    assert table.at["test", "other_loss_pp"] == pytest.approx((0.2 + 4.0) / 2) and table.at["test", "acceptable_elsewhere"] == 0.5


def test_limits_reached_counts_what_the_fitness_misled():
    row = analysis.limits_reached(made_up(), ["network", "kind"], "rate").iloc[0]
    # Against its last target (0.99, 21) the fittest plan of run a is [2, 2]; run b has no acceptable plan at all.
    assert (row["runs"], row["found"], row["misled"]) == (2, 1, 2)
    assert (row["rate"], row["loss_pp"], row["test_loss_pp"]) == (12, 0.5, 1.25)


def test_final_targets_are_the_last_of_each_run():
    row = analysis.final_targets(made_up().assign(loss_pp=100 * (0.99 - made_up()["accuracy"])), ["network", "kind"]).iloc[0]
    assert (row["rate"], row["lowest_rate"], row["highest_rate"]) == (22.5, 21, 24)
    assert row["accuracy"] == pytest.approx(0.985) and row["loss_pp"] == pytest.approx(0.5)


def test_tally_and_rates_of_runs():
    tally = analysis.tally(made_up(), ["network"]).iloc[0]
    assert tally.to_dict() == {"runs": 2, "evaluations": 5, "repeated": 0, "acceptable": 2}
    rates = analysis.rates_of_runs(made_up(), "kind", ["layer_mean_rate"]).set_index("run")
    assert rates["rate"].to_dict() == {"a": 12, "b": 1} and set(rates["group"]) == {"x"}


def test_networks_are_compared_one_by_one():
    rng = np.random.default_rng(1)
    samples = {
        (n, g): rng.normal(s, w, 9) for n, g, s, w in (("p", "a", 0, 1), ("p", "b", 3, 1), ("q", "a", 0, 1), ("q", "b", 0, 9))
    }
    table = pd.DataFrame([{"network": n, "group": g, "rate": v} for (n, g), values in samples.items() for v in values])
    groups, pairs = analysis.compare_networks(table, "group", "rate")
    for (network, group), values in samples.items():
        row = groups[(groups["network"] == network) & (groups["group"] == group)].iloc[0]
        assert row["sd"] == pytest.approx(values.std(ddof=1)) and row["median"] == pytest.approx(np.median(values))
    for row in pairs.itertuples():
        x, y = samples[row.network, row.a], samples[row.network, row.b]
        assert row.p == pytest.approx(stats.mannwhitneyu(x, y).pvalue)
        assert row.p_spread == pytest.approx(stats.levene(x, y, center="median").pvalue)


def test_equal_values_spread_equally():
    table = pd.DataFrame({"network": "p", "group": ["a", "a", "b", "b"], "rate": [2.0, 2.0, 2.0, 2.0]})
    assert analysis.compare_networks(table, "group", "rate")[1]["p_spread"].tolist() == [1]


def test_published_tables_agree_with_themselves_and_with_the_log():
    """Printed rates are those of the logged plans; seven printed accuracies of table 5.7 contradict their loss, six of table 5.8 too."""
    unshared = analysis.published("table_5_1_nets").set_index("network")["baseline_accuracy_pct"]
    wrong = {}
    for name in ("table_5_7_target_results", "table_5_8_quantization_results"):
        table = analysis.published(name)
        formats = table["format"] if "format" in table else pd.Series("float32", table.index)
        for row, format in zip(table.itertuples(), formats, strict=True):
            if isinstance(row.plan_from_log, str):
                plan = json.loads(row.plan_from_log)
                assert np.mean(32 * np.array(WEIGHTS) / layer_bits(plan, format, 1)) == pytest.approx(
                    row.layer_mean_rate, abs=1e-4
                )
                assert 32 * sum(WEIGHTS) / layer_bits(plan, format, 0).sum() == pytest.approx(row.storage_rate, abs=1e-4)
                assert unshared[row.network] - row.accuracy_from_log_pct == pytest.approx(row.loss_pp, abs=0.001)
        wrong[name] = ((table["network"].map(unshared) - table["accuracy_pct"] - table["loss_pp"]).abs() > 0.005).sum()
    assert wrong == {"table_5_7_target_results": 7, "table_5_8_quantization_results": 5}


def test_published_times_give_the_published_ratios():
    printed = analysis.published("table_5_10_clustering_times")
    times = pd.DataFrame({"network": "lenet5_tanh", "method": ["kmeans", "minibatch", "exact"],
                          "clustering_s": [0.3, 0.1, 0.05], "accuracy_s": [0.1, 0.1, 0.1]})  # fmt: skip
    rows = analysis.clustering_times(times, printed).set_index("method")
    assert rows.at["kmeans", "clustering_ratio"] == pytest.approx(3) and rows.at["kmeans", "whole_ratio"] == pytest.approx(2)
    assert rows.at["kmeans", "accuracy_share_pct"] == pytest.approx(25) and rows.at["exact", "clustering_ms"] == pytest.approx(50)
    assert rows.at["kmeans", "published_clustering_ratio"] == pytest.approx(5.68, abs=0.01)
    assert rows.at["kmeans", "published_whole_ratio"] == pytest.approx(1.68, abs=0.01)
    assert np.isnan(rows.at["exact", "published_clustering_ms"])


def test_best_plans_stand_beside_the_highest_printed_row():
    printed = analysis.published("table_5_8_quantization_results")
    mine = pd.DataFrame(
        {"network": ["lenet5_relu", "lenet5_relu"], "format": ["float16", "float8_e4m3"], "layer_mean_rate": [1.0, 2.0]}
    )
    rows = analysis.beside_published(mine, printed, ["network", "format"])
    assert rows["published_layer_mean_rate"].iloc[0] == 14.1083 and np.isnan(rows["published_layer_mean_rate"].iloc[1])


def test_timed_plans_are_measured_as_the_plain_way_does():
    model, split = models.load("lenet5_tanh"), data.load("mnist", "validation").first(100)
    before = model.state_dict()["classifier.2.weight"].clone()
    table = sharing.time_plans(model, np.array([[3, 4, 5, 6, 7], [2, 2, 2, 2, 2]]), split, ["exact", "minibatch"])
    assert len(table) == 4 and (model.state_dict()["classifier.2.weight"] == before).all()
    for row in table.itertuples():
        shared, _ = sharing.share(model, row.plan.tolist(), method=row.method)
        images = split.images.float() / 255
        assert row.accuracy == pytest.approx((shared(images).argmax(1) == split.labels).double().mean().item())
    with pytest.raises(UserError, match="unknown clustering method 'ward'"):
        sharing.time_plans(model, np.array([[2, 2, 2, 2, 2]]), split, ["ward"])


def test_networks_are_timed_side_by_side_and_measured_alike():
    split, plans = data.load("mnist", "validation").first(100), np.array([[3, 4, 5, 6, 7], [2, 2, 2, 2, 2]])
    table = runs.time_plans({"lenet5_tanh": plans, "lenet5_relu": plans[:1]}, split, ["exact", "kmeans"], "float16", workers=2)
    assert table["network"].tolist() == ["lenet5_tanh"] * 4 + ["lenet5_relu"] * 2 and (table["clustering_s"] > 0).all()
    for network, rows in table.groupby("network"):
        alone = sharing.time_plans(models.load(network), np.stack(rows["plan"])[::2], split, ["exact", "kmeans"], "float16")
        assert rows["accuracy"].tolist() == alone["accuracy"].tolist()


def test_inertia_is_measured_against_the_exact_one():
    with pytest.raises(UserError, match="unknown clustering method 'exact'; allowed: kmeans"):
        sharing.inertia_excess({"kmeans": sharing.Codebooks(models.load("lenet5_tanh"), "kmeans")}, [2])


def test_csv_holds_plans_as_lists_and_replaces_as_a_whole(tmp_path):
    table = pd.DataFrame({"plan": [np.array([3, 5]), np.array([2, 2])], "rate": [1 / 3, 2.0]})
    file = storage.write_csv(table, tmp_path, "front")
    again = pd.read_csv(file)
    assert [json.loads(plan) for plan in again["plan"]] == [[3, 5], [2, 2]] and again["rate"].tolist() == table["rate"].tolist()
    assert [each.name for each in tmp_path.iterdir()] == ["front.csv"]


def test_extreme_target_of_notebooks_is_that_of_the_thesis():
    """Table 5.6 is what the defaults of the moving rule say."""
    rule = TargetRule(0.01, 1, "batch")
    printed = analysis.published("table_5_6_moving_target").set_index("parameter")
    assert (rule.limit_accuracy, rule.limit_rate) == (
        printed.at["limit", "accuracy_pct"] / 100,
        printed.at["limit", "compression_ratio"],
    )
    assert (rule.offset_accuracy, rule.offset_rate) == (
        printed.at["offset", "accuracy_pct"] / 100,
        printed.at["offset", "compression_ratio"],
    )
