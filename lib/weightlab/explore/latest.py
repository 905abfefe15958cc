"""Work that is always for the latest request: what is asked for meanwhile replaces what still waits."""

import threading
from collections.abc import Callable


class Latest:
    """Calls `work` with what was last asked for, in a thread that lives as long as there is something to do.

    Requests never queue up: a slider that is dragged over twenty values is answered for the values there is time for, and always
    for the last one. `work` must not raise.
    """

    def __init__(self, work: Callable[[object], None]):
        self._work = work
        self._lock = threading.Lock()
        self._waiting: list = []  # at most one request
        self._thread: threading.Thread | None = None

    def ask(self, request: object) -> None:
        """Have this request worked on, instead of any that still waits."""
        with self._lock:
            self._waiting = [request]
            if self._thread is None:
                self._thread = threading.Thread(target=self._go, daemon=True)
                self._thread.start()

    @property
    def overtaken(self) -> bool:
        """Whether a later request waits already."""
        return bool(self._waiting)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Whether everything asked for has been worked on by then."""
        if (thread := self._thread) is not None:
            thread.join(timeout_s)
        return self._thread is None

    def _go(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._thread = None
                    return
                request = self._waiting.pop()
            self._work(request)
