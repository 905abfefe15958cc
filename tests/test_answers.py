"""The sentences of the notebooks' answers, whole, on tables small enough to work out by hand."""

import numpy as np
import pandas as pd
import pytest

from weightlab.analysis import answers
from weightlab.analysis.answers import words
from weightlab.analysis.claims import RATES


def pairs(*rows, **columns):
    """Pairs as `compare_runs` gives them: a, b, p after Holm, and the probability that a run of `a` wins."""
    return pd.DataFrame(rows, columns=["a", "b", "p_holm", "effect"]).assign(**columns)


SURE = pairs(("exact", "gmm", 0.01, 0.9), ("exact", "kmeans", 0.02, 0.25), ("gmm", "kmeans", 0.05, 0.1), network="lenet5_tanh")
NONE = pairs(("exact", "gmm", 0.5, 0.9), network="lenet5_tanh")


# --- parts ------------------------------------------------------------------------------------------------------------------------


def test_numbers_are_named_as_readers_know_them():
    assert words.named(pd.Series({"float32": 10.646, "gmm": 9.5}), 1, " pp") == "float32 10.6 pp, GMM 9.5 pp"


def test_effort_says_how_much_was_searched():
    assert answers.effort(11, 400) == "11 runs of up to 400 evaluations"
    assert answers.effort(11, 400, 3) == "11 runs of each of 3 searches, up to 400 evaluations"


def test_differences_name_the_better_group_first_and_leave_out_those_at_the_limit():
    expected = "exact k-means over GMM (probability 0.90), K-Means over exact k-means (probability 0.75)"
    assert words.differences(SURE) == expected
    assert words.differences(NONE) == "none"


def plan(**changes):
    row = {
        "plan": np.array([3, 4]),
        "layer_mean_rate": 12.0,
        "storage_rate": 10.5,
        "loss_pp": 0.5,
        "validation_loss_pp": 0.5,
        "test_loss_pp": 1.25,
    }
    return pd.Series(row | changes)


def test_a_chosen_plan_names_the_split_that_chose_and_the_other():
    rates = "[3, 4] with layer-mean rate 12.00 and **storage rate 10.50**, which loses"
    assert words.chosen_plan(plan(), "validation") == f"{rates} 0.50 pp on validation and 1.25 pp on test"
    assert words.chosen_plan(plan(loss_pp=1.25), "test") == f"{rates} 1.25 pp on test and 0.50 pp on validation"
    assert words.chosen_plan(plan(storage_rate=np.nan), "test") == "no acceptable plan"


def test_highest_takes_the_best_plan_by_each_rate_even_if_another_group_has_none():
    rows = pd.DataFrame([plan(format="float16"), plan(format="float32", layer_mean_rate=np.nan, storage_rate=np.nan)])
    rows = rows.assign(network="lenet5_tanh")
    sentences = words.highest({"layer_mean_rate": rows, "storage_rate": rows.iloc[1:]}, "lenet5_tanh", "format", "validation")
    assert sentences == [
        "Highest layer-mean rate: float16, [3, 4] with layer-mean rate 12.00 and **storage rate 10.50**, which loses 0.50 pp on validation "
        "and 1.25 pp on test.",
        "Highest storage rate: float32, no acceptable plan.",
    ]


BIASES = pd.DataFrame({"chooser": ["validation", "test"], "own_loss_pp": [0.5, 0.63], "other_loss_pp": [1.25, 2.1]})
BIAS = (
    "The best plans of the runs, if chosen on test, lose 0.63 pp on test and 2.10 pp on validation; if chosen on validation, they lose 0.50 pp on "
    "validation and 1.25 pp on test. Choosing and reporting on the same images hides 1.47 pp and 0.75 pp; the losses reported on test differ by 0.62 pp "
    "between the two ways."
)


def test_optimism_compares_the_two_splits_and_says_if_one_found_nothing():
    assert words.optimism(BIASES) == BIAS
    assert words.optimism(BIASES[1:]) == "Acceptable plans: on test only; the bias of choosing on test is not known."
    assert words.optimism(BIASES[:0]) == "Acceptable plans: none; the bias of choosing on test is not known."


# --- single plans -----------------------------------------------------------------------------------------------------------------


def test_explored_plan():
    rates = {"storage_rate": 9.876, "layer_mean_rate": 11.0}
    report = pd.DataFrame({"layer": ["conv", "dense"], "stored_bits": [10, 30]})
    reported = pd.DataFrame({"split": ["validation", "test"], "loss_pp": [0.5, 0.75], "images": [200, 100]})
    assert answers.explored_plan("lenet5_tanh", "float16", [3, 4], rates, report, reported) == [
        "Plan [3, 4] in float16 stores the weights of LeNet-5 tanh at **storage rate 9.88** (layer-mean rate 11.00). It costs 0.50 pp on 200 "
        "validation images and 0.75 pp on 100 test images. Layer dense takes the largest part, 75% of the stored bits."
    ]


def whole_net(whole, layered):
    """Rows of the table of best k: k and storage rate of the whole net and of one codebook per layer."""
    rows = [
        {"arm": arm, "k": k, "storage_rate": rate, "layer_mean_rate": rate, "loss_pp": 0.25, "test_loss_pp": 0.5, "published_k": printed,
         "published_rate": 10.66}
        for arm, (k, rate), printed in (("whole net", whole, 6), ("one k for every layer", layered, np.nan))
    ]  # fmt: skip
    return pd.DataFrame(rows).assign(network="lenet5_tanh", format="float32")


@pytest.mark.parametrize(
    ("layered", "ending"),
    [
        ((5, 11.0), " A codebook per layer stores less: its rate is 1.00 higher."),
        ((5, 9.5), " A codebook per layer stores more: its rate is 0.50 lower."),
        ((np.nan, np.nan), ""),
    ],
)
def test_whole_net(layered, ending):
    table = pd.concat([whole_net((7, 10.0), layered), whole_net((8, 10.5), layered).assign(format="float16")])
    of_layers = "no k up to 50 loses less than 1 pp."
    if layered[0] == 5:
        of_layers = f"k = 5, **storage rate {layered[1]:.2f}**, storage rate {layered[1]:.2f}, loss 0.25 pp on validation and 0.50 pp on test."
    assert answers.whole_net(table, "float32", "storage_rate", 50, 200, "validation") == [
        "**LeNet-5 tanh, float32** (k chosen on 200 images of validation; test is only reported): whole net: k = 7, **storage rate 10.00**, storage rate "
        "10.00, loss 0.25 pp on validation and 0.50 pp on test; published 10.66 at k = 6. one k for every layer: "
        + of_layers
        + ending,
        "Over the formats float32, float16 the best whole-net storage rate of LeNet-5 tanh lies between 10.00 and 10.50.",
    ]


def test_whole_net_without_an_acceptable_k_has_no_range_of_rates():
    paragraphs = answers.whole_net(whole_net((np.nan, np.nan), (5, 11.0)), "float32", "storage_rate", 50, 200, "validation")
    assert paragraphs == [
        "**LeNet-5 tanh, float32** (k chosen on 200 images of validation; test is only reported): whole net: no k up to 50 loses less than 1 pp. one k for "
        "every layer: k = 5, **storage rate 11.00**, storage rate 11.00, loss 0.25 pp on validation and 0.50 pp on test."
    ]


@pytest.mark.parametrize(("same", "weights"), [(True, "every weight is as it was written"), (False, "WEIGHTS DIFFER")])
def test_packed_file(same, weights):
    summary = {"storage_rate": 9.0, "file_rate": 7.5, "file_bytes": 100, "original_bytes": 750, "header_bytes": 20}
    images = {"validation": 200, "test": 100}
    assert answers.packed_file("own:network", plan(format="float16"), summary, images, same, 0.985, 0, (800, 150)) == [
        "Plan [3, 4] in float16 stores the weights of `own:network` at **storage rate 9.00**; the file with everything in it is **7.50 times "
        "smaller** than the original parameters and buffers (100 of 750 bytes, including a header of 20 bytes). It loses 0.50 pp on the 200 "
        f"validation images on which it was chosen and 1.25 pp on 100 test images. When the file is read back, {weights}, and 98.50% of the test images "
        "are classified correctly. onnxruntime gives another class for 0 of 100 test images; the ONNX file has 150 bytes, that of the original network "
        "800."
    ]


# --- searches -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("p_holm", "fitness", "beyond", "fittest"),
    [
        (0.01, 80.0, "genetic over random", "The fittest acceptable plan, [3, 4] (genetic), has layer-mean rate 12.00 and **storage rate 10.50** "
         "and loses 0.50 pp on validation, 1.25 pp on test."),
        (0.2, np.nan, "none", "No run found an acceptable plan."),
    ],
)  # fmt: skip
def test_optimizers(p_holm, fitness, beyond, fittest):
    groups = pd.DataFrame({"median": [20.0, 50.0]}, index=["random", "genetic"])
    best = pd.DataFrame([plan(fitness=fitness, search="genetic")], index=["lenet5_tanh"])
    medians = pd.Series([60.0, 40.0], pd.MultiIndex.from_tuples([("lenet5_tanh", "genetic"), ("lenet5_tanh", "random")]))
    published = pd.DataFrame({"network": ["lenet5_tanh", "lenet5_tanh", "lenet5_relu"], "search": ["random", "black_hole", "genetic"],
                              "compression_rate_ratio": [10.0, 13.0, 1.0], "accuracy_loss_recomputed_pp": [0.5, 0.75, 0.0]})  # fmt: skip
    compared = {"lenet5_tanh": (groups, pairs(("random", "genetic", p_holm, 0.1)))}
    assert answers.optimizers(compared, best, medians, published, "11 runs", "validation") == [
        "**LeNet-5 tanh**, 11 runs. Median best fitness: genetic 50.0, random 20.0; published: genetic 60.0, random 40.0. Significant differences "
        f"(Holm p < 0.05): {beyond}. {fittest} Published: layer-mean rate 13.00 with 0.75 pp lost on the images on which it was chosen (black hole)."
    ]


def groups(*rows):
    return pd.DataFrame(rows, columns=["group", "median", "sd"]).assign(network="lenet5_tanh")


def test_targets():
    compared = pairs(("extreme", "preset", 0.01, 0.8), ("preset", "static", 0.5, 0.5), network="lenet5_tanh", p_spread=0.3)
    forms = pairs(("extreme", "extreme_pointwise", 0.4, 0.6), network="lenet5_tanh", p_spread=0.7)
    reached = pd.DataFrame({"network": "lenet5_tanh", "target_type": ["static", "preset", "extreme", "extreme_pointwise"],
                            "loss_pp": [0.5, 0.6, 0.7, 9.0], "misled": [1, 0, 2, 1], "runs": [3, 3, 3, 3]})  # fmt: skip
    best = pd.DataFrame([plan(target_type="extreme_pointwise")], index=["lenet5_tanh"])
    published = pd.DataFrame(
        {"network": "lenet5_tanh", "layer_mean_rate": [14.0, 13.0], "loss_pp": [0.75, 0.5], "target_type": ["extreme", "static"]}
    )
    medians = groups(("extreme", 12.0, 0.5), ("preset", 11.0, 0.25), ("static", 10.0, 0.125))
    arguments = (published, "layer_mean_rate", "validation", "3 runs")
    assert answers.targets(medians, compared, forms, reached, best, *arguments) == [
        "**LeNet-5 tanh**, 3 runs. Best acceptable layer-mean rate of a run, median: extreme 12.00 (sd 0.50), preset 11.00 (sd 0.25), static "
        "10.00 (sd 0.12); significant differences: extreme over preset (probability 0.80). Mean loss of these plans on validation: static 0.50 pp, preset 0.60 pp, "
        "extreme 0.70 pp. A run with the extreme target beats one with the preset target with probability 0.80 (p = 0.01; equal spread p = 0.3). A run with "
        "the extreme target beats one with the extreme (pointwise) target with probability 0.60 (p = 0.4; equal spread p = 0.7). The fittest plan lost 1 pp or "
        "more in 4 of 12 runs. Best plan (extreme (pointwise)): [3, 4] with layer-mean rate 12.00 and **storage rate 10.50**, which loses 0.50 "
        "pp on validation and 1.25 pp on test. Published: layer-mean rate 14.00, 0.75 pp lost on the images on which it was chosen (extreme)."
    ]
    without = answers.targets(medians[1:], compared[1:], forms[:0], reached[:2], best, *arguments)
    assert "A run with" not in without[0]


@pytest.mark.parametrize(
    ("emptied", "left_out"),
    [({}, ""), ({("lenet5_tanh", "float8_thesis"): ["conv", "dense"], ("lenet5_relu", "float16"): ["conv"]},
               "float8 (thesis) was not searched: no k of conv, dense reaches 97% when shared alone. ")],
)  # fmt: skip
def test_formats(emptied, left_out):
    best = pd.DataFrame([plan(format="float16")]).assign(network="lenet5_tanh")
    published = pd.DataFrame({"network": "lenet5_tanh", "format": ["float32", "float32", "float8_thesis"],
                              "layer_mean_rate": [12.5, 12.0, 14.0], "storage_rate": [9.0, 99.0, 10.0]})  # fmt: skip
    layers = (
        pd.Series(list(emptied.values()), pd.MultiIndex.from_tuples(emptied, names=["network", "format"]))
        if emptied
        else pd.Series()
    )
    assert answers.formats(
        groups(("float16", 12.0, 0), ("float32", 11.0, 0)), NONE, layers, 0.97, {"layer_mean_rate": best}, published,
        BIASES.assign(network="lenet5_tanh"), "layer_mean_rate", "validation", "3 runs",
    ) == [
        "**LeNet-5 tanh**, 3 runs. Best acceptable layer-mean rate of a run, median: float16 12.00, float32 11.00; significant differences: none. "
        f"{left_out}Highest layer-mean rate: float16, [3, 4] with layer-mean rate 12.00 and **storage rate 10.50**, which loses 0.50 pp on "
        "validation and 1.25 pp on test. Highest published layer-mean rates (and storage rates of these plans): float32 12.50 (9.00), float8 (thesis) 14.00 "
        f"(10.00). {BIAS}"
    ]  # fmt: skip


def clusterings(methods):
    costs = pd.DataFrame({"method": methods, "clustering_ms": [30.0, 10.0], "accuracy_share_pct": [25.0, 50.0], "clustering_ratio": [3.0, 1.0],
                          "whole_ratio": [2.0, 1.0], "published_clustering_ratio": [5.68, 1.0], "published_whole_ratio": [1.68, 1.0]})  # fmt: skip
    excess = pd.DataFrame({"method": methods, "excess_pct": [0.0, 0.5]})
    best = pd.DataFrame([plan(method=methods[0])]).assign(network="lenet5_tanh")
    biases = pd.concat([BIASES.assign(method=methods[0]), BIASES.assign(method=methods[1], own_loss_pp=0.0)])
    tables = (table.assign(network="lenet5_tanh") for table in (costs, excess, biases))
    costs, excess, biases = tables
    return answers.clusterings(
        groups(("kmeans", 12.0, 0)),
        SURE,
        costs,
        excess,
        {"storage_rate": best},
        biases,
        "storage_rate",
        "validation",
        "3 runs",
        20,
        200,
    )


ENDING = (
    "3 runs: best acceptable storage rate of a run, median: K-Means 12.00; significant differences: exact k-means over GMM (probability 0.90), K-Means over "
    "exact k-means (probability 0.75). Highest storage rate: {}, [3, 4] with layer-mean rate 12.00 and **storage rate 10.50**, which loses 0.50 pp "
    "on validation and 1.25 pp on test. "
)


def test_clusterings_compare_k_means_with_mini_batch_and_take_its_bias():
    assert clusterings(["kmeans", "minibatch"]) == [
        "**LeNet-5 tanh**. K-Means: 30 ms to cluster a plan; measuring accuracy takes 25 % of the whole time; inertia 0 % above the lowest possible. Mini-Batch "
        "K-Means: 10 ms to cluster a plan; measuring accuracy takes 50 % of the whole time; inertia 0.5 % above the lowest possible. (Means of 20 plans, accuracy on "
        "200 images, one thread; excess of inertia: median over layers and k.) K-Means takes 3.0 times as long to cluster as Mini-Batch (published "
        "5.7), the whole evaluation 2.00 times as long (published 1.68). " + ENDING.format("K-Means") + BIAS
    ]


def test_clusterings_without_k_means_take_the_bias_of_all_methods():
    of_all = BIAS.replace("lose 0.63 pp on test", "lose 0.32 pp on test").replace("lose 0.50 pp on", "lose 0.25 pp on")
    of_all = of_all.replace("1.47 pp and 0.75 pp", "1.79 pp and 1.00 pp").replace("by 0.62 pp", "by 0.94 pp")
    assert clusterings(["gmm", "minibatch"]) == [
        "**LeNet-5 tanh**. GMM: 30 ms to cluster a plan; measuring accuracy takes 25 % of the whole time; inertia 0 % above the lowest possible. Mini-Batch K-Means: "
        "10 ms to cluster a plan; measuring accuracy takes 50 % of the whole time; inertia 0.5 % above the lowest possible. (Means of 20 plans, accuracy on 200 images, "
        "one thread; excess of inertia: median over layers and k.) " + ENDING.format("GMM") + of_all
    ]


# --- fine-tuning and a large network ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("swarm_runs", "runs", "published", "ending"),
    [
        (5, "5 runs", 1, " The published plans: 0.80 to 0.40 pp on validation, 0.90 to 0.95 pp on test; as published, 0.70 to 0.30 pp on the "
         "images on which they were chosen."),
        (1, "1 run", 0, ""),
    ],
)  # fmt: skip
def test_fine_tuning(swarm_runs, runs, published, ending):
    of = {"network": "lenet5_tanh"}
    arms = pd.DataFrame({"arm": ["spread 2", "spread 2", "swarm"], "gain_pp": [0.1, 0.3, 0.4], "test_gain_pp": [-0.1, 0.0, 0.1]})
    losses = {"loss_pp_before": [0.8], "loss_pp_after": [0.4], "test_loss_pp_before": [0.9], "test_loss_pp_after": [0.95]}
    tuned = pd.DataFrame(losses | {"train_loss_pp_before": [0.5], "train_loss_pp_after": [0.25]})
    printed = pd.DataFrame(losses | {"published_loss_pp": [0.7], "published_loss_after_pp": [0.3]})[:published]
    r = pd.DataFrame({"inertia": [-0.5, 0.2, np.nan], "weight_delta": [-0.1, -0.2, -0.3]})
    gains = pd.DataFrame({"inertia": [0.0, -0.1], "weight_delta": [0.1, 0.1], "measuring": [0.3, 0.1]})
    shares = pd.DataFrame({"factor": ["focus", "spread"], "omega_squared": [0.6, -0.02]})
    arms, tuned, printed, r, gains, shares = (table.assign(**of) for table in (arms, tuned, printed, r, gains, shares))
    images = {"validation": 200, "test": 100}
    assert answers.fine_tuning(arms, tuned, printed, r, gains, shares, "validation", 2.0, swarm_runs, images) == [
        "**LeNet-5 tanh**, 1 plans, rates unchanged, focus chosen on validation (images of validation and test: 200 and 100). Mean loss with spread "
        "2: 0.80 to 0.40 pp on validation, 0.90 to 0.95 pp on test, 0.50 to 0.25 pp on train. Mean reduction of the loss on validation (and on test) in pp, "
        f"for the swarm the median of {runs}: spread 2 +0.20 (-0.05), swarm +0.40 (+0.10). Focus explains 60% of the variance of accuracy in the "
        "median layer, spread 0%. Correlation with accuracy (and gain in accuracy if the focus of its lowest value were taken in a layer): inertia negative in 1 and positive "
        "in 1 of 2 layers (-0.05 pp); weight delta negative in 3 and positive in 0 of 3 layers (+0.10 pp); measuring the accuracy gains +0.20 pp."
        + ending
    ]


def test_mobilenet():
    overview = pd.DataFrame(
        {
            "allowed_share": [0.9, 0.2],
            "emptied": [[], ["features.1", "features.2"]],
            "agreed_share": [0.95, 0.5],
            "most_sensitive": [[0, 3], []],
        },
        index=["float32", "float8_thesis"],
    )
    best = pd.DataFrame([
        plan(format="float32", arm="genetic", validation_loss_pp=0.5),
        plan(format="float32", arm="one k for every layer", layer_mean_rate=10.0),
        plan(format="float16", arm="random"),
    ])  # fmt: skip
    tuned = pd.DataFrame({"loss_before_pp": [1.0, 1.0, 1.0], "loss_after_pp": [0.5, 1.1, 1.0]})
    arguments = (0.9, 0.896, "layer_mean_rate", "validation", "test", 900)
    losses = "**storage rate 10.50**, loss 0.50 pp, on test 1.25 pp"
    assert answers.mobilenet("mobilenet_v2_fashion", overview, best, tuned, *arguments) == [
        "**MobileNet_v2 (stand-in, Fashion-MNIST)**: plans were chosen on 900 images of validation. The threshold of the scan is 0.40 pp below the "
        "90.00 % of the unshared network (± 1.00 pp). In float32, test gives the same verdict for 95% of all k; the most sensitive layers are [0, 3].\n\n"
        "- Scan, float32: 90% of all k pass; layers without any: none.\n"
        "- Scan, float8 (thesis): 20% of all k pass; layers without any: features.1, features.2.\n"
        f"- genetic, float32: layer-mean rate 12.00, {losses}; layer-mean rate +2.00 against the best single k.\n"
        f"- one k for every layer, float32: layer-mean rate 10.00, {losses}.\n"
        f"- random, float16: layer-mean rate 12.00, {losses}.\n"
        "- Fine-tuning improves 1 and worsens 1 of 3 rows (splits, top-1 or top-5); the mean gain is +0.13 pp."
    ]


# --- small files -----------------------------------------------------------------------------------------------------------------------

COUNTS = {"validation": 200, "test": 100}


def files_of_ways(of):
    """Two draws of level 0 and one of level 1, and a plan."""
    columns = ["level", "draw", "file_bytes", "bits_per_weight", "coded_rate", "validation_loss_pp", "test_loss_pp"]
    rows = [(0, 1, 8000, 1.0, 33.0, 0.5, 0.4), (0, 2, 9000, 1.5, 30.0, 0.7, 0.7), (1, 1, 5000, 0.5, 60.0, 0.9, 1.2)]
    plans = pd.DataFrame([plan(format="float16", file_bytes=17000, validation_loss_pp=0.5, of=of)])
    return (table.assign(network="lenet5_tanh") for table in (pd.DataFrame(rows, columns=columns), plans))


OWN_FILES = (
    "**LeNet-5 tanh**, smallest file that loses less than 1 pp on 200 validation images, whose classes choose the price; 100 test images only report. "
    "Level 0 (no data): **8500** ± 707 bytes (2 draws), 1.25 bits a weight, loss 0.60 pp on validation and 0.55 pp on test. "
    "Level 1 (unlabelled images): **5000** bytes (1 draw, so no spread), 0.50 bits a weight, loss 0.90 pp on validation and 1.20 pp on test. "
)


def test_smallest_files_beside_those_of_other_ways():
    smallest, plans = files_of_ways(of=40)
    columns = ["program", "file_bytes", "validation_loss_pp", "test_loss_pp"]
    rows = [("nncodec", 7500, 0.25, 0.5), ("nncodec", 5000, 1.0, 0.5), ("coremltools", 9000, 1.5, 1.5)]
    programs = pd.DataFrame(rows, columns=columns).assign(network="lenet5_tanh")
    assert answers.smallest_files(smallest, plans, programs, 1.0, COUNTS) == [
        OWN_FILES
        + "Of 0 plans of the thesis and the front of 40 searched plans the smallest such file: 17000 bytes (2.00 times level 0, 3.40 times level 1), "
        "loss 0.50 pp on validation and 1.25 pp on test, plan [3, 4] in float16. Of 2 files of nncodec the smallest such file: 7500 bytes (0.88 times "
        "level 0, 1.50 times level 1), loss 0.25 pp on validation and 0.50 pp on test. Of 1 files of coremltools the smallest such file: none."
    ]


def test_smallest_files_where_no_other_way_was_measured():
    smallest, plans = files_of_ways(of=None)
    programs = pd.DataFrame(columns=["program", "network", "file_bytes", "validation_loss_pp", "test_loss_pp"])
    assert answers.smallest_files(smallest, plans.assign(validation_loss_pp=2.0), programs, 1.0, COUNTS) == [
        OWN_FILES
        + "Of 1 plans of the thesis and the front of 0 searched plans the smallest such file: none. Files of nncodec were not measured. "
        "Files of coremltools were not measured."
    ]


def test_training_gains():
    columns = [
        "price",
        "draw",
        "steps",
        "trained_numbers",
        "more_bytes",
        "validation_before_pp",
        "validation_after_pp",
        "validation_gain_pp",
    ]
    columns += ["test_before_pp", "test_after_pp", "test_gain_pp"]
    rows = [(0.1, 1, 50, 240, 3, 2.0, 1.5, 0.5, 1.0, 1.25, -0.25), (0.1, 1, 200, 240, 4, 2.0, 1.0, 1.0, 1.0, 0.5, 0.5)]
    rows += [(0.1, 2, 200, 250, 2, 3.0, 1.0, 2.0, 2.0, 0.5, 1.5), (0.2, 1, 200, 230, -1, 4.0, 3.0, 1.0, 4.0, 3.0, 1.0)]
    gains = pd.DataFrame(rows, columns=columns).assign(network="lenet5_tanh")
    level_1 = pd.DataFrame({"price": [0.1, 0.1, 0.2], "test_loss_pp": [1.0, 2.0, 4.5], "file_bytes": [5000, 5200, 3000]})
    level_1 = level_1.assign(network="lenet5_tanh")
    assert answers.training_gains(gains, level_1, {"lenet5_tanh": 61470}, 200, COUNTS) == [
        "**LeNet-5 tanh**: 200 steps train 230 to 250 numbers (at the prices tried) with the classes of training images, where the network has 61470 "
        "weights. Loss on 200 validation and 100 test images:\n\n- Price 0.1: 1.50 to 0.50 pp, gain +1.00 ± 0.71 pp on test and 2.50 to 1.00 pp, gain "
        "+1.50 ± 0.71 pp on validation (2 draws); the file changes by +3 bytes. Level 1 at this price: 1.50 pp on test, 5100 bytes.\n- Price 0.2: 4.00 "
        "to 3.00 pp, gain +1.00 pp on test and 4.00 to 3.00 pp, gain +1.00 pp on validation (1 draw); the file changes by -1 bytes. Level 1 at this price: 4.50 pp "
        "on test, 3000 bytes.\n\nMean gain on test over prices and draws (n = 3), ± their standard deviation: 50 steps -0.25 pp, 200 steps +1.00 ± 0.50 pp. "
        "With 200 steps the loss on test falls in 3 and rises in 0 of 3 pairs of networks."
    ]


# --- approximate multipliers -----------------------------------------------------------------------------------------------------------


def ways(network, *rows):
    """Ways of choosing: kind, name, energy saved, loss on validation and on test, and evaluations."""
    columns = ["kind", "named", "saved_pct", "validation_loss_pp", "test_loss_pp", "evaluations"]
    more = {"validation_se_pp": 0.25, "test_se_pp": 0.5, "mcnemar_p": 0.0123, "chosen_on": 300, "test_images": 200}
    return pd.DataFrame(rows, columns=columns).assign(network=network, coding="signed", **more)


EXACT = ("exact", "exact/exact", 0.0, -0.1, 0.2, 1)


def test_savings_say_what_each_way_saves_and_which_found_nothing():
    """A shift of one network's numbers changes its paragraph alone."""
    rows = [
        ("assignment", "a/b", 35.25, 0.5, 0.75, 729),
        ("uniform", "a/a", 20.0, 0.6, 1.0, 9),
        ("greedy", "b/a", 30.0, 0.4, 0.5, 17),
    ]
    found, shifted = ways("lenet5_relu", *rows, EXACT), ways("lenet5_relu", *rows, EXACT)
    columns = ["saved_pct", "validation_loss_pp", "test_loss_pp", "evaluations"]
    shifted[columns] += 2
    other = ways("lenet5_fashion", EXACT)
    ending = "± 0.50 pp on test (McNemar p = 0.012 against float)."

    def paragraph(shift):
        return (
            "**LeNet-5 ReLU, signed codes**: least energy at a loss of at most 0.6 pp, chosen on 300 validation images and reported on 200 test images, ± standard "
            "error of the accuracy.\n"
            f"\n- Chosen assignment (a/b; {729 + shift} evaluations): **{35.2 + shift:.1f} %** of the multiplication energy saved, loss "
            f"{0.5 + shift:.2f} ± 0.25 pp on validation, {0.75 + shift:.2f} {ending}"
            f"\n- One multiplier everywhere (a/a; {9 + shift} evaluations): **{20 + shift:.1f} %** of the multiplication energy saved, loss "
            f"{0.6 + shift:.2f} ± 0.25 pp on validation, {1 + shift:.2f} {ending}"
            f"\n- Greedy, layer by layer (b/a; {17 + shift} evaluations): **{30 + shift:.1f} %** of the multiplication energy saved, loss "
            f"{0.4 + shift:.2f} ± 0.25 pp on validation, {0.5 + shift:.2f} {ending}"
            f"\n- Exact, 8 bits (exact/exact; {1 + shift} evaluations): **{shift:.1f} %** of the multiplication energy saved, loss "
            f"{-0.1 + shift:.2f} ± 0.25 pp on validation, {0.2 + shift:.2f} {ending}"
        )

    nothing = (
        "**LeNet-5 ReLU (Fashion-MNIST), signed codes**: least energy at a loss of at most 0.6 pp, chosen on 300 validation images and reported on 200 test images, ± "
        "standard error of the accuracy.\n"
        "\n- Exact, 8 bits (exact/exact; 1 evaluations): **0.0 %** of the multiplication energy saved, loss -0.10 ± 0.25 pp on validation, 0.20 "
        f"{ending}\n- No assignment within the limit: chosen assignment, one multiplier everywhere, greedy, layer by layer."
    )
    assert answers.savings(pd.concat([found, other]), 0.6) == [paragraph(0), nothing]
    assert answers.savings(pd.concat([shifted, other]), 0.6) == [paragraph(2), nothing]


def quality(network, *rows):
    columns = ["run", "search", "order", "hypervolume_ratio", "hypervolume_ratio_sd", "evaluations", "n"]
    return pd.DataFrame(rows, columns=columns).assign(network=network)


def test_against_truth_says_how_near_and_where_chance_is_as_good():
    rows = [("20x20", "nsga2", "power", 0.95, 0.01, 400, 10), ("20x20", "random", "", 0.9, 0.02, 400, 9),
            ("40x20", "categorical", "", 0.99, 0.001, 800, 10)]  # fmt: skip
    table = pd.concat(
        [quality("lenet5_relu", *rows), quality("lenet5_fashion", ("20x20", "nsga2", "alphabetical", 0.5, 0.125, 400, 10))]
    )
    gaps = pd.DataFrame([("lenet5_relu", "20x20", "nsga2", "power", 0.05, 0.01), ("lenet5_relu", "40x20", "categorical", "", 0.01, 0.2),
                         ("lenet5_relu", "40x20", "nsga2", "power", -0.01, 0.001), ("lenet5_relu", "70x10", "nsga2", "power", np.nan, np.nan),
                         ("lenet5_fashion", "20x20", "nsga2", "alphabetical", 0.1, 0.049)],
                        columns=["network", "run", "search", "order", "gap", "p"])  # fmt: skip
    heading = "hypervolume of all evaluated assignments / that of the true front, mean ± sd over seeds:\n"
    compared = "\n\nRuns with a higher mean than random search at equal evaluations (Mann-Whitney; runs of equal budget are held against the same random runs):"
    assert answers.against_truth(table, gaps) == [
        f"**LeNet-5 ReLU**, {heading}"
        "\n- 20x20 (400 evaluations, n = 9): NSGA-II power 0.950 ± 0.010, random 0.900 ± 0.020."
        "\n- 40x20 (800 evaluations, n = 10): categorical NSGA-II 0.990 ± 0.001."
        f"{compared} NSGA-II power 1 of 3, 1 with p < 0.05 (not 40x20, 70x10); categorical NSGA-II 1 of 1, 0 with p < 0.05.",
        f"**LeNet-5 ReLU (Fashion-MNIST)**, {heading}"
        "\n- 20x20 (400 evaluations, n = 10): NSGA-II alphabetical 0.500 ± 0.125."
        f"{compared} NSGA-II alphabetical 1 of 1, 1 with p < 0.05.",
    ]


def test_influences_name_the_settings_by_their_share():
    rows = [
        ("usable", "power", "eta", 0.02),
        ("usable", "power", "crossover_probability", 0.4),
        ("front_size", "alphabetical", "population", 0.55),
    ]
    shares = pd.DataFrame(rows, columns=["measure", "order", "setting", "share"])
    assert answers.influences(shares, 10) == (
        "Share of the variance between runs that a setting explains by itself (omega squared, 10 seeds a combination): usable assignments (power): crossover probability "
        "40 %, eta 2 %. front of all evaluated (alphabetical): population 55 %."
    )
    assert (
        answers.influences(shares[:0], 10)
        == "No setting has several values, or the runs do not differ: there is no variance to explain."
    )


def test_ranges_of_batches_and_the_error_of_few_images():
    rows = [
        ("lenet5_relu", "assignment", "batch", 1.2, 2.04),
        ("lenet5_relu", "assignment", "calibrated", 0.4, 1.96),
        ("lenet5_relu", "exact", "batch", -0.2, 1.0),
    ]
    table = pd.DataFrame(rows, columns=["network", "arm", "ranges", "loss_pp", "se_pp"]).assign(images=64)
    assert answers.in_batches(table) == (
        "An accuracy on 64 images has a standard error of 1.0 to 2.0 pp. LeNet-5 ReLU, chosen assignment: loss 1.20 pp with ranges of each batch, 0.40 pp "
        "with ranges of calibration. LeNet-5 ReLU, exact, 8 bits: loss -0.20 pp with ranges of each batch."
    )


def test_claims_of_the_source_say_what_was_asked_and_why():
    common = {"relation": ">=", "threshold": 0.5, "n": 40, "n_of": "runs", "reason": ""}
    bare = {"lower": np.nan, "upper": np.nan}
    parts = pd.DataFrame([
        {"claim": 1, "part": "a", "verdict": "replicated", "value": 0.75, "lower": 0.6, "upper": 0.875, **common},
        {"claim": 2, "part": "", "verdict": "not replicated", "value": 0.1, **bare, **common, "reason": "median 0"},
        {"claim": 2, "part": "b", "verdict": "undecided", "value": np.nan, **bare, **common, "n": 0, "reason": "a/b is missing"},
    ])  # fmt: skip
    assert answers.claims_of_source(parts, {(1, "a"): "It is so", (2, ""): "It is more", (2, "b"): "It is less"}) == [
        "- **replicated**, 1a: It is so: 0.75 (0.6 to 0.875), asked >= 0.5, n = 40 runs.",
        "- **not replicated**, 2: It is more: 0.1, asked >= 0.5, n = 40 runs; median 0.",
        "- **undecided**, 2b: It is less: no value; a/b is missing.",
    ]


# --- curves and claims -------------------------------------------------------------------------------------------------------------------

KEY = {"network": "lenet5_tanh", "rate_name": "storage_rate", "data": "all"}


def curves(p, robust_p, compared):
    """Two groups whose curves are straight lines, 0.1 pp apart; residuals grow with the rate; all tests but the robust one have `p`."""
    names = ["sequential F", "sequential F", "common, F", "common, robust F", "Breusch-Pagan F"]
    tests = pd.DataFrame({"test": names, "F": 5.25, "df": 3, "residual_df": 54, "p": [0.5, p, p, robust_p, p]})
    lines = pd.DataFrame({"group": ["a", "a", "gmm", "gmm"], "rate": [5.0, 10.0, 5.0, 12.0], "loss": [0.0, 0.5, 0.1, 0.8]})
    scatter = pd.DataFrame({"rate": [5.0, 7.0, 10.0], "residual": [0.01, -0.02, 0.03]})
    outcomes = ["fitted", "could not be fitted because it has one group"]
    summary = pd.DataFrame([KEY, KEY | {"network": "lenet5_relu"}, KEY | {"data": "Pareto"}])
    summary = summary.assign(points=[60, 30, 20], outcome=[*outcomes, "fitted"])
    lines, tests, scatter = (table.assign(**KEY) for table in (lines, tests, scatter))
    return answers.group_curves(summary, lines, tests, scatter, compared, "given points")


UNFITTED = "**LeNet-5 ReLU, storage rate** (30 points) could not be fitted because it has one group."


def test_curves_of_groups_that_differ():
    of_runs = pd.DataFrame({"n": [4, 5], "median": [9.0, 10.0]}, index=["a", "gmm"])
    of_runs.attrs["kruskal_p"] = 0.012
    compared = {("lenet5_tanh", "storage_rate"): (of_runs, pairs(("a", "gmm", 0.01, 0.1)))}
    assert curves(0.001, 0.002, compared) == [
        "**LeNet-5 tanh, storage rate** (60 given points). One common curve does not describe all groups: F(3, 54) = 5.2, p = 0.001 (robust p = "
        "0.002). At the highest rate that all reach, 10.00, the curves lose a 0.50, GMM 0.60 pp. The thesis's sequential test of the squared terms, "
        "p = 0.001, says only that they are not all zero. The scatter is unequal (Breusch-Pagan p = 0.001; rank correlation of its size with the "
        "rate +1.00). Run by run (at least 4 a group), the median best rate is GMM 10.00, a 9.00; significant differences (Holm p < 0.05): GMM over a "
        "(probability 0.90) (Kruskal-Wallis p = 0.012).",
        UNFITTED,
    ]


def test_curves_of_groups_that_do_not_differ_and_whose_runs_are_not_known():
    assert curves(0.05, np.nan, {}) == [
        "**LeNet-5 tanh, storage rate** (60 given points). One common curve would describe all groups: F(3, 54) = 5.2, p = 0.05 (no robust p, because "
        "one group has no scatter). At the highest rate that all reach, 10.00, the curves lose a 0.50, GMM 0.60 pp. The thesis's sequential "
        "test of the squared terms, p = 0.05, says only that they may all be zero. The scatter is not shown to be unequal (Breusch-Pagan p = 0.05; "
        "rank correlation of its size with the rate +1.00).",
        UNFITTED,
    ]


def test_crossings_of_pareto_data():
    table = pd.DataFrame([KEY | {"data": data} for data in ("all", "Pareto", "Pareto")])
    table = table.assign(crossings=[[1.0], [8.0, 16.25], []], published_crossings=[[], [16.0], []])
    where = "LeNet-5 tanh, storage rate, Pareto data: the curves of K-Means and GMM cross"
    assert answers.crossings(table, "kmeans", "gmm") == [
        f"{where} at 8.00, 16.25; printed coefficients: 16.00.",
        f"{where} nowhere.",
    ]


def part(claim, verdict, rate_name, reason="", **changes):
    row = {"claim": claim, "verdict": verdict, "rate_name": rate_name, "reason": reason, "statement": f"statement {claim}", "value": 1.23456,
           "relation": ">", "threshold": 1, "published": 2.0, "n": 11, "n_of": "runs"}  # fmt: skip
    return row | changes


def test_claims_are_counted_and_those_decided_are_listed():
    layer_mean, storage = RATES
    parts = pd.DataFrame([
        part(1, "replicated", layer_mean), part(1, "not replicated", storage),
        part(2, "replicated", ""), part(2, "not replicated", "", statement="second part", published=np.nan),
        part(3, "undecided", "", "n = 3 runs, 11 asked for; "), part(4, "undecided", "", "a/records is missing"),
        part(5, "undecided", "", "no interval"), part(5, "replicated", ""),
    ])  # fmt: skip
    verdicts = pd.DataFrame(
        {layer_mean: ["replicated", "not replicated", *["undecided"] * 3], storage: ["not replicated"] * 2 + ["undecided"] * 3},
        index=range(1, 6),
    )
    below = "(rates are those of plans that lose less than 1 pp)."
    assert answers.claims(parts, verdicts) == [
        f"**layer-mean rate**: of 5 claims 1 replicated, 1 not replicated, 3 undecided {below}",
        f"**storage rate**: of 5 claims 0 replicated, 2 not replicated, 3 undecided {below}",
        "Claims whose verdict depends on which rate is meant: 1.",
        "- replicated, claim 1: statement 1: 1.235 (required: > 1, published: 2, n = 11 runs).",
        "- not replicated, claim 2: second part: 1.235 (required: > 1, n = 11 runs).",
        "Undecided claims: 3, 4, 5; of 3 undecided parts, 1 have too small an n, and for 1 a table is missing (a/records).",
    ]


def test_claims_that_are_all_decided():
    layer_mean, storage = RATES
    verdicts = pd.DataFrame({layer_mean: ["replicated"], storage: ["replicated"]}, index=[1])
    assert answers.claims(pd.DataFrame([part(1, "replicated", "")]), verdicts)[2:] == [
        "Claims whose verdict depends on which rate is meant: none.",
        "- replicated, claim 1: statement 1: 1.235 (required: > 1, published: 2, n = 11 runs).",
        "Undecided claims: none; of 0 undecided parts, 0 have too small an n, and for 0 a table is missing (none).",
    ]
