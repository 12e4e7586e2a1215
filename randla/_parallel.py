"""A pool that lives as long as the call: chunks of a range, served by threads that share one budget.

Why not Numba's own threads: its default layer aborts the process when two Python threads enter it, and its OpenMP layer
kills forked children.  Kernels here are serial over ``[lo, hi)`` and release the GIL, so plain threads serve them.
All threads at work in the process, callers included, come out of one budget: callers that run at the same time (Dask or
joblib workers, nested calls) share the cores instead of multiplying.  A caller that gets no helper does the work
itself, and a helper leaves after its chunk when callers that came later need its core.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

from ._checks import check_integer

_requested: contextvars.ContextVar[int | None] = contextvars.ContextVar("randla_threads", default=None)


class _Budget:
    """Counts the threads of this process that are inside `parallel_for`; a forked child counts its own from zero."""

    def __init__(self) -> None:
        self.reset()
        if hasattr(os, "register_at_fork"):  # absent on Windows, which does not fork
            os.register_at_fork(after_in_child=self.reset)

    def reset(self) -> None:
        self.lock, self.running, self.here = threading.Lock(), 0, threading.local()

    def enter(self, wanted: int, limit: int) -> tuple[int, int]:
        """Count the caller (0 when it is counted already: a nested call) and up to `wanted` helpers; both numbers."""
        caller = 0 if getattr(self.here, "counted", False) else 1
        with self.lock:
            helpers = max(0, min(wanted, limit - self.running - caller))
            self.running += caller + helpers
        self.here.counted = True
        return caller, helpers

    def leave(self, count: int, caller: int) -> None:
        """Give back `count` threads, of which `caller` (0 or 1) is the one that calls."""
        with self.lock:
            self.running -= count
        if caller:
            self.here.counted = False

    def retire(self, limit: int) -> bool:
        """True, with the calling helper given back, when more threads run than `limit`."""
        with self.lock:
            crowded = self.running > limit
            self.running -= crowded
        return crowded


_budget = _Budget()


class _BlasThreads:
    """The thread count of BLAS, one for the process: the Python thread that sets it first has it until its blocks end.

    Blocks in different threads may end in any order, so each of them restoring what it found would leave BLAS at the
    count of another block.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.owner: int | None = None
        self.depth = 0
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    def _after_fork(self) -> None:
        self.lock = threading.Lock()
        if self.owner != threading.get_ident():  # that thread does not exist in the child
            self.owner, self.depth = None, 0

    @contextlib.contextmanager
    def limit(self, n: int, libraries: Any = None) -> Iterator[None]:
        """Hold BLAS at `n` threads: the libraries given by their controller, or all that are loaded now."""
        from threadpoolctl import threadpool_limits

        me = threading.get_ident()
        with self.lock:
            mine = self.owner in (None, me)
            if mine:
                self.owner, self.depth = me, self.depth + 1
        try:
            if not mine:
                yield
            elif libraries is None:
                with threadpool_limits(limits=n, user_api="blas"):
                    yield
            else:
                with libraries.limit(limits=n):
                    yield
        finally:
            if mine:
                with self.lock:
                    self.depth -= 1
                    self.owner = me if self.depth else None


_blas = _BlasThreads()


@functools.cache
def _blas_libraries() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


@contextlib.contextmanager
def serial_blas() -> Iterator[None]:
    """Keep the BLAS that NumPy calls at one thread around a `parallel_for` whose body calls it.

    Threads of ours that each start threads of BLAS wait for one another, and BLAS may sum in another order.
    """
    with _blas.limit(1, _blas_libraries()):  # looking for the libraries at each call would take 0.4 ms
        yield


def available_threads() -> int:
    """Threads that a call may use here: `threads(n)`, else OMP_NUM_THREADS, else the cores this process may run on."""
    requested = _requested.get()
    if requested is not None:
        return requested
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # joblib and Dask tell their workers their share this way; a list "4,2" is one count for each level of nesting
    setting = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return min(int(setting), cores) if setting.isdecimal() and int(setting) > 0 else cores


def stripe_width(n_columns: int) -> int:
    """Columns of a stripe where threads share a result by columns: one for each thread, of eight or more."""
    return max(8, -(-n_columns // available_threads()))


@contextlib.contextmanager
def threads(n: int) -> Iterator[None]:
    """Use at most `n` threads inside the block, in randla's kernels and in the BLAS that NumPy calls.

    Kernels heed the block of the Python thread they are called from.  BLAS has one count for the whole process: where
    blocks overlap in several Python threads, the thread that came first decides it.

    Parameters
    ----------
    n : int, n >= 1
        Number of threads.  Results of kernels do not depend on it; those of BLAS may, at the level of rounding.

    Raises
    ------
    TypeError, ValueError
        If `n` is not an integer, or less than 1.

    Examples
    --------
    >>> import numpy as np, randla
    >>> with randla.threads(1):
    ...     print(randla.sketch(np.ones((100, 3)), 20, rng=0).shape)
    (20, 3)
    """
    n = check_integer(n, "n", low=1)
    token = _requested.set(n)
    try:
        with _blas.limit(n):
            yield
    finally:
        _requested.reset(token)


class _Team:
    """The helpers of one call.

    Why not `Thread.join`: interrupted by Ctrl-C, that of Python < 3.13 takes the running thread for an ended one, and
    its chunk would write into arrays that the caller has given up.
    """

    def __init__(self) -> None:
        self.changed, self.working, self.open = threading.Condition(), 0, True

    def enter(self) -> bool:
        """Count the calling helper; False when it came too late."""
        with self.changed:
            self.working += self.open
            return self.open

    def leave(self) -> None:
        with self.changed:
            self.working -= 1
            self.changed.notify()

    def wait(self, errors: list[BaseException]) -> None:
        """Take no helper any more and let the chunks under way end, through interrupts."""
        while True:
            try:
                with self.changed:
                    self.open = False
                    self.changed.wait_for(lambda: self.working == 0)
                return
            except BaseException as error:
                errors.append(error)


def parallel_for(body: Callable[[int, int], object], n: int, *, chunk: int) -> None:
    """Call ``body(lo, hi)`` over the fixed chunks of ``range(n)``; the bounds do not depend on the thread count.

    The first exception that a chunk raises stops the others and is raised here, when no chunk runs any more.
    """
    n_chunks = -(-n // chunk)
    limit, team = available_threads(), _Team()
    ticket = itertools.count()  # its next() is atomic under the GIL, as is append()
    errors: list[BaseException] = []
    retired: list[int] = []

    def work(helper: bool) -> None:
        while not errors and (c := next(ticket)) < n_chunks:
            try:
                body(c * chunk, min((c + 1) * chunk, n))
            except BaseException as error:
                errors.append(error)
            if helper and _budget.retire(limit):
                retired.append(c)
                return

    def help_out() -> None:
        if team.enter():
            _budget.here.counted = True
            try:
                work(True)
            finally:
                team.leave()

    caller, granted = _budget.enter(min(limit, n_chunks) - 1, limit)
    try:
        with contextlib.suppress(RuntimeError):  # the system grants no more threads: the others do the work
            for _ in range(granted):
                # a copy of the context for each, so that a nested call sees the `threads` block it is in
                threading.Thread(target=contextvars.copy_context().run, args=(help_out,), daemon=True).start()
        work(False)
    except BaseException as error:  # an interrupt between chunks
        errors.append(error)
    finally:
        team.wait(errors)
        _budget.leave(caller + granted - len(retired), caller)
    if errors:
        try:
            raise errors[0]
        finally:
            errors.clear()  # the traceback holds this frame: without the list no cycle keeps its arrays alive
