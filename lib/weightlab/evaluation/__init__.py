"""Many plans in, accuracies out: as fast as the machine allows, always equal to the plain network."""

from weightlab.evaluation.evaluator import Evaluator

__all__ = ["Evaluator"]
