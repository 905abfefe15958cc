"""PBS and SLURM clusters. No queue is at hand here: `qsub`, `sbatch` and the like are stand-ins; scripts, jobs and workers are real.

The stand-in runs a job script in a session of its own, ends it at a walltime of its own, and prints the job's number as the queue does.
"""

import os
import stat
import subprocess
import sys
import time
import warnings
from itertools import pairwise
from pathlib import Path

import pytest
import worker_tasks
import yaml

from weightlab import paths
from weightlab.errors import UserError
from weightlab.runs import executors, job_queues
from weightlab.runs.job_queues import Cluster

pytest.importorskip("dask_jobqueue", reason="clusters are the extra weightlab[cluster]")
psutil = pytest.importorskip("psutil")
FOLDER = paths.params() / "cluster"
SMALL = {"cores": 2, "memory": "4GB", "walltime": "01:00:00"}
SUBMITTED = {"pbs": "qsub", "slurm": "sbatch"}


@pytest.mark.parametrize(
    ("kind", "lines"),
    [
        ("pbs", ["#PBS -q normal", "#PBS -A my-project", "#PBS -l select=1:ncpus=16:mem=48gb", "#PBS -l walltime=01:00:00"]),
        (
            "slurm",
            [
                "#SBATCH -p normal",
                "#SBATCH -A my-project",
                "#SBATCH --cpus-per-task=16",
                "#SBATCH --mem=45G",
                "#SBATCH -t 01:00:00",
            ],
        ),
    ],
)
def test_the_job_script_says_what_the_file_says(kind, lines):
    done = subprocess.run(
        [sys.executable, "-m", "weightlab.runs.job_queues", FOLDER / f"{kind}.yaml"], capture_output=True, text=True, check=True
    )
    script = done.stdout.strip().splitlines()
    assert script[0] == "#!/usr/bin/env bash" and set(lines) <= set(script)
    assert script[-3:-1] == ["export OMP_NUM_THREADS=1", "export OMP_WAIT_POLICY=PASSIVE"]
    worker = script[-1].split()
    assert worker[1:4] == ["-m", "distributed.cli.dask_worker", worker[3]] and worker[3].startswith("tcp://")
    options = dict(pairwise(worker[4:]))
    assert options["--nthreads"] == "1" and options["--nworkers"] == "16" and "--nanny" in options
    assert options["--lifetime"] == "3480s" and options["--lifetime-stagger"] == "30s"  # below the walltime of 3600 s


def test_what_the_file_gives_goes_before_what_we_would_choose():
    given = {"processes": 1, "worker_extra_args": ["--lifetime", "10m"], "job_script_prologue": ["module load python"]}
    settings = Cluster("pbs", options=SMALL | given).settings()
    assert settings["processes"] == 1 and settings["worker_extra_args"] == ["--lifetime", "10m"]
    assert settings["job_script_prologue"] == [*job_queues.ENVIRONMENT, "module load python"]
    assert Cluster("slurm", options=SMALL).settings()["processes"] == 2


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("kind: lsf", "unknown kind of cluster 'lsf'; allowed: pbs, slurm"),
        ("jobs: 2", "needs a kind; allowed: pbs, slurm"),
        ("kind: pbs\nqueue: normal", "unknown key in cluster.yaml 'queue'; allowed: kind, jobs, options"),
        ("kind: pbs\noptions: {cores: 2, memroy: 2GB}", "unknown option of a pbs cluster 'memroy'; allowed: .*memory"),
        ("kind: slurm\noptions: {resource_spec: x}", "unknown option of a slurm cluster 'resource_spec'"),
        ("kind: pbs\njobs: 0", "jobs must be a whole number of at least 1, got 0"),
        ("kind: pbs\noptions: {cores: 2, memory: 2GB}", "got no walltime"),
        ("kind: pbs\noptions: {cores: 2, memory: 2GB, walltime: soon}", "a walltime must be HH:MM:SS in quotes, got 'soon'"),
        ("kind: slurm\noptions: {cores: 2, memory: 2GB, walltime: 90}", "must be text, got 90; write it in quotes"),
        ("kind: pbs\noptions: 3", "options of a cluster must be"),
        ("- pbs", "must hold 'name: value' lines, got list"),
        ("kind: [", "is not valid YAML"),
        ("kind: pbs\nkind: slurm", "found duplicate key"),
    ],
)
def test_a_file_with_something_wrong_is_refused_in_one_sentence(tmp_path, text, sentence):
    file = tmp_path / "cluster.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=sentence) as caught:
        job_queues.read(file)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="cannot be read"):
        job_queues.read(tmp_path / "missing.yaml")


def test_a_walltime_needs_no_quotes(tmp_path):
    """YAML 1.1 read 10:00:00 as 36000."""
    (tmp_path / "cluster.yaml").write_text("kind: pbs\noptions: {cores: 2, memory: 2GB, walltime: 10:00:00}")
    assert job_queues.read(tmp_path / "cluster.yaml").options["walltime"] == "10:00:00"


@pytest.mark.parametrize(
    ("walltime", "pbs", "slurm"),
    [
        ("01:30:00", 5400, 5400),
        ("90:00", 5400, 5400),
        ("90", 90, 5400),
        ("1-12:00:00", 129_600, 129_600),
        ("1-12", 129_600, 129_600),
        ("00:00:20", 20, 20),
    ],
)
def test_walltimes_are_read_as_the_queues_read_them(walltime, pbs, slurm):
    """A lone number is seconds in PBS's resource formats, minutes in sbatch's --time."""
    assert (job_queues.seconds(walltime, "pbs"), job_queues.seconds(walltime, "slurm")) == (pbs, slurm)
    early = Cluster("pbs", options=SMALL | {"walltime": walltime}).settings()["worker_extra_args"]
    assert pbs * 3 // 4 <= int(early[1].removesuffix("s")) < pbs, "workers leave before the queue ends their job"


@pytest.fixture
def queue(tmp_path, monkeypatch):
    """Stand-ins for the commands of both queues; a job is ended after as many seconds as the file `walltime` says."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (tmp_path / "walltime").write_text("600")
    submit = f"""#!/bin/bash
number=$(ls {tmp_path}/job-* 2>/dev/null | wc -l)
cp "${{@: -1}}" {tmp_path}/job-$number
(setsid timeout --signal=KILL $(cat {tmp_path}/walltime) bash {tmp_path}/job-$number >{tmp_path}/out-$number 2>&1; true) >/dev/null 2>&1 &
"""
    scripts = {"qsub": submit + "echo $number.stand-in", "sbatch": submit + "echo Submitted batch job $number"}
    scripts |= dict.fromkeys(("qdel", "scancel"), f'#!/bin/bash\npkill -KILL -f "{tmp_path}/job-${{1%%.*}}$"; exit 0')
    for name, script in scripts.items():
        (programs / name).write_text(script + "\n")
        (programs / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))  # where jobs find the functions below
    before = {process.pid for process in psutil.process_iter()}
    yield tmp_path
    left = [
        process for process in psutil.process_iter() if process.pid not in before and str(tmp_path) in " ".join(_command(process))
    ]
    _, alive = psutil.wait_procs(left, timeout=30)
    assert not alive


def _command(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _written(tmp_path, kind, **more):
    file = tmp_path / f"{kind}.yaml"
    local = {"cores": 1, "interface": "lo", "local_directory": str(tmp_path), "log_directory": str(tmp_path)}
    file.write_text(yaml.safe_dump({"kind": kind, "options": SMALL | local | more}))
    return str(file)


@pytest.mark.parametrize("kind", SUBMITTED)
def test_calls_are_made_in_the_jobs_of_a_queue(queue, kind):
    results = dict(executors.execute(_square, [1, 2, 3], scheduler=_written(queue, kind)))
    assert {item: value for item, (value, _) in results.items()} == {1: 1, 2: 4, 3: 9}
    assert {parent for _, parent in results.values()} != {os.getpid()} and (queue / "job-0").exists()


@pytest.mark.parametrize("kind", SUBMITTED)
def test_a_queue_that_refuses_is_told_with_what_it_said(queue, kind):
    command = queue / "bin" / SUBMITTED[kind]
    command.write_text("#!/bin/bash\necho Unknown queue >&2; exit 1\n")
    with pytest.raises(UserError, match=f"{SUBMITTED[kind]} submitted no job: .*Unknown queue") as caught:
        list(executors.execute(_square, [1], scheduler=_written(queue, kind)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", SUBMITTED)
def test_a_machine_without_the_command_of_the_queue_is_told(tmp_path, monkeypatch, kind):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=f"the command {SUBMITTED[kind]} was not found"):
        list(executors.execute(_square, [1], scheduler=_written(tmp_path, kind)))


def test_workers_of_several_threads_are_refused(queue):
    with pytest.raises(UserError, match=r"of .*pbs.yaml has 2 threads; start workers with --nthreads 1"):
        list(executors.execute(_square, [1], scheduler=_written(queue, "pbs", cores=2, processes=1)))


@pytest.mark.parametrize("scheduler", [Path("pbs.yaml"), 8786, "somewhere"], ids=repr)
def test_a_scheduler_that_is_no_text_or_cannot_be_meant_is_refused(scheduler):
    with pytest.raises(UserError, match="scheduler must be an address .*, as text, got "):
        executors.check(None, scheduler)


def test_every_death_of_a_worker_is_told(tmp_path):
    """Twice before the same item is done, so in the same words but for their number."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        done = list(executors.execute(worker_tasks.die_twice, [str(tmp_path / "a"), str(tmp_path / "b")], workers=2))
    assert len(done) == 2
    told = [str(each.message) for each in caught if "a worker died" in str(each.message)]
    assert [text.split(";")[0] for text in told] == ["a worker died (1 in a row)", "a worker died (2 in a row)"]


def test_a_search_that_kills_its_workers_is_given_up_before_it_has_killed_hundreds(queue):
    cluster = job_queues._queue(job_queues.read(_written(queue, "pbs")))  # no job is submitted yet
    try:
        assert cluster.scheduler.allowed_failures == 50
    finally:
        cluster.close()


def test_jobs_that_do_not_begin_and_workers_without_weightlab_are_told(queue, monkeypatch):
    """Again and again for as long as there is no worker."""
    monkeypatch.setattr(executors, "PATIENCE_S", 1)
    (queue / "weightlab.py").write_text("raise ImportError('another environment')")
    file = _written(queue, "pbs", job_script_prologue=["sleep 3", f"export PYTHONPATH={queue}"])
    with (
        pytest.warns(UserWarning, match=r"no worker of .*pbs.yaml for 0 min") as told,
        pytest.raises(
            UserError, match=r"cannot import weightlab \(another environment\); set the option .python. to their Python"
        ),
    ):
        list(executors.execute(_square, [1], scheduler=file))
    assert len({str(each.message) for each in told if "no worker" in str(each.message)}) >= 2, "in words that are not the same"


def _square(x):
    return x * x, os.getpid()


def test_a_call_longer_than_the_walltime_of_its_job_is_taken_over_by_the_next(queue):
    """The first job is killed at its walltime in the middle of the call; a job submitted anew goes on where it was."""
    (queue / "walltime").write_text("9")
    ((_, steps),) = executors.execute(_step_by_step, [str(queue / "steps")], scheduler=_written(queue, "pbs"))
    assert steps == [str(i) for i in range(STEPS)]
    assert len(list(queue.glob("job-*"))) >= 2, "a second job was submitted"


STEPS = 30  # of a third of a second each


def _step_by_step(file):
    """A stand-in for a search with checkpoints: a line now and then, going on from those that are there."""
    with open(file, "a+") as lines:
        lines.seek(0)
        for step in range(len(lines.readlines()), STEPS):
            time.sleep(1 / 3)
            print(step, file=lines, flush=True)
    with open(file) as lines:
        return lines.read().split()
