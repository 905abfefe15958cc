"""What a notebook's results say, in sentences: tables in, a list of Markdown paragraphs out. Every number comes from the tables."""

from weightlab.analysis.answers.assignments import against_truth, claims_of_source, in_batches, influences, savings
from weightlab.analysis.answers.claims import claims
from weightlab.analysis.answers.mobilenet import mobilenet
from weightlab.analysis.answers.regression import crossings, group_curves
from weightlab.analysis.answers.searches import clusterings, formats, optimizers, targets
from weightlab.analysis.answers.sharing import explored_plan, packed_file, whole_net
from weightlab.analysis.answers.small_files import smallest_files, training_gains
from weightlab.analysis.answers.tuning import fine_tuning
from weightlab.analysis.answers.words import effort

__all__ = [
    "against_truth",
    "claims",
    "claims_of_source",
    "clusterings",
    "crossings",
    "effort",
    "explored_plan",
    "fine_tuning",
    "formats",
    "group_curves",
    "in_batches",
    "influences",
    "mobilenet",
    "optimizers",
    "packed_file",
    "savings",
    "smallest_files",
    "targets",
    "training_gains",
    "whole_net",
]
