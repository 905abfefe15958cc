"""Imported by the server from which `grids` forks its processes, so that they start at once: everything is loaded and compiled."""

import torch

from weightlab import runs

torch.set_num_threads(1)  # a pool of threads would not survive the fork
runs.evaluator(runs.Setting("lenet5_tanh", images=20, ks=(2,)), device="cpu", threads=1).measure([[2] * 5])
