"""Names of the records as a reader knows them."""

LABELS = {
    "lenet5_tanh": "LeNet-5 tanh", "lenet5_relu": "LeNet-5 ReLU", "random": "random", "genetic": "genetic",
    "particle_swarm": "particle swarm", "black_hole": "black hole", "nsga2": "NSGA-II", "float8_thesis": "float8 (thesis)", "float8_e4m3": "float8 (E4M3)",
    "exact": "exact k-means", "preset_pointwise": "preset (pointwise)", "extreme_pointwise": "extreme (pointwise)",
    "kmeans": "K-Means", "minibatch": "Mini-Batch K-Means", "gmm": "GMM",
    "mobilenet_v2": "MobileNet_v2", "mobilenet_v2_fashion": "MobileNet_v2 (stand-in, Fashion-MNIST)",
    "lenet5_fashion": "LeNet-5 ReLU (Fashion-MNIST)", "alexnet_fashion": "AlexNet (a quarter of the width, Fashion-MNIST)",
    "alexnet_cifar10": "AlexNet (CIFAR-10)",
    "usable": "usable assignments", "front_size": "front of all evaluated", "final_front": "front of the last generation", "categorical": "categorical NSGA-II", "hypervolume_ratio": "hypervolume ratio",
    "weight_delta": "weight delta",
    "storage_rate": "storage rate", "coded_rate": "coded rate", "layer_mean_rate": "layer-mean rate", "thesis_model_rate": "whole-net rate (eq. 3.2)",
}  # fmt: skip


WAYS = {
    "assignment": "chosen assignment", "uniform": "one multiplier everywhere", "greedy": "greedy, layer by layer", "exact": "exact, 8 bits",
}  # of choosing multipliers  # fmt: skip
LEVELS = {
    0: "level 0 (no data)",
    1: "level 1 (unlabelled images)",
    2: "level 2 (images with classes)",
}  # of compression without a plan


def label(name: str) -> str:
    """How a name of the records reads on a figure and in a sentence."""
    return LABELS.get(name, name)
