"""Measure every plan of a box of the search space, a part of the table at a time; each part is saved."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from weightlab import paths, storage
from weightlab.errors import UserError
from weightlab.evaluation import Evaluator
from weightlab.search.space import IntegerSpace


def measure(
    evaluator: Evaluator, box: IntegerSpace, folder: str | Path, batch: int = 4096, progress: bool = True
) -> Iterator[pd.DataFrame]:
    """Every plan of a box of the space, in ascending order, a table of at most `batch` rows at a time.

    Columns: `plan` and those of `Evaluator.measure`. Each table is kept in `folder`, and a call on a folder that holds some
    measures only the others. Raises `UserError` if the folder belongs to another box, network, format or set of images.
    """
    folder = paths.resolve(folder)
    belongs = json.dumps(evaluator.describe() | {"lists": [each.tolist() for each in box.lists], "batch": batch}).encode()
    storage.make_writable(folder)
    if (folder / "box.json").exists() and (folder / "box.json").read_bytes() != belongs:
        raise UserError(f"{folder} holds the plans of another box or network; give another folder or delete it")
    storage.write_whole(folder / "box.json", belongs)
    total = int(np.prod(box.lengths, dtype=object))
    with tqdm(total=total, unit="plan", desc="box", disable=not progress) as bar:
        for start in range(0, total, batch):
            file = folder / f"part-{start // batch:08d}.parquet"
            table = storage.kept_table(file)
            if table is None:
                indices = np.stack(np.unravel_index(np.arange(start, min(start + batch, total)), box.lengths), axis=1)
                plans = box.decode(indices)
                table = evaluator.measure(plans)
                table.insert(0, "plan", list(plans))
                storage.write_table(table, folder, file.stem)
            bar.update(len(table))
            yield table
