"""Train a network of this library again from other seeds, to see how much a result depends on one training.

`python benchmarks/newly_trained.py lenet5_tanh 2 3 4` writes a checkpoint and its card for each seed into build/newly_trained, unless they
are there; `benchmarks/smallest.py --weights FILE` measures one. Ten minutes of one core for each LeNet-5.
"""

import argparse
from dataclasses import replace

from weightlab import paths, training

EPOCHS = 40  # the best epochs of the networks here are 21 and 34


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=list(training.CHECKPOINTS))
    parser.add_argument("seeds", type=int, nargs="+")
    arguments = parser.parse_args()
    recipe = training.CHECKPOINTS[arguments.network]
    for seed in arguments.seeds:
        folder = paths.root() / "build" / "newly_trained" / f"{arguments.network}-{seed}"
        file = folder / f"{arguments.network}.safetensors"
        if not file.exists():
            training.CHECKPOINTS[arguments.network] = replace(recipe, seed=seed, epochs=EPOCHS)
            training.train_checkpoint(arguments.network, folder, "cpu")
        print(file)


if __name__ == "__main__":
    main()
