"""Python processes for tests, each forked from one that has imported torch and the library: from a cold start that takes seconds.

Such a process is one of its own, with the arguments, environment, folder, input and output of the one that asked for it, and ends with it.
"""

import functools
import gc
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

PLAIN = ("ipykernel.kernelapp", "ipykernel.debugger", "weightlab.cli", "weightlab.analysis", "weightlab.figures")
MODULES = (  # tqdm.auto first, which would take a process that has imported ipykernel for a notebook
    "tqdm.auto", "papermill", *PLAIN, "torch", "torch._dynamo", "numba", "sklearn.mixture", "nbconvert.preprocessors", "weightlab.runs.runner",
    "weightlab.sharing", "weightlab.tuning", "weightlab.training", "weightlab.explore",
)  # fmt: skip
KERNEL = "import os; from ipykernel import kernelapp; kernelapp.launch_new_instance(parent_handle=os.getppid())"
INLINE = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}  # as ipykernel sets it, before any import
ASK = [sys.executable, "-S", "-E", __file__, "ask"]
STARTED: list[subprocess.Popen] = []


def python() -> list[str]:
    """What stands for `python` in a command, before `-m module` or `-c code`."""
    return [*ASK, str(_server(MODULES) / "socket")]


def kernels(modules: tuple[str, ...] = MODULES) -> dict[str, str]:
    """An environment in which Jupyter starts kernels so, of a process that has imported some modules."""
    return {"JUPYTER_PATH": str(_server(modules))}


@functools.cache
def _server(modules: tuple[str, ...]) -> Path:
    """The folder of a process that forks, one for all processes of a test run: the first that asks starts it."""
    from filelock import FileLock  # not above: those who ask do without installed packages

    several = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    folder = Path(tempfile.gettempdir(), f"weightlab-{several or os.getpid()}-{len(modules)}")
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            owner = os.getppid() if several else os.getpid()
            command = [sys.executable, __file__, "serve", str(folder), str(owner), *modules]
            started = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True)
            STARTED.append(started)
            assert started.stdout.readline(), "it could not import what it was asked to"
    return folder


def serve(folder: str, owner: str, *modules: str) -> None:
    """Fork for all who ask, until the test run has ended."""
    gc.disable()
    for module in modules:
        importlib.import_module(module)
    gc.freeze()  # a child's collections leave what was imported alone: it shares those pages with all others
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    place = Path(folder, "kernels", "python3")
    place.mkdir(parents=True)
    words = [*ASK, f"{folder}/socket", "-c", KERNEL, "-f", "{connection_file}"]
    spec = {"argv": words, "display_name": "Python 3", "language": "python", "env": INLINE}
    (place / "kernel.json").write_text(json.dumps(spec))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{folder}/socket")
        listener.listen()
        print("ready", flush=True)
        while _lives(int(owner)):
            if not select.select([listener], [], [], 1)[0]:
                continue
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                become(connection)
            connection.close()
    shutil.rmtree(folder)
    Path(f"{folder}.lock").unlink()


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def become(connection: socket.socket) -> None:
    """Be the process that the other end asks for, to its end."""
    header, files, _, _ = socket.recv_fds(connection, 4, 3)
    with connection.makefile("rb") as stream:
        asked = json.loads(stream.read(int.from_bytes(header, "big")))
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    gc.enable()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # or it could not wait for processes of its own
    os.setsid()
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    if backend := os.environ.get("MPLBACKEND"):
        sys.modules["matplotlib"].rcParams["backend"] = backend  # matplotlib reads it when it is imported
    sys.path[:1] = [os.getcwd(), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    connection.sendall(os.getpid().to_bytes(4, "big"))
    threading.Thread(target=lambda: (connection.recv(1), os._exit(1)), daemon=True).start()  # it ends with the other end
    code = 0
    try:
        run(*asked["arguments"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        code = 1
        sys.excepthook(*sys.exc_info())
    sys.stdout.flush()
    sys.stderr.flush()
    connection.sendall(bytes([code]))
    os._exit(code)


def run(how: str, what: str, *arguments: str) -> None:
    """`-m module` or `-c code`."""
    sys.argv = [how, *arguments]
    if how == "-m":
        if not hasattr(sys.modules.get(what), "__path__"):
            sys.modules.pop(what, None)  # a module that is imported already would run a second time with a warning
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})


def ask(path: str, *arguments: str) -> None:
    """Stand in for the process until it ends: what is started, signalled, killed and waited for."""
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(path)
        asked = json.dumps({"arguments": arguments, "environment": dict(os.environ), "folder": os.getcwd()}).encode()
        socket.send_fds(server, [len(asked).to_bytes(4, "big")], [0, 1, 2])
        server.sendall(asked)
        pid = int.from_bytes(server.recv(4), "big")
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: os.kill(pid, number))
        code = server.recv(1)
        server.recv(1)  # until it has ended
    sys.exit(code[0] if code else 1)


if __name__ == "__main__":
    {"serve": serve, "ask": ask}[sys.argv[1]](*sys.argv[2:])
