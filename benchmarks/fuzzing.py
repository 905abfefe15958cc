"""Mutated files read in processes of their own, so that a crash or a hang is counted and not suffered.

A file is survived if it is refused by a `UserError` of one line of printable characters, or if it is a good network: exactly the tensors that the file
declares, of their shapes and types, finite wherever weights are shared, and of the value that is declared for all of a tensor's values.
"""

import re
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection, get_context
from pathlib import Path

import mutations
import numpy as np
import torch

from weightlab import packing
from weightlab.errors import UserError
from weightlab.packing import adaptive_coding, compact_format, metadata, range_coding
from weightlab.packing.compact_metadata import CodedTensor, CompactDetails, ConstantTensor

GROWTH = 1 << 29  # bytes of address space that reading may take
PATIENCE_S = 10  # for one file
LONGEST_MESSAGE = 1000  # characters
START_S = 120  # for a process to come up
MEMORY = Path("/dev/shm")  # a folder in memory, where there is one
processes = get_context("forkserver")  # children start at once, with everything imported
processes.set_forkserver_preload(["weightlab.packing"])


@dataclass
class Survey:
    """What became of all files: `failures` by seed, `refusals` and `accepted` with how many, and the most that one read took."""

    tried: int = 0
    failures: dict[int, str] = field(default_factory=dict)
    refusals: Counter = field(default_factory=Counter)
    accepted: Counter = field(default_factory=Counter)
    slowest_s: float = 0.0
    growth_bytes: int = 0  # of resident memory of a process at its peak, with what making the files took

    @property
    def survived(self) -> int:
        return self.tried - len(self.failures)

    def add(self, seed: int, kind: str, text: str, seconds: float = 0.0, growth: int = 0) -> None:
        self.tried += 1
        if kind == "failed":
            self.failures[seed] = text
        else:
            (self.refusals if kind == "refused" else self.accepted)[text] += 1
        self.slowest_s, self.growth_bytes = max(self.slowest_s, seconds), max(self.growth_bytes, growth)


def survey(
    originals: Sequence[bytes],
    count: int,
    keep: Path,
    tell: Callable[[str], None] = print,
    reader: Callable[[Path], packing.Packed] = packing.read,
    workers: int = 2,
    patience_s: float = PATIENCE_S,
) -> Survey:
    """Have `reader` read `count` mutated files, of seeds 0, 1, ...; those that are not survived are kept in the folder `keep`."""
    found, told = Survey(), time.monotonic()
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as name:
        folder = Path(name)
        shared = [_Worker(originals, range(each, count, workers), folder, reader) for each in range(min(workers, count))]
        while at_work := [worker for worker in shared if worker.seeds]:
            connection.wait([worker.answers for worker in at_work], timeout=0.5)
            for worker in at_work:
                for seed, verdict in worker.news(patience_s):
                    found.add(seed, *verdict)
                    if verdict[0] == "failed":
                        tell(f"NOT SURVIVED: seed {seed}: {verdict[1]}")
                        keep.mkdir(parents=True, exist_ok=True)
                        (keep / f"{seed}.packed").write_bytes(mutations.mutated(originals, seed))
            if time.monotonic() - told > 30:
                told = time.monotonic()
                tell(f"{found.tried} of {count} mutated files tried, {found.survived} survived")
    return found


class _Worker:
    """A process that reads the files of `seeds`, one after the other, and is started again behind a file that ended it."""

    def __init__(self, originals: Sequence[bytes], seeds: range, folder: Path, reader: Callable):
        self.originals, self.seeds, self.folder, self.reader = originals, seeds, folder, reader
        self._start()

    def _start(self) -> None:
        self.answers, theirs = processes.Pipe(duplex=False)
        self.process = processes.Process(target=_work, args=(theirs, self.originals, self.seeds, self.folder, self.reader))
        self.process.start()
        theirs.close()
        self.ready, self.heard = False, time.monotonic()

    def news(self, patience_s: float) -> list[tuple[int, tuple]]:
        """Seeds and verdicts since the last call; a process that is gone or hangs is a verdict on the file it had."""
        verdicts = []
        try:
            while self.answers.poll():
                verdict, self.heard = self.answers.recv(), time.monotonic()
                if self.ready:
                    verdicts.append((self.seeds[0], verdict))
                    self.seeds = self.seeds[1:]
                self.ready = True
            limit = patience_s if self.ready else START_S
            lost = f"no answer for {limit} s" if time.monotonic() - self.heard > limit else ""
        except EOFError:
            self.process.join()
            lost = f"the process ended by itself, exit code {self.process.exitcode}"
        if not self.seeds or lost:
            self.process.kill()
            self.process.join()
        if self.seeds and lost:
            if not self.ready:
                raise RuntimeError(f"a process that reads mutated files did not start: {lost}")
            verdicts.append((self.seeds[0], ("failed", lost)))
            self.seeds = self.seeds[1:]
            if self.seeds:
                self._start()
        return verdicts


def _work(answers: connection.Connection, originals: Sequence[bytes], seeds: range, folder: Path, reader: Callable) -> None:
    torch.set_num_threads(1)
    for dtype in (np.uint8, np.uint16):  # compiled for both, from bytes that cannot be written to
        stream = range_coding.encode(np.arange(300).astype(dtype)).tobytes()
        range_coding.decode(np.frombuffer(stream, np.uint8), 300)
    stream = adaptive_coding.encode(np.zeros(300, np.uint8), 30).tobytes()
    adaptive_coding.decode(np.frombuffer(stream, np.uint8), 300)
    for seed, content in enumerate(originals):  # whatever is loaded at first use is loaded now
        mutations.mutated(originals, seed)
        file = folder / f"original-{seeds[0]}.packed"
        file.write_bytes(content)
        judge(packing.read, file)
    before = _status_bytes("VmRSS")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    limit = _status_bytes("VmSize") + GROWTH
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    answers.send("ready")
    for seed in seeds:
        file = folder / f"{seed}.packed"
        file.write_bytes(mutations.mutated(originals, seed))
        started = time.perf_counter()
        kind, text = judge(reader, file)
        answers.send((kind, text, time.perf_counter() - started, _status_bytes("VmHWM") - before))
        file.unlink()


def judge(reader: Callable[[Path], packing.Packed], file: Path) -> tuple[str, str]:
    """`accepted`, `refused` or `failed`, and what there is to say about it."""
    try:
        packed = reader(file)
        state, shared = packed.state_dict(), packed.shared()
        packed.summary()
    except UserError as error:
        plain = str(error).isprintable() and len(str(error)) <= LONGEST_MESSAGE
        return ("refused", _reason(error, file)) if plain else ("failed", f"a message for nobody: {str(error)[:200]!r}")
    except BaseException as error:  # SystemExit too: a file must not end the program
        return "failed", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if fault := _fault(packed, state, shared):
        return "failed", fault
    finite = all(value.double().isfinite().all() for value in state.values())  # torch knows no such test for float8
    return "accepted", "finite throughout" if finite else "NaN or infinity in a tensor that is not shared"


def _fault(packed: packing.Packed, state: dict[str, torch.Tensor], shared: dict[str, tuple[np.ndarray, np.ndarray]]) -> str:
    """What of a network is not as its file declares, empty if all is."""
    others, same = _declared(packed), packed.details.same
    weights = {name: shape for group in packed.details.groups for name, shape in group.weights}
    if odd := set(state) ^ {*others, *weights, *same}:
        return f"{min(odd)!r} is either declared or there, but not both"
    for name, shape in ({name: shape for name, (shape, _) in others.items()} | weights).items():
        if list(state[name].shape) != shape:
            return f"{name!r} has the shape {list(state[name].shape)}, declared is {shape}"
    for name in weights:
        if state[name].dtype != torch.float32 or not state[name].isfinite().all():
            return f"the shared weight {name!r} is not finite float32"
    for name, (_, dtype) in others.items():
        if state[name].dtype != dtype:
            return f"{name!r} is {state[name].dtype}, declared is {dtype}"
    for tensor in packed.details.tensors if isinstance(packed.details, CompactDetails) else []:
        if isinstance(tensor, CodedTensor) and not state[tensor.name].isfinite().all():
            return f"the coded tensor {tensor.name!r} is not finite"
        if isinstance(tensor, ConstantTensor) and not _constant(state[tensor.name], tensor.value):
            return f"the values of {tensor.name!r} are not all {tensor.value!r}"
    for name, (centroids, labels) in shared.items():
        if not np.array_equal(centroids[labels], state[name].numpy()):
            return f"the shared weight {name!r} is not its centroids under its labels"
    return next((f"{name!r} is not {first!r}" for name, first in same.items() if state[name] is not state[first]), "")


def _declared(packed: packing.Packed) -> dict[str, tuple[list[int], torch.dtype]]:
    """Shape and type of all tensors besides the groups' weights, by name."""
    if isinstance(packed.details, CompactDetails):
        tensors = packed.details.tensors
        types = {each.name: "F32" if isinstance(each, CodedTensor) else each.type for each in tensors}
        return {each.name: (each.shape, compact_format.DTYPES[types[each.name]]) for each in tensors}
    table = metadata.parse(packed.content)[1]
    dtypes = compact_format.DTYPES | {"F8_E4M3": torch.float8_e4m3fn}
    dtypes |= {"F16": torch.float32} if packed.details.rest == "float16" else {}
    return {name: (table[name]["shape"], dtypes[table[name]["dtype"]]) for name in packed.rest}


def _constant(values: torch.Tensor, number: int | float) -> bool:
    """Whether all values are a number, of floats rounded to their type."""
    return bool(
        (values == (torch.tensor(number, dtype=torch.float64).to(values.dtype) if values.is_floating_point() else number)).all()
    )


def _reason(error: UserError, file: Path) -> str:
    """A refusal without what is particular to one file."""
    text = str(error).replace(str(file), "", 1).split(": ", 1)[-1]
    text = re.sub(r"^the .* of (?=')", "the … of ", text)
    quoted, number = r"'.*?'(?=[ ,)]|$)|\".*?\"(?=[ ,)]|$)|\[.*?\](?=[ ,)]|$)", r"-?\d+(?:\.\d+)?(?:e[+-]\d+)?"
    text = re.sub(rf"{quoted}|\b(?:[FUI]|BF)\d+|{number}|(?<=of shape ).*(?= does)|(?<=values of )\w+", "…", text)
    text = re.sub(r", got .*", "", re.sub(r"^(its metadata is wrong): .*: ", r"\1: ", text))
    return text.strip()[:120]


def _status_bytes(name: str) -> int:
    """A line of what Linux tells of this process's memory."""
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return 1024 * int(found[1])
