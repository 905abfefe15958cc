"""What is shown while a grid runs: on a real terminal, in a log, in an executed notebook."""

import os
import pty
import re
import shutil
import subprocess
import sys
import termios
import time
from contextlib import suppress

import nbformat
import pytest
from nbclient import NotebookClient
from test_status import checkpoint, complete, failed, waiting
from warm_python import kernels, python

from weightlab.runs import progress, status
from weightlab.runs.progress import Progress, Steps

GRID = """
import sys, time
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_status import complete, waiting
from weightlab.runs.progress import Progress
folder = Path({folder!r})
runs = [waiting(folder, seed=seed).name for seed in range(3)]
with Progress(folder, runs, every_s=0.05) as shown:
    while shown._last is None:  # what was there before is not read yet
        time.sleep(0.01)
    for seed in range(3):
        complete(folder, seed=seed)
        time.sleep(0.3)
        print("said by the run")
"""


@pytest.fixture
def code(tmp_path):
    return GRID.format(tests=os.path.dirname(__file__), folder=str(tmp_path / "grid"))


def test_a_log_gets_the_whole_at_the_end_and_stdout_nothing(code):
    done = subprocess.run([*python(), "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "said by the run\n" * 3
    line, head, best = done.stderr.splitlines()
    assert re.fullmatch(r"3 of 3 searches complete; \d+ evaluations in \d+ s( \([\d.]+ evaluations/s\))?", line)
    assert head.split() == ["group", "complete", "best", "accuracy", "at", "storage", "rate"]
    assert re.fullmatch(r"lenet5_tanh +3 of 3 +\d\d\.\d\d % +\d+\.\d\d", best)


def test_a_long_log_gets_a_line_now_and_then(tmp_path, monkeypatch, capsys):
    """As often as it may, however often the state could be told; how long a slow machine takes for it does not matter."""
    monkeypatch.setattr(progress._Log, "least_s", 0.2)
    runs, log = [waiting(tmp_path, seed=seed).name for seed in range(2)], ""
    started = time.monotonic()
    with Progress(tmp_path, runs, every_s=0.01):
        while "0 of 2 searches complete" not in log:
            log += capsys.readouterr().err
        complete(tmp_path)
        while "evaluations/s" not in log:
            log += capsys.readouterr().err
    *lines, _, _ = (log + capsys.readouterr().err).splitlines()  # without the table at the end
    assert len(lines) - 1 <= (time.monotonic() - started) / 0.2
    assert re.match(r"0 of 2 searches complete, 2 waiting; 0 of 200 evaluations; \d+ s so far; measuring", lines[0])
    told = r"1 of 2 searches complete, 1 waiting; 100 of 200 evaluations; .+ so far; [\d.]+ evaluations/s; about .+ left"
    assert re.fullmatch(told, lines[-2])
    assert re.fullmatch(r"1 of 2 searches complete, 1 waiting; 100 evaluations in \d+ s \([\d.]+ evaluations/s\)", lines[-1])


def read(terminal):
    """What a terminal was given until it was closed."""
    shown = b""
    with suppress(OSError):  # it is closed
        while True:
            shown += os.read(terminal, 65536)
    os.close(terminal)
    return shown


def test_a_terminal_shows_one_table_that_is_kept_up_to_date(code):
    master, slave = pty.openpty()
    with subprocess.Popen([*python(), "-c", code], stdout=subprocess.PIPE, stderr=slave, text=True) as process:
        os.close(slave)
        shown = read(master)
        assert process.stdout.read() == "said by the run\n" * 3, "what the run prints to a pipe stays there"
    text = shown.decode()
    assert text.startswith("\x1b[?25l") and text.rstrip().endswith("\x1b[?25h"), "the cursor comes back"
    assert re.search("[012] of 3 searches complete", text)
    last = re.sub(r"\x1b\[[?\d;]*[a-zA-Z]", "", text[text.rindex("3 of 3 searches complete") :])  # without colours
    assert re.search(r"best accuracy +at storage rate", last) and re.search(r"lenet5_tanh +3 of 3 +\d\d\.\d\d % +\d+\.\d\d", last)


def test_an_executed_notebook_keeps_the_last_state_only(code, tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_PATH", kernels()["JUPYTER_PATH"])
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    NotebookClient(notebook, timeout=60).execute(cwd=tmp_path)
    shown = [output for output in notebook.cells[0].outputs if output.output_type == "display_data"]
    assert len(shown) == 1 and shown[0].data["text/plain"].startswith("3 of 3 searches complete; 300 evaluations in")
    assert not any(output.get("name") == "stderr" for output in notebook.cells[0].outputs)


def test_a_display_that_fails_does_not_end_the_run(tmp_path, monkeypatch):
    def broken(*_):
        raise OSError("no terminal")

    monkeypatch.setattr(progress._Log, "show", broken)
    monkeypatch.setattr(progress._Log, "end", broken)
    with Progress(tmp_path, [waiting(tmp_path).name], every_s=0.01) as shown:
        time.sleep(0.1)
        assert shown._thread.is_alive()
    assert not shown._thread.is_alive()


def test_nothing_is_shown_where_nothing_is_wanted(tmp_path, capsys):
    with Progress(tmp_path, [waiting(tmp_path).name], show=False, every_s=0.01):
        time.sleep(0.05)
    assert capsys.readouterr() == ("", "")


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_speed_and_time_left_count_what_is_made_since_and_not_what_has_failed(tmp_path, clock):
    """Two of a hundred evaluations each at ten a second; one begun before, one that fails meanwhile."""
    places = [complete(tmp_path, seed=seed) for seed in range(2)] + [waiting(tmp_path, seed=2)]
    checkpoint(places[0], 50)
    checkpoint(places[1], 10)
    shown = Progress(tmp_path, [place.name for place in places])
    shown._started = 0.0
    assert shown._state()[0].startswith("0 of 3 searches complete, 2 partial, 1 waiting; 60 of 300 evaluations; 0 s so far; ")
    clock[0] = 2.0
    (places[0] / "checkpoint.parquet").unlink()
    complete(tmp_path, seed=0)
    assert "25 evaluations/s; about 8 s left" in shown._state()[0]  # 50 in 2 s; 90 + 100 to go
    failed(tmp_path, seed=2)
    assert "25 evaluations/s; about 4 s left" in shown._state()[0]


def test_a_slow_search_is_told_with_what_it_has_done_and_seconds_each(tmp_path, clock):
    place = complete(tmp_path)
    done = shutil.copytree(place, tmp_path.parent / "done")
    checkpoint(place, 3)  # inside a generation, as where evaluations are slow
    shown = Progress(tmp_path, [place.name])
    shown._started = 0.0
    shown._state()
    clock[0] = 21.0
    shutil.copytree(done, place, dirs_exist_ok=True)
    checkpoint(place, 8)
    assert "8 of 100 evaluations; 21 s so far; 4.2 s an evaluation; about 6 min left" in shown._state()[0]


SPEEDS = {25.3: "25 evaluations/s", 2.53: "2.5 evaluations/s", 0.25: "4 s an evaluation", 1 / 12.3: "12 s an evaluation"}


@pytest.mark.parametrize("per_second, told", SPEEDS.items())
def test_a_speed_is_told_in_the_unit_that_has_digits(per_second, told):
    assert status.pace(per_second) == told


# --- one piece of work in steps -------------------------------------------------------------------------------------------------


def test_steps_tell_a_log_now_and_then_and_at_the_end(clock, capsys):
    with Steps("scan net", 20, done=5) as steps:
        for _ in range(12):
            clock[0] += 20.0
            steps.add(1)
    assert capsys.readouterr() == (
        "",
        "scan net: 8 of 20 evaluations; 20 s an evaluation; about 4 min left\n"
        "scan net: 11 of 20 evaluations; 20 s an evaluation; about 3 min left\n"
        "scan net: 14 of 20 evaluations; 20 s an evaluation; about 2 min left\n"
        "scan net: 17 of 20 evaluations; 20 s an evaluation; about 60 s left\n"
        "scan net: 17 of 20 evaluations; 20 s an evaluation; about 60 s left\n",
    )


def test_steps_that_are_done_are_told_once_and_hidden_ones_never(clock, capsys):
    with Steps("scan net", 2) as steps:
        clock[0] = 1.0
        steps.add(2)
    assert capsys.readouterr().err == "scan net: 2 of 2 evaluations; 2 evaluations/s\n"
    with Steps("scan net", 2, show=False) as steps:
        clock[0] = 99.0
        steps.add(2)
    assert capsys.readouterr() == ("", "")


def test_steps_are_a_bar_on_a_terminal_which_begins_where_an_earlier_call_ended():
    code = "from weightlab.runs.progress import Steps\nwith Steps('scan net', 20, done=5) as steps: steps.add(15)"
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 80))
    subprocess.run([sys.executable, "-c", code], stderr=slave, check=True)
    os.close(slave)
    shown = read(master).decode()
    assert "5/20" in shown and "20/20" in shown and "evaluations" not in shown
