"""The same variant in all layers, for every variant: what a choice layer by layer is compared with."""

import pandas as pd

from weightlab import storage
from weightlab.runs.progress import Steps
from weightlab.runs.runner import Runner, uniform_plans
from weightlab.runs.setting import RECORDED_SPLITS, Setting


def uniform(runner: Runner, setting: Setting) -> pd.DataFrame:
    """`uniform_plans` of every variant of a setting that a layer may take, with the number of `<split>_images`.

    It is kept as `uniform-<hash>.parquet` in the runner's folder, written after each plan; a call that was interrupted resumes.
    """
    file = runner.folder / f"uniform-{setting.measured().hash}.parquet"
    table = storage.kept_table(file)
    done = 0 if table is None else len(table)
    if done == len(setting.candidates):
        assert table is not None
        return table
    evaluator = runner.evaluator(setting)
    storage.make_writable(runner.folder)
    images = {f"{split}_images": n for split, n in zip(RECORDED_SPLITS, evaluator.images.tolist(), strict=True)}
    parts = [] if table is None else [table]
    with Steps(f"one variant in all layers of {setting.network}", len(setting.candidates), done, runner.progress) as steps:
        for variant in setting.candidates[done:]:
            parts.append(uniform_plans(evaluator, [variant]).assign(**images))
            storage.write_table(pd.concat(parts, ignore_index=True), runner.folder, file.stem)
            steps.add(1)
    evaluator.release()
    return storage.read_table(file)[0]
