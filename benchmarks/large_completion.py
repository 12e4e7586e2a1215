"""A fit to twenty million ratings: time of a sweep, memory beyond the data, and a kill that loses nothing.

    python -m benchmarks.large_completion [--small] [--rank 64] [--sweeps 3] [--folder FOLDER]

The ratings are synthetic, with users and items as uneven as in the MovieLens data.  Three processes read them from a
file: one fits without a stop, one is killed (SIGKILL) in the middle of its last sweep, one goes on from the file that
it left.  The bytes of the results are compared.  Exit status 1 if they differ or a limit is exceeded.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

import randla
from randla import datasets
from randla.completion.results import CompletionStep

SIZES = {False: (140_000, 27_000, 20_000_000), True: (7_000, 2_700, 1_000_000)}
MEMORY, SWEEP = 2e9, 60.0  # bytes beyond the data; seconds on two cores


def make(path: Path, small: bool) -> None:
    """Write the ratings as three arrays."""
    m, n, n_ratings = SIZES[small]
    X = datasets.synthetic_ratings(m, n, n_ratings, rank=20, noise=0.7, dtype=np.float32, rng=0).ratings
    csr = scipy.sparse.csr_array(X)
    np.savez(path, data=csr.data, indices=csr.indices, indptr=csr.indptr, shape=np.array(csr.shape))


def _resident() -> int:
    """Bytes in memory now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def fit(path: Path, rank: int, sweeps: int, checkpoint: Path | None, kill_after: int, key: int = 0) -> dict[str, Any]:
    """Fit in this process; with `kill_after` it does not return."""
    tiny = scipy.sparse.random_array((50, 40), density=0.5, rng=0, format="csr", dtype=np.float32)
    randla.complete(tiny, min(rank, 30), solver="cg", max_iter=2, rng=0, on_failure="ignore")  # compiles the kernels
    with np.load(path) as stored:
        parts = tuple(stored[name] for name in ("data", "indices", "indptr"))
        X = scipy.sparse.csr_array(parts, shape=tuple(stored["shape"]))
    before, marks = _resident(), [time.perf_counter()]

    def callback(step: CompletionStep) -> None:
        marks.append(time.perf_counter())
        print(
            f"  sweep {step.n_iter}: {marks[-1] - marks[-2]:.1f} s, error {step.rmse:.4f}", file=sys.stderr, flush=True
        )
        if step.n_iter == kill_after:  # while the next one is under way
            delay = 0.5 * (marks[-1] - marks[-2])
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()

    result = randla.complete(
        X, rank, reg=0.05, max_iter=sweeps, tol=0.0, checkpoint=checkpoint, rng=key, callback=callback,
        on_failure="ignore",
    )  # fmt: skip
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "digest": hashlib.sha256(result.to_bytes()).hexdigest(), "seconds": list(np.diff(marks)),
        "beyond_the_data": peak - before, "error": result.error, "n_iter": result.n_iter,
    }  # fmt: skip


def _child(arguments: list[str]) -> tuple[int, dict[str, Any]]:
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.large_completion", *arguments],
        check=False,
        stdout=subprocess.PIPE,
        text=True,
    )
    return run.returncode, json.loads(run.stdout) if run.stdout else {}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large_completion")
    parser.add_argument("--small", action="store_true", help="a twentieth of the ratings, for a look")
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--sweeps", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the ratings and states go; by default a temporary one")
    parser.add_argument("--fit", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--checkpoint", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--kill-after", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fit:
        print(json.dumps(fit(options.fit, options.rank, options.sweeps, options.checkpoint, options.kill_after)))
        return 0
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path, state = Path(folder, "ratings.npz"), Path(folder, "state")
        make(path, options.small)
        given = ["--fit", str(path), "--rank", str(options.rank), "--sweeps", str(options.sweeps)]
        _, whole = _child(given)
        code, _ = _child([*given, "--checkpoint", str(state), "--kill-after", str(options.sweeps - 1)])
        _, resumed = _child([*given, "--checkpoint", str(state)])
    same, slowest = whole["digest"] == resumed["digest"], max(whole["seconds"][1:])
    print(f"killed with code {code}; the resumed fit did {len(resumed['seconds'])} of {options.sweeps} sweeps")
    print(f"results are {'equal' if same else 'DIFFERENT'}; error of the fitted entries {whole['error']:.4f}")
    print(f"sweeps: {', '.join(f'{s:.1f}' for s in whole['seconds'])} s, with the start in the first")
    print(f"memory beyond the data: {whole['beyond_the_data'] / 1e9:.2f} GB")
    good = same and code == -signal.SIGKILL and whole["beyond_the_data"] < MEMORY and slowest < SWEEP
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
