"""Python processes for tests, each forked from one that has imported torch and the library: from a cold start that takes seconds.

Such a process is one of its own, with the arguments, environment, folder, input and output of the one that asked for it, and ends with it.
"""

import functools
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

PLAIN = ("weightlab.analysis", "weightlab.figures")
TORCH = (
    *PLAIN, "torch", "torch._dynamo", "numba", "sklearn.mixture",
    "weightlab.runs.runner", "weightlab.sharing", "weightlab.tuning", "weightlab.training", "weightlab.explore",
)  # fmt: skip
COMMANDS = ("weightlab.cli", "papermill", "nbconvert.preprocessors", *TORCH)
KERNEL = "import os; from ipykernel import kernelapp; kernelapp.launch_new_instance(parent_handle=os.getppid())"
ASK = [sys.executable, "-S", "-E", __file__, "ask"]
SERVERS: list[subprocess.Popen] = []  # which end with this process, as their input then ends


def python() -> list[str]:
    """What stands for `python` in a command, before `-m module` or `-c code`."""
    return [*ASK, str(_server(COMMANDS) / "socket")]


def kernels(modules: tuple[str, ...] = TORCH) -> dict[str, str]:
    """An environment in which Jupyter starts kernels so, of a process that has imported some modules."""
    inline = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}  # as ipykernel sets it, before any import
    return {"JUPYTER_PATH": str(_server(("ipykernel.kernelapp", "ipykernel.debugger", *modules), **inline))}


@functools.cache
def _server(modules: tuple[str, ...], **environment: str) -> Path:
    """The folder of a process that forks, which ends with this one."""
    command = [sys.executable, __file__, "serve", *modules]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | environment)
    SERVERS.append(process)
    folder = process.stdout.readline().strip()
    assert folder, "it could not import what it was asked to"
    return Path(folder)


def serve(*modules: str) -> None:
    for module in modules:
        importlib.import_module(module)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        place = Path(folder, "kernels", "python3")
        place.mkdir(parents=True)
        words = [*ASK, f"{folder}/socket", "-c", KERNEL, "-f", "{connection_file}"]
        (place / "kernel.json").write_text(json.dumps({"argv": words, "display_name": "Python 3", "language": "python"}))
        listener.bind(f"{folder}/socket")
        listener.listen()
        print(folder, flush=True)
        while sys.stdin not in select.select([sys.stdin, listener], [], [])[0]:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                become(connection)
            connection.close()


def become(connection: socket.socket) -> None:
    """Be the process that the other end asks for, to its end."""
    header, files, _, _ = socket.recv_fds(connection, 4, 3)
    with connection.makefile("rb") as stream:
        asked = json.loads(stream.read(int.from_bytes(header, "big")))
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # or it could not wait for processes of its own
    os.setsid()
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
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
