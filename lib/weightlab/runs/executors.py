"""Call one function on many items: in this process, in processes of this machine, or by the workers of a dask scheduler.

joblib and dask do the work. Added here: the items of a worker that died are started again (the function must allow that), and a lost
scheduler is reported in one sentence.
"""

import math
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from weightlab.errors import UserError, check_whole, flat
from weightlab.runs import job_queues

if TYPE_CHECKING:
    from distributed import Client, Future

DEATHS = 3  # in a row, without a completed item in between: then the items kill the workers
ANSWER_S = 10  # a scheduler's time to answer
PATIENCE_S = 600  # without a worker before a warning, and between warnings
Item = TypeVar("Item")
Result = TypeVar("Result")


def check(workers: int | None, scheduler: str | None) -> None:
    """Raise `UserError` for a wrong number of processes or a wrong scheduler."""
    if workers is not None:
        check_whole("workers", workers, other="None (as many as cores) or ")
    if scheduler and not (isinstance(scheduler, str) and ("://" in scheduler or scheduler.endswith((".yaml", ".yml")))):
        raise UserError(
            "scheduler must be an address such as tcp://host:8786 or the name of a YAML file of params/cluster, as text, "
            f"got {scheduler!r}"
        )


def execute(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int = 1, scheduler: str | None = None
) -> Iterator[tuple[Item, Result]]:
    """Pairs of an item and `function(item)`, in the order in which they are done.

    With a `scheduler` (address or YAML file, see `job_queues`) dask's workers call it, else `workers` processes of this machine, or
    this process itself where one is enough. Raises `UserError` if the scheduler cannot be reached or dies, or workers keep dying.
    """
    items = list(items)
    if scheduler:
        return _on_dask(function, items, scheduler)
    if min(workers, len(items)) <= 1:
        return ((item, function(item)) for item in items)
    return _in_processes(function, items, workers)


def _in_processes(function: Callable[[Item], Result], items: list[Item], workers: int) -> Iterator[tuple[Item, Result]]:
    from joblib import Parallel, delayed, parallel_config
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    left, deaths = dict(enumerate(items)), 0
    task = delayed(partial(_in_child, function, os.getpid()))
    while left:
        try:
            with parallel_config(backend="loky", inner_max_num_threads=1):
                # Only as many tasks are handed out as there are workers; the first free worker takes the next.
                parallel = Parallel(workers, return_as="generator_unordered", batch_size=1, pre_dispatch=workers)
            for number, result in parallel([task(number, item) for number, item in left.items()]):
                deaths = 0
                yield left.pop(number), result
        except TerminatedWorkerError as error:
            deaths = _count(deaths, len(left), flat(error))


def _in_child(function: Callable[[Item], Result], parent: int, number: int, item: Item) -> tuple[int, Result]:
    from joblib.externals.loky import process_executor

    # joblib replaces a worker that has grown by 300 MB; here the growth is an evaluator, which is slow to make again.
    process_executor._MAX_MEMORY_LEAK_SIZE = math.inf
    _leave_with(parent)
    return number, function(item)


_watching = threading.Event()


def _leave_with(parent: int) -> None:
    """From now on end this process when its parent has ended: nobody waits for its work, and a new run needs the cores."""
    if _watching.is_set():
        return
    _watching.set()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _on_dask(function: Callable[[Item], Result], items: list[Item], scheduler: str) -> Iterator[tuple[Item, Result]]:
    try:
        from distributed import Client, as_completed
        from distributed.client import FutureCancelledError
        from distributed.comm import CommClosedError
        from distributed.scheduler import KilledWorker
    except ImportError:
        raise UserError("a dask scheduler needs the extra: pip install 'weightlab[cluster]'") from None

    cluster = None if "://" in scheduler else job_queues.start(job_queues.read(scheduler))
    left: dict[Future, Item] = {}
    try:
        with _connected(Client, cluster or scheduler) as client, _warning_of_silence(client, scheduler):
            _probe(client, scheduler)
            # Impure: an item is run again when asked for again. Retries are for what the function cannot catch, such as a lost file.
            left |= {client.submit(function, item, pure=False, retries=2): item for item in items}
            waiting, deaths = as_completed(left, loop=client.loop), 0
            for future in waiting:
                try:
                    result = future.result()
                except KilledWorker as error:
                    deaths = _count(deaths, len(left), str(error).split(". ")[0])
                    again = client.submit(function, left[future], pure=False, retries=2)
                    left[again] = left.pop(future)
                    waiting.add(again)
                else:
                    deaths = 0
                    yield left.pop(future), result
    except (FutureCancelledError, CommClosedError) as error:
        not_ended = len(left) or len(items)
        raise UserError(
            f"the dask scheduler at {scheduler} is gone; {not_ended} of {len(items)} calls were not finished"
        ) from error
    finally:
        if cluster is not None:
            cluster.close()


def _probe(client: "Client", scheduler: str) -> None:
    """Wait for a worker and let it import this package: a worker that cannot would die of every task."""
    from distributed.scheduler import KilledWorker

    error = client.submit(exec, "import weightlab.runs", pure=False).exception()
    if isinstance(error, (ImportError, KilledWorker)):
        raise UserError(f"the workers of {scheduler} cannot import weightlab ({error}); set the option 'python' to their Python")
    if error is not None:
        raise error
    for worker, threads in client.nthreads().items():
        if threads > 1:  # which would share what a process keeps, such as its evaluators
            raise UserError(
                f"worker {worker} of {scheduler} has {threads} threads; start workers with --nthreads 1"
                " (in a cluster's file: as many processes as cores)"
            )


@contextmanager
def _warning_of_silence(client: "Client", scheduler: str) -> Iterator[None]:
    """A context in which a thread warns every `PATIENCE_S` seconds for which the scheduler has had no worker."""
    ended = threading.Event()

    def watch() -> None:
        since = warned = time.monotonic()
        while not ended.wait(PATIENCE_S / 10):
            with suppress(OSError, TimeoutError):  # a scheduler that is gone ends the calls themselves
                if client.nthreads():
                    since = warned = time.monotonic()
            now = time.monotonic()
            if now - warned >= PATIENCE_S:
                warned = now
                # With the time of day, since the same words in the same place are shown once.
                warnings.warn(
                    f"{time.strftime('%H:%M:%S')}: no worker of {scheduler} for {(now - since) / 60:.0f} min; the queue may be long, or jobs"
                    " may end before their workers start and are not submitted again: see their output",
                    stacklevel=1,
                )

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield
    finally:
        ended.set()
        watching.join(ANSWER_S)


def _connected(client: type["Client"], to: object) -> "Client":
    try:
        return client(to, timeout=ANSWER_S, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise UserError(f"no dask scheduler answers at {to} ({flat(error)})") from None


def _count(deaths: int, left: int, error: str) -> int:
    if deaths + 1 == DEATHS:
        raise UserError(f"workers died {DEATHS} times in a row without completing anything, {left} items left ({error})")
    # Numbered, since the same words in the same place are shown once.
    warnings.warn(f"a worker died ({deaths + 1} in a row); {left} items are started again ({error})", stacklevel=3)
    return deaths + 1
