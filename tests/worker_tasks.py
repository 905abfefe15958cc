"""What tests let worker processes do; in a module of its own, since a worker imports the module of its task."""

import os
import signal
import time
from pathlib import Path

import numpy as np

_grown = []


def die(_):
    os.kill(os.getpid(), signal.SIGKILL)


def grow(_):
    _grown.append(np.ones(25_000_000))  # 200 MB
    time.sleep(1.1)  # joblib looks once a second
    return os.getpid()


def die_twice(file):
    """An item that kills its worker twice, and another that waits for that."""
    deaths = Path(file).with_name("deaths")
    if Path(file).name == "b":
        while not deaths.exists() or len(deaths.read_text()) < 2:
            time.sleep(0.1)
        return
    if deaths.exists() and len(deaths.read_text()) == 2:
        return
    with open(deaths, "a") as counted:
        counted.write("x")
    os.kill(os.getpid(), signal.SIGKILL)
