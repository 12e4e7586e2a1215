"""The promises about threads: same results for any count, safe from threads, forks, joblib and Dask, one budget."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import itertools
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import joblib
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info

import randla
from randla import _parallel, kernels
from randla._parallel import available_threads, parallel_for

from .conftest import skip

PATIENCE = 60.0  # seconds after which a test that waits for a thread gives up and fails


@pytest.fixture(autouse=True)
def _budget_returns_to_zero() -> Iterator[None]:
    """Whatever a test does, no thread stays on the books, and the thread that ran it is not counted."""
    yield
    assert _parallel._budget.running == 0
    assert not getattr(_parallel._budget.here, "counted", False)


class Gauge:
    """Counts the threads that are inside a body at the same time."""

    def __init__(self) -> None:
        self.lock, self.now, self.most = threading.Lock(), 0, 0

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            yield
        finally:
            with self.lock:
                self.now -= 1


def start(function: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


# --- chunks and results -----------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(n=st.integers(0, 200), chunk=st.integers(1, 70), count=st.integers(1, 6))
def test_chunks_are_fixed_and_run_once(n: int, chunk: int, count: int) -> None:
    seen: list[tuple[int, int]] = []
    with randla.threads(count):
        parallel_for(lambda lo, hi: seen.append((lo, hi)), n, chunk=chunk)
    assert sorted(seen) == [(lo, min(lo + chunk, n)) for lo in range(0, n, chunk)]


def _work(name: str, dtype: str = "float64") -> np.ndarray:
    """One sketch, product or table that is large enough for several chunks."""
    rng = np.random.default_rng(0)
    if name == "csr":
        A = sp.random_array((40_000, 300), density=0.02, rng=rng, format="csr", dtype=dtype)
        return randla.SparseSign(64, A.shape[0], rng=1) @ A
    if name == "csr_transposed":
        A = sp.random_array((40_000, 300), density=0.02, rng=rng, format="csr", dtype=dtype)
        return A @ randla.SparseSign(64, A.shape[1], rng=1).T
    if name in ("csr_matmul", "csr_rmatmul"):
        A = sp.random_array((20_000, 3000), density=0.003, rng=rng, format="csr", dtype=dtype)
        panel = rng.standard_normal((A.shape[name == "csr_matmul"], 33)).astype(dtype)
        more = () if name == "csr_matmul" else (A.shape[1],)
        return getattr(kernels, name)(A.data, A.indices, A.indptr, panel, *more)
    # scatters share out the rows, Hadamard transforms the columns
    A = rng.standard_normal((5001, 200) if name.endswith("SRHT") else (70_001, 5)).astype(dtype)
    if name.endswith("_columns"):
        return A.T @ getattr(randla, name.removesuffix("_columns"))(64, A.shape[0], rng=1).T
    return getattr(randla, name)(64, A.shape[0], rng=1) @ A


OPERATORS = ["SparseSign", "CountSketch", "SparseJL", "SRHT", "BlockSRHT"]
JOBS = [*OPERATORS, "SparseSign_columns", "csr", "csr_transposed", "csr_matmul", "csr_rmatmul"]


def digest(name: str = "SparseSign", dtype: str = "float64") -> str:
    return hashlib.sha256(np.ascontiguousarray(_work(name, dtype)).tobytes()).hexdigest()


@pytest.fixture
def helpers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of helpers that calls of `parallel_for` were granted."""
    granted, enter = [], _parallel._budget.enter

    def spy(wanted: int, limit: int) -> tuple[int, int]:
        entered = enter(wanted, limit)
        granted.append(entered[1])
        return entered

    monkeypatch.setattr(_parallel._budget, "enter", spy)
    return granted


@pytest.mark.parametrize("name", JOBS)
def test_results_do_not_depend_on_the_thread_count(name: str, dtype: str, helpers: list[int]) -> None:
    """Bit for bit: chunks and the order of sums inside them are fixed.  With five threads helpers do take part."""
    digests = set()
    for count in (1, 2, 5):
        with randla.threads(count):
            digests.add(digest(name, dtype))
    assert len(digests) == 1
    assert max(helpers) >= 1


@pytest.mark.parametrize("name", ["gaussian_table", "rademacher_table"])
def test_dense_tables_do_not_depend_on_the_thread_count(name: str, helpers: list[int]) -> None:
    """Their products are GEMMs of BLAS, which promises rounding only; the tables are ours."""
    tables = []
    for count in (1, 2, 5):
        with randla.threads(count):
            tables.append(getattr(kernels, name)(randla.Key(1, 2), 0, 300_000, 5, np.float32))
    assert all(np.array_equal(tables[0], table) for table in tables)
    assert max(helpers) >= 1


# --- who may call -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SparseSign", "SRHT", "csr"])
def test_callable_from_several_python_threads_at_once(name: str) -> None:
    expected, gate = digest(name), threading.Barrier(4)

    def call(_: int) -> str:
        gate.wait(PATIENCE)
        return digest(name)

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(call, range(4))) == {expected}


needs_fork = pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork")


@needs_fork
def test_callable_after_a_fork() -> None:
    expected = digest()
    context = multiprocessing.get_context("fork")
    with context.Pool(2) as pool:
        assert pool.map_async(digest, ["SparseSign"] * 4).get(PATIENCE) == [expected] * 4


def _digest_and_running(queue: multiprocessing.Queue) -> None:
    queue.put((_parallel._budget.running, digest(), _parallel._budget.running))


@needs_fork
def test_a_fork_while_threads_run_starts_with_an_empty_budget() -> None:
    """The parent's helpers do not exist in the child: were they counted, the child would stay serial for ever."""
    expected, inside, done = digest(), threading.Event(), threading.Event()

    def body(lo: int, hi: int) -> None:
        inside.set()
        assert done.wait(PATIENCE)

    caller = start(lambda: parallel_for(body, 1, chunk=1))
    assert inside.wait(PATIENCE)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_digest_and_running, args=(queue,))
    with _parallel._budget.lock:  # the worst moment: the lock is held, and no thread of the child will release it
        child.start()
    try:
        assert queue.get(timeout=PATIENCE) == (0, expected, 0)
    finally:
        done.set()
        child.join(PATIENCE)
        caller.join(PATIENCE)
    assert child.exitcode == 0


@pytest.mark.parametrize("backend", ["threading", pytest.param("loky", marks=pytest.mark.slow)])
def test_callable_from_joblib(backend: str) -> None:
    digests = joblib.Parallel(n_jobs=2, backend=backend)(joblib.delayed(digest)(name) for name in JOBS)
    assert digests == [digest(name) for name in JOBS]


def test_callable_from_dask_threads() -> None:
    if find_spec("dask") is None:
        skip("dask")
    import dask

    tasks = [dask.delayed(digest)(name) for name in JOBS]
    assert list(dask.compute(*tasks, scheduler="threads", num_workers=4)) == [digest(name) for name in JOBS]


def _digest_and_pid(name: str) -> tuple[str, int, int]:
    found = digest(name)
    time.sleep(0.05)  # a task long enough that the other process gets some
    return found, os.getpid(), available_threads()


@pytest.mark.slow
def test_callable_from_dask_workers(tmp_path: Path) -> None:
    if find_spec("distributed") is None:
        skip("dask")
    import dask
    from distributed import Client, LocalCluster

    with (
        dask.config.set({"distributed.comm.timeouts.connect": "60s"}),
        LocalCluster(
            n_workers=2, threads_per_worker=2, processes=True, dashboard_address=None, memory_limit="1GiB",
            local_directory=str(tmp_path),
        ) as cluster,
        Client(cluster) as client,
    ):  # fmt: skip
        futures = client.map(_digest_and_pid, JOBS * 2, pure=False)
        results = client.gather(futures)
    assert [found for found, _, _ in results] == [digest(name) for name in JOBS] * 2
    assert len({pid for _, pid, _ in results} - {os.getpid()}) == 2
    assert {threads for _, _, threads in results} == {1}, "the workers set OMP_NUM_THREADS=1, which is heeded"


# --- one budget -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_one_caller_runs_as_many_threads_as_it_may(limit: int) -> None:
    """All `limit` chunks are inside at once (the barrier opens for no fewer), and never one more."""
    gauge, gate, first = Gauge(), threading.Barrier(limit), itertools.count()

    def body(lo: int, hi: int) -> None:
        with gauge.inside():
            if next(first) < limit:
                gate.wait(PATIENCE)

    with randla.threads(limit):
        parallel_for(body, 40, chunk=1)
    assert gauge.most == limit


def test_callers_share_the_cores() -> None:
    """Two callers fill a budget of two, so a third gets no helper and does its own work."""
    inside, done = threading.Barrier(3), threading.Event()

    def hold(lo: int, hi: int) -> None:
        inside.wait(PATIENCE)
        assert done.wait(PATIENCE)

    callers = [start(lambda: parallel_for(hold, 1, chunk=1)) for _ in range(2)]
    inside.wait(PATIENCE)
    workers: set[int] = set()
    try:
        with randla.threads(2):
            parallel_for(lambda lo, hi: workers.add(threading.get_ident()), 50, chunk=1)
    finally:
        done.set()
        for caller in callers:
            caller.join(PATIENCE)
    assert workers == {threading.get_ident()}


def test_a_helper_leaves_when_another_caller_comes() -> None:
    gate, other_inside, done = threading.Barrier(2), threading.Event(), threading.Event()
    workers: dict[int, int] = {}

    def hold(lo: int, hi: int) -> None:
        other_inside.set()
        assert done.wait(PATIENCE)

    def body(lo: int, hi: int) -> None:
        workers[lo] = threading.get_ident()
        if lo < 2:  # caller and helper hold one chunk each until the other caller is in
            gate.wait(PATIENCE)
            assert other_inside.wait(PATIENCE)
        else:
            time.sleep(0.001)  # long enough that a helper that stayed would take some

    def watch() -> None:
        gate_open = time.monotonic() + PATIENCE
        while len(workers) < 2 and time.monotonic() < gate_open:
            time.sleep(0.001)
        parallel_for(hold, 1, chunk=1)

    other = start(watch)
    try:
        with randla.threads(2):
            parallel_for(body, 30, chunk=1)
    finally:
        done.set()
        other.join(PATIENCE)
    assert workers[0] != workers[1]
    assert {workers[c] for c in range(2, 30)} == {threading.get_ident()}


def test_many_callers_never_exceed_the_budget() -> None:
    """At most one thread for each caller beyond what the first ones were granted."""
    gauge, callers, limit = Gauge(), 6, 3

    def body(lo: int, hi: int) -> None:
        with gauge.inside():
            time.sleep(0.0005)

    def call(_: int) -> None:
        with randla.threads(limit):
            for _ in range(5):
                parallel_for(body, 20, chunk=1)

    with ThreadPoolExecutor(callers) as pool:
        list(pool.map(call, range(callers)))
    assert gauge.now == 0
    assert gauge.most <= callers + limit - 1


def test_nested_calls_run_inside_the_same_budget() -> None:
    gauge, done, seen = Gauge(), [], set()

    def inner(lo: int, hi: int) -> None:
        with gauge.inside():
            done.append(lo)
            time.sleep(0.0005)

    def outer(lo: int, hi: int) -> None:
        seen.add(available_threads())
        parallel_for(inner, 10, chunk=1)

    with randla.threads(3):
        parallel_for(outer, 6, chunk=1)
    assert sorted(done) == sorted(list(range(10)) * 6)
    assert gauge.most <= 3
    assert seen == {3}, "helpers see the block that their caller is in"


def test_a_nested_call_uses_what_is_left_of_the_budget() -> None:
    """A helper is counted once: of three threads its nested call gets the third (the barrier opens for two)."""
    main, gate, inner_done = threading.get_ident(), threading.Barrier(2), threading.Event()

    def inner(lo: int, hi: int) -> None:
        gate.wait(PATIENCE)

    def outer(lo: int, hi: int) -> None:
        if threading.get_ident() == main:
            assert inner_done.wait(PATIENCE)
        else:
            parallel_for(inner, 2, chunk=1)
            inner_done.set()

    with randla.threads(3):
        parallel_for(outer, 2, chunk=1)
    assert inner_done.is_set()


def test_no_more_threads_from_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    expected = digest()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with randla.threads(4):
        assert digest() == expected


# --- errors -----------------------------------------------------------------------------------------------------------


class Interruption(BaseException):
    """Not an Exception, like KeyboardInterrupt."""


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, Interruption, SystemExit])
@pytest.mark.parametrize("count", [1, 4])
def test_an_error_in_a_chunk_stops_the_others_and_comes_out(kind: type[BaseException], count: int) -> None:
    gauge, begun = Gauge(), []

    def body(lo: int, hi: int) -> None:
        begun.append(lo)
        with gauge.inside():
            if lo == 3:
                raise kind("chunk 3")
            time.sleep(0.0005)

    with randla.threads(count), pytest.raises(kind, match="chunk 3"):
        parallel_for(body, 10_000, chunk=1)
    assert gauge.now == 0
    assert len(begun) < 1000
    assert _parallel._budget.running == 0


@needs_fork  # where there is none there are no signals to a thread either
def test_an_interrupt_of_the_waiting_caller_comes_out_after_the_chunks() -> None:
    """Ctrl-C while the caller waits: the chunk that a helper has begun must not write after the call has ended."""
    main, gate, ended = threading.get_ident(), threading.Barrier(2), []

    def body(lo: int, hi: int) -> None:
        gate.wait(PATIENCE)
        if threading.get_ident() != main:
            time.sleep(0.05)  # the caller has nothing left to do and waits
            signal.pthread_kill(main, signal.SIGINT)
            time.sleep(0.1)
            ended.append(lo)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with randla.threads(2), pytest.raises(KeyboardInterrupt):
            parallel_for(body, 2, chunk=1)
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(ended) == 1


def test_a_raised_error_keeps_no_arrays_alive() -> None:
    """A cycle of traceback and error would hold the arrays of a failed call until the collector runs."""

    class Payload:
        pass

    def fail() -> weakref.ref:
        payload = Payload()

        def body(lo: int, hi: int) -> None:
            raise ValueError(f"chunk of {payload!r}")

        with contextlib.suppress(ValueError):
            parallel_for(body, 4, chunk=1)
        return weakref.ref(payload)

    gc.collect()
    gc.disable()
    try:
        with randla.threads(1):
            assert fail()() is None
    finally:
        gc.enable()


# --- settings ---------------------------------------------------------------------------------------------------------

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("1", 1),
        ("4,2", min(4, CORES)),
        (" 1 ", 1),
        ("0", CORES),
        ("-1", CORES),
        ("many", CORES),
        ("²", CORES),
        ("", CORES),
    ],
)
def test_environment_sets_the_default(setting: str, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", setting)
    assert available_threads() == expected
    with randla.threads(7):
        assert available_threads() == 7
        with randla.threads(2):
            assert available_threads() == 2
        assert available_threads() == 7


@pytest.mark.parametrize("n", [0, -2])
def test_threads_refuses_numbers_below_one(n: int) -> None:
    with pytest.raises(ValueError, match=rf"n must be at least 1, got {n}"), randla.threads(n):
        pass


@pytest.mark.parametrize("n", [1.5, "2", None, True])
def test_threads_refuses_what_is_no_integer(n: object) -> None:
    with pytest.raises(TypeError, match="n must be an integer"), randla.threads(n):
        pass


def _blas_threads() -> list[int]:
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


def test_blas_is_limited_and_restored() -> None:
    before = _blas_threads()
    with randla.threads(1):
        assert set(_blas_threads()) <= {1}
    assert _blas_threads() == before


def test_blas_is_restored_when_blocks_overlap() -> None:
    """The first block ends before the second: restoring what each one found would leave BLAS at one thread."""
    before, entered, leave = _blas_threads(), threading.Event(), threading.Event()
    seen: list[int] = []

    def second() -> None:
        with randla.threads(2):
            entered.set()
            assert leave.wait(PATIENCE)
        with randla.threads(1):  # the other thread has let go of it
            seen.extend(_blas_threads())

    with randla.threads(1):
        other = start(second)
        assert entered.wait(PATIENCE)
        with randla.threads(2):
            assert set(_blas_threads()) <= {2}
        assert set(_blas_threads()) <= {1}
    assert _blas_threads() == before
    leave.set()
    other.join(PATIENCE)
    assert set(seen) <= {1}
    assert len(seen) == len(before)
    assert _blas_threads() == before


# --- compilation ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("how", ["no cache anywhere", "a cache folder that is a file"])
def test_no_place_for_a_cache_degrades_to_compilation(how: str, tmp_path: Path) -> None:
    """As in a read-only container; folders that are files keep even root from writing."""
    package = tmp_path / "randla"
    shutil.copytree(Path(randla.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "kernels" / "__pycache__").touch()
    environment = {**os.environ, "HOME": "/dev/null", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(tmp_path)}
    environment.pop("NUMBA_CACHE_DIR", None)
    environment.pop("XDG_CACHE_HOME", None)
    if how != "no cache anywhere":
        environment["NUMBA_CACHE_DIR"] = os.devnull
    code = (
        "import numpy as np, randla, pathlib; print(pathlib.Path(randla.__file__).parent); "
        "print(randla.CountSketch(20, 100, rng=0).toarray().sum())"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=280
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == [str(package), str(randla.CountSketch(20, 100, rng=0).toarray().sum())]
