"""PBS and SLURM clusters from a YAML file, by dask-jobqueue: searches run in the processes of jobs.

A grid outlasts the walltime of its jobs: workers leave shortly before it, the cluster submits a new job for one whose workers have left,
and the next worker resumes their searches. A job that ends before its workers have started is not submitted again.
"""

import argparse
import inspect
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from weightlab import errors, paths, values
from weightlab.errors import UserError, check_whole, choose, flat

if TYPE_CHECKING:
    from dask_jobqueue.core import JobQueueCluster

KINDS = {"pbs": "PBS", "slurm": "SLURM"}
LEAVE_EARLIER_S = 120  # than the walltime: a worker that leaves hands its task on at once, a killed one is noticed later
LEAVE_APART_S = 30  # so that not all workers leave at once
LOSSES = 50  # of workers by one task: no search should take 50 walltimes; one that needs too much memory kills every worker
ENVIRONMENT = ("export OMP_NUM_THREADS=1", "export OMP_WAIT_POLICY=PASSIVE")


@dataclass(frozen=True)
class Cluster:
    """The contents of a YAML file of `params/cluster`.

    `kind` is pbs or slurm, `jobs` the number of jobs kept in the queue, `options` those of dask-jobqueue's PBSCluster or SLURMCluster.
    Unless they say otherwise a job has one process of one thread for each core, which leaves before the walltime.
    Raises `UserError` for unknown options, and if cores, memory or walltime are missing.
    """

    kind: str
    jobs: int = 1
    options: Mapping = field(default_factory=dict)

    def __post_init__(self) -> None:
        choose("kind of cluster", self.kind, KINDS)
        check_whole("jobs", self.jobs)
        if not isinstance(self.options, Mapping):
            raise UserError(f"options of a cluster must be 'name: value' lines, got {self.options!r}")
        allowed = sorted(_option_names(self.kind))
        for name in self.options:
            choose(f"option of a {self.kind} cluster", name, allowed)
        for name in ("cores", "memory", "walltime"):
            if name not in self.options:
                raise UserError(f"a cluster needs cores, memory and walltime, got no {name}")
        seconds(self.options["walltime"], self.kind)

    def settings(self) -> dict:
        """All options, with our defaults for those that are not given."""
        options = dict(self.options)
        options.setdefault("processes", options["cores"])
        options["job_script_prologue"] = [*ENVIRONMENT, *options.get("job_script_prologue", [])]
        extra = [str(each) for each in options.get("worker_extra_args", [])]
        if "--lifetime" not in extra:
            walltime_s = seconds(options["walltime"], self.kind)
            early = min(LEAVE_EARLIER_S, walltime_s // 4)
            extra += ["--lifetime", f"{walltime_s - early}s", "--lifetime-stagger", f"{min(LEAVE_APART_S, early // 2)}s"]
        return options | {"worker_extra_args": extra}


def read(file: str | Path) -> Cluster:
    """A cluster from a YAML file, its path as given or below the repository; raises `UserError` for wrong entries."""
    path = paths.resolve(file)
    entries = values.read_file(path)
    for name in entries:
        choose(f"key in {path.name}", name, ("kind", "jobs", "options"))
    if "kind" not in entries:
        raise UserError(f"{path} needs a kind; allowed: {', '.join(KINDS)}")
    return Cluster(**entries)


def job_script(cluster: Cluster) -> str:
    """The script that would be submitted."""
    queue = _queue(cluster)
    try:
        return queue.job_script()
    finally:
        queue.close()


def start(cluster: Cluster) -> "JobQueueCluster":
    """Start the dask-jobqueue cluster: it keeps `jobs` jobs in the queue until it is closed.

    Raises `UserError` where the queue's command is missing or refuses the first job.
    """
    queue = _queue(cluster)
    try:
        _submit_first(queue)
    except BaseException:
        queue.close()
        raise
    queue.adapt(minimum_jobs=cluster.jobs, maximum_jobs=cluster.jobs)  # submits again what has ended; `scale` would not
    return queue


def _submit_first(queue: "JobQueueCluster") -> None:
    """Submit one job and wait for the answer: later refusals are only logged."""
    command = queue.job_cls.submit_command  # type: ignore[union-attr]  # every cluster but the abstract one has it
    if not shutil.which(command):
        raise UserError(f"the command {command} was not found; run this on a login node of the cluster")

    from distributed import Status

    async def submitted() -> None:
        await queue

    queue.worker_spec |= queue.new_worker_spec()
    try:
        queue.sync(submitted)
    except (OSError, RuntimeError, ValueError) as error:  # the command cannot be run, refuses, or names no job
        for job in queue.workers.values():
            job.status = Status.failed  # or the cluster could not be closed
        raise UserError(f"{command} submitted no job: {flat(error)}") from None


def seconds(walltime: str, kind: str) -> int:
    """A walltime such as 01:30:00, 90:00 or 1-12:00:00 in seconds; a lone number is minutes for SLURM, seconds for PBS.

    Raises `UserError` for any other text, and for a number: YAML reads 10:00:00 without quotes as 36000.
    """
    if not isinstance(walltime, str):
        raise UserError(f"a walltime must be text, got {walltime!r}; write it in quotes, such as '10:00:00'")
    days, _, clock = walltime.rpartition("-")
    parts = clock.split(":")
    if not all(part.isdecimal() for part in [*parts, days or "0"]) or len(parts) > 3:
        raise UserError(f"a walltime must be HH:MM:SS in quotes, got {walltime!r}")
    numbers = [int(part) for part in parts]
    if days:
        numbers += [0] * (3 - len(numbers))  # days-hours, days-hours:minutes
    elif len(numbers) == 1 and kind == "slurm":
        numbers = [0, *numbers, 0]
    return int(days or 0) * 86_400 + sum(number * 60**power for power, number in enumerate(reversed(numbers)))


def _queue(cluster: Cluster) -> "JobQueueCluster":
    options = {"allowed_failures": LOSSES, "dashboard": False, "dashboard_address": None}
    cluster_class = getattr(_jobqueue(), f"{KINDS[cluster.kind]}Cluster")
    return cluster_class(**cluster.settings(), scheduler_options=options)


def _option_names(kind: str) -> set[str]:
    jobqueue = _jobqueue()
    job = getattr(jobqueue, f"{KINDS[kind]}Cluster").job_cls
    core = jobqueue.core
    names = {name for each in (job, core.Job, core.JobQueueCluster) for name in inspect.signature(each.__init__).parameters}
    ours = {"self", "scheduler", "scheduler_options", "scheduler_cls", "job_cls", "n_workers", "loop", "asynchronous"}
    return names - ours - {"base_class_kwargs", "job_kwargs"}


def _jobqueue() -> ModuleType:
    try:
        import dask_jobqueue
    except ImportError:
        raise UserError("PBS and SLURM clusters need the extra: pip install 'weightlab[cluster]'") from None
    return dask_jobqueue


def main() -> None:
    """`python -m weightlab.runs.job_queues FILE`: print the job script that would be submitted."""
    parser = argparse.ArgumentParser(prog="python -m weightlab.runs.job_queues", description="Print the job script of a cluster.")
    parser.add_argument("file", help="a YAML file such as params/cluster/pbs.yaml")
    print(job_script(read(parser.parse_args().file)))


if __name__ == "__main__":
    errors.run(main)
