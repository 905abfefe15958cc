"""Where torch runs: device, threads, and a torchvision that imports without its compiled operators."""

import contextlib
import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import TypeVar

import torch

from weightlab.errors import UserError, check_whole

Result = TypeVar("Result")


def device(name: str = "auto") -> torch.device:
    """The torch device called `name`; `auto` is the GPU if there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        place = torch.device(name)
        if place.type not in ("cpu", "cuda"):
            raise RuntimeError(name)
    except RuntimeError:
        raise UserError(f"unknown device {name!r}; allowed: auto, cpu, cuda, cuda:N") from None
    if place.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device {name!r} was asked for, but this torch sees no GPU; allowed: auto, cpu")
    return place


def cores() -> int:
    """Number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_threads(n: int | None) -> int | None:
    """`n`, which is None or a number of threads; raises `UserError` for anything else."""
    if n is not None:
        check_whole("threads", n)
    return n


def return_memory() -> None:
    """Return freed memory to the system if the C library keeps it, as glibc does with activations."""
    if trim := getattr(ctypes.CDLL(None) if os.name == "posix" else None, "malloc_trim", None):
        trim(0)


@contextlib.contextmanager
def threads(n: int | None) -> Iterator[None]:
    """Run the body with `n` torch threads, then put the old number back; None leaves it alone."""
    before = torch.get_num_threads()
    if count := check_threads(n):
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Run the body with convolutions in float32 on a GPU too, where torch otherwise rounds their inputs to 10 bits (TF32)."""
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def torchvision() -> ModuleType:
    """Import torchvision, also beside a CPU-only torch."""

    def imported() -> ModuleType:
        import torchvision
        import torchvision.datasets
        import torchvision.models
        import torchvision.transforms

        return torchvision

    return with_torchvision(imported)


def with_torchvision(call: Callable[[], Result]) -> Result:
    """The result of `call`, which may import torchvision; it is called again if that import fails because operators are missing.

    The packaged torchvision is built for CUDA; with a CPU torch its compiled operators do not load and its import stops at two
    missing schemas. Declaring those is enough for models, transforms and datasets; the operators themselves stay unavailable.
    """
    try:
        return call()
    except RuntimeError as error:
        if "torchvision::nms" not in str(error) or _libraries:
            raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]  # what the failed import left half-made
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _libraries.append(library)
    return call()


_libraries: list[torch.library.Library] = []  # a library's schemas vanish with it
