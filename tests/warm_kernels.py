"""Kernels for tests, each forked from a process that has imported what notebooks import: from a cold start that takes seconds.

A kernel is ipykernel's own, in a process of its own, with the environment, the folder and the output of the one that asked for it.
Jupyter finds it as `python3` in the folder that `Warm.environment` names.
"""

import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

PLAIN = ("ipykernel.kernelapp", "weightlab.analysis", "weightlab.figures")
TORCH = (*PLAIN, "torch", "numba", "weightlab.runs.runner", "weightlab.sharing", "weightlab.tuning", "weightlab.training")


class Warm:
    """A process from which kernels are forked, ended with the process that made it."""

    def __init__(self, folder: Path, modules: tuple[str, ...]):
        place = folder / "kernels" / "python3"
        place.mkdir(parents=True)
        command = [sys.executable, "-S", "-E", __file__, "ask", str(folder / "socket"), "{connection_file}"]
        spec = {"argv": command, "display_name": "Python 3", "language": "python"}
        (place / "kernel.json").write_text(json.dumps(spec))
        serve = [sys.executable, __file__, "serve", str(folder / "socket"), *modules]
        inline = os.environ | {
            "MPLBACKEND": "module://matplotlib_inline.backend_inline"
        }  # as ipykernel sets it, before any import
        self._process = subprocess.Popen(serve, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=inline)
        assert self._process.stdout.readline() == b"ready\n"
        self.environment = {"JUPYTER_PATH": str(folder)}

    def close(self) -> None:
        self._process.communicate()


def serve(path: str, *modules: str) -> None:
    for module in modules:
        importlib.import_module(module)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        print("ready", flush=True)
        while sys.stdin not in select.select([sys.stdin, listener], [], [])[0]:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                kernel(connection)
            connection.close()


def kernel(connection: socket.socket) -> None:
    """Become the kernel that the other end asks for."""
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
    sys.path[:0] = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    parent = f"--IPKernelApp.parent_handle={os.getppid()}"  # where a cold kernel has the parent's number from its environment
    sys.argv = ["ipykernel_launcher", "-f", *asked["arguments"], parent]
    connection.sendall(os.getpid().to_bytes(4, "big"))
    threading.Thread(target=lambda: (connection.recv(1), os._exit(1)), daemon=True).start()  # it ends with the other end
    from ipykernel import kernelapp

    kernelapp.launch_new_instance()
    sys.stdout.flush()
    os._exit(0)


def ask(path: str, *arguments: str) -> None:
    """Stand in for the kernel until it ends: what Jupyter starts, signals and kills."""
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(path)
        asked = json.dumps({"arguments": arguments, "environment": dict(os.environ), "folder": os.getcwd()}).encode()
        socket.send_fds(server, [len(asked).to_bytes(4, "big")], [0, 1, 2])
        server.sendall(asked)
        pid = int.from_bytes(server.recv(4), "big")
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: os.kill(pid, number))
        server.recv(1)


if __name__ == "__main__":
    {"serve": serve, "ask": ask}[sys.argv[1]](*sys.argv[2:])
