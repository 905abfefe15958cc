"""Work for the latest request only: a new request replaces one that still waits."""

import threading
from collections.abc import Callable


class Latest:
    """Calls `work` with the latest request, in a thread that lives as long as there is something to do.

    Requests never queue up: a slider that is dragged over twenty values is answered for the values there is time for, and always
    for the last one. `work` must not raise.
    """

    def __init__(self, work: Callable[[object], None]):
        self._work = work
        self._lock = threading.Lock()
        self._waiting: list = []  # at most one request
        self._thread: threading.Thread | None = None

    def ask(self, request: object) -> None:
        """Work on this request next, instead of any that still waits."""
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
        """Wait, and return whether all requests are done."""
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
