"""The CUDA side, rung by rung: host builds, launchers, sanitizers, threads, compilers, the surface of CuPy, a GPU."""

from __future__ import annotations

import ast
import ctypes
import inspect
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import randla.kernels
from randla import gpu
from randla.gpu import _compile, completion, hadamard, transport
from randla.kernels import reference

from . import contracts, fake_cupy
from .conftest import skip, tolerance
from .races import PROGRAMS

ROOT = Path(__file__).parents[1]
LAUNCHERS = sorted(path for path in (ROOT / "randla" / "gpu").glob("*.py"))
ALGORITHMS = sorted(
    path
    for part in (
        "completion/*.py",
        "operators/*.py",
        "lowrank/*.py",
        "nonnegative/*.py",
        "regression/*.py",
        "sampling/*.py",
        "sensing/*.py",
        "streaming/*.py",
        "structured/*.py",
        "traces/*.py",
        "transport/*.py",
        "updating/*.py",
        "cur_scoring.py",
        "linear_maps.py",
        "diagnostics.py",
        "qr.py",
        "triangular.py",
    )
    for path in (ROOT / "randla").glob(part)
)
STEMS = sorted(path.stem for path in (ROOT / "randla" / "gpu" / "cuda").glob("*.cu"))
CONTRACTS = list(contracts.contracts())


def check_all(kernel: str, module: ModuleType, **moves: Callable) -> None:
    for contract in CONTRACTS:
        if contract.kernel == kernel:
            contracts.check(contract, module, **moves)


# --- twins ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", reference.__all__)
def test_twins_have_one_signature(name: str) -> None:
    twins = [module for module in (gpu, randla.kernels) if name in getattr(module, "__all__", ())]
    assert gpu in twins
    for twin in twins:
        assert inspect.signature(getattr(twin, name)) == inspect.signature(getattr(reference, name))


def test_every_kernel_has_a_contract_and_a_twin() -> None:
    assert set(reference.__all__) == set(gpu.__all__) == {contract.kernel for contract in CONTRACTS}
    assert len({contract.id for contract in CONTRACTS}) == len(CONTRACTS)


def test_import_leaves_cupy_alone() -> None:
    code = "import sys, randla.gpu; assert not {'cupy', 'cupyx'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


# --- bodies and launchers on the host ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compiler() -> None:
    if not fake_cupy.has_compiler():
        skip("g++")


@pytest.fixture(scope="module")
def on_host(compiler: None) -> Iterator[ModuleType]:
    """`randla.gpu` over the stand-in for CuPy."""
    with fake_cupy.installed() as module:
        yield module


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.id)
def test_contract_on_the_host(contract: contracts.Contract, on_host: ModuleType) -> None:
    contracts.check(contract, on_host)


def _small_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few threads and tiny tiles: every stride over the grid and every kind of pass is taken on small inputs."""
    monkeypatch.setattr(_compile, "BLOCK", 32)
    monkeypatch.setattr(_compile, "MOST_BLOCKS", 2)
    monkeypatch.setattr(hadamard, "TILE_BYTES", 512)
    monkeypatch.setattr(completion, "SHARED", 1200)  # some workspaces fit, of some the vectors, some not at all
    monkeypatch.setattr(transport, "TILE", 100)  # a few rows of a plan


@pytest.mark.parametrize("kernel", [name for name in reference.__all__ if not name.startswith("csr_")])
def test_device_text_with_a_thread_per_thread(kernel: str, compiler: None, monkeypatch: pytest.MonkeyPatch) -> None:
    _small_launches(monkeypatch)
    with fake_cupy.installed(threads=True) as module:
        check_all(kernel, module)


def test_systems_do_not_depend_on_the_shape_of_a_launch(compiler: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few threads or many, workspaces shared or not: sums run in one order, so the bits are equal."""
    lines = [line for line in CONTRACTS if line.kernel.startswith("masked_") and "40-3x70" in line.case]
    with fake_cupy.installed() as module:
        wide = [contracts.outcome(line, module) for line in lines]
        _small_launches(monkeypatch)
        narrow = [contracts.outcome(line, module) for line in lines]
    names = {*gpu.completion.__dict__, *gpu.nmf.__dict__}
    assert {line.kernel for line in lines} == {name for name in names if name.startswith("masked_")}
    for mine, other in zip(wide, narrow, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(mine, other, strict=True))


@pytest.mark.parametrize("max_iter", [0, 1, 2, 30])
def test_columns_that_pivots_did_not_finish_are_told(max_iter: int, on_host: ModuleType) -> None:
    """Both twins tell the same ones, and leave what the last exchange gave, without its negative entries."""
    rng = np.random.default_rng(0)
    W, A = rng.random((40, 6)), rng.standard_normal((40, 30))
    arguments = W.T @ W, W.T @ A, np.zeros((6, 30)), 1e-12, max_iter
    (mine, told), (other, truth) = (module.nonneg_pivots(*arguments) for module in (on_host, randla.kernels))
    assert np.array_equal(told, truth)
    assert (told == 1).any() == (max_iter > 0)
    assert (told == -1).any() == (max_iter < 3)
    assert mine.min() >= 0
    assert np.abs(mine - other).max() <= tolerance("float64", 40, np.linalg.cond(W) ** 2)


def test_pivots_of_what_is_not_finite_end(on_host: ModuleType) -> None:
    G = np.array([[2.0, np.nan], [np.nan, 2.0]])
    for module in (on_host, randla.kernels):
        assert np.isnan(module.nonneg_pivots(G, np.ones((2, 1)), np.ones((2, 1)), 1e-12, 3)[0]).any()


def test_tables_are_pure_functions_of_the_index(on_host: ModuleType) -> None:
    whole = on_host.sparse_sign_table(contracts.KEY, 3, 40, 6, 100)
    parts = [on_host.sparse_sign_table(contracts.KEY, a, b, 6, 100) for a, b in ((3, 4), (4, 4), (4, 40))]
    assert np.array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("itemsize", [4, 8])
@pytest.mark.parametrize("columns", [1, 2, 7, 64, 1000])
def test_passes_cover_the_index_bits(itemsize: int, columns: int) -> None:
    for block_bits in range(31):
        plan = hadamard.passes(block_bits, columns, itemsize)
        assert [low for low, _, _ in plan] == [sum(bits for _, bits, _ in plan[:i]) for i in range(len(plan))]
        assert sum(bits for _, bits, _ in plan) == block_bits
        for low, bits, width_bits in plan:
            assert itemsize << (bits + width_bits) <= hadamard.TILE_BYTES
            assert bits <= 13, "the signs of a tile fill 256 words"
            assert 1 << width_bits < 2 * (columns << low)
        assert len(plan) <= max(1, -(-block_bits // 9))


def _uniform_arguments(**changes: object) -> tuple:
    arguments = {
        "n": np.int64(5), "k0": np.uint32(1), "k1": np.uint32(2), "stream": np.uint32(2), "start": np.int64(0),
        "out": np.empty(5),
    }  # fmt: skip
    return tuple({**arguments, **changes}.values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": np.int32(5)}, "n: expected int64, got int32"),
        ({"n": 5}, "n: expected a scalar of fixed width"),
        ({"k0": np.int64(1)}, "k0: expected uint32"),
        ({"out": np.empty(5, np.float32)}, "out: expected float64, got float32"),
        ({"out": np.float64(0)}, "out: expected an array"),
        ({"more": np.int64(0)}, "takes 6 arguments, got 7"),
    ],
)
def test_stand_in_refuses_what_a_device_would_misread(changes: dict, message: str, on_host: ModuleType) -> None:
    uniforms = _compile._function("tables", "uniforms", "float")
    with pytest.raises(TypeError, match=message):
        uniforms((1,), (256,), _uniform_arguments(**changes))


@pytest.mark.parametrize(("grid", "block"), [(0, 256), (1, 2048), (2**31, 256)])
def test_stand_in_refuses_impossible_grids(grid: int, block: int, on_host: ModuleType) -> None:
    uniforms = _compile._function("tables", "uniforms", "float")
    with pytest.raises(ValueError, match="no device runs"):
        uniforms((grid,), (block,), _uniform_arguments())


def test_stand_in_refuses_more_shared_memory_than_a_block_has(on_host: ModuleType) -> None:
    uniforms = _compile._function("tables", "uniforms", "float")
    with pytest.raises(ValueError, match="no block has 49160 bytes"):
        uniforms((1,), (256,), _uniform_arguments(), shared_mem=48 * 1024 + 8)


def test_stand_in_tells_of_threads_that_never_come_to_a_barrier(compiler: None) -> None:
    stray = {"__syncthreads();  // the next rows": "if (thread > 0) __syncthreads();  // the next rows"}
    with fake_cupy.installed(mutations=stray) as module, pytest.raises(RuntimeError, match="row_pass: threads of a bl"):
        check_all("softmin_rows", module)


# --- tests of the tests: a mutated kernel must be caught --------------------------------------------------------------

MUTATIONS = [
    ("philox_words", "0x9E3779B9u", "0x9E3779BAu"),
    ("philox_words", "start + q / n_lanes", "start + 1 + q / n_lanes"),
    ("uniforms", "w[1] >> 6", "w[1] >> 7"),
    ("uniform_rows", "(low * n) >> 32", "0"),
    ("distinct_rows", "u32 r = 0; r < 10", "u32 r = 0; r < 9"),
    ("sparse_sign_table", "2 * row + (word & 1)", "2 * row + (~word & 1)"),
    ("sparse_sign_table", "(u64)(start + i), k0, k1, stream, nnz", "(u64)(start + i + 1), k0, k1, stream, nnz"),
    ("sparse_jl_table", "> (i64)(word >> 1)", ">= (i64)(word >> 2)"),
    ("less_table", "w[2] & 1", "w[3] & 1"),
    ("rademacher_table", "word >> j % 32 & 1 ? -1 : 1", "word >> j % 32 & 1 ? 1 : -1"),
    ("gaussian_table", "0.5f * z + 1.0f", "0.5f * z + 0.99999994f"),
    ("gaussian_table", "1.57079632679f", "1.5707964f * 0.9999999f"),
    ("sign_bits", "index / 32 % 4", "index / 32 % 2"),
    ("scatter_rows", "? -value : value", "? value : value"),
    ("scatter_columns", "2 * i + (packed[e] & 1)", "2 * i"),
    ("gather_rows", "T sum = 0", "T sum = 1"),
    ("scatter_rows_csr", "ri[f] % LANES == lane", "ri[f] % 16 == lane % 16"),
    ("scatter_columns_csr", "lv[e] * rv[f]", "rv[f]"),
    ("srht_apply", "v[j] - v[j | 1 << b]", "v[j | 1 << b] - v[j]"),
    ("srht_apply", "flip > 0 &&", "flip > 1 &&"),
    ("srht_adjoint", "value += source[", "value = source["),
    ("srht_adjoint", "flip < 0 &&", "flip < -1 &&"),
    ("normal_products", "team = thread / lanes", "team = thread / lanes + 1"),
    ("normal_products", "top > first ? g[j] : 0", "0"),
    ("normal_residual", "residual ? b[top + r] - sum : sum", "sum"),
    ("normal_residual", "weighted ? w[top + r] * value : value", "value"),
    ("normal_residual", "total += (double)", "total = (double)"),
    ("block_srht_apply", "i64 top = first_row + first_middle", "i64 top = first_middle"),
    ("block_srht_adjoint", "at.block * n_sampled", "0 * n_sampled"),
    ("pair_sums", "(indices[p] * n_columns + indices[q])", "(indices[q] * n_columns + indices[p])"),
    ("pair_sums", "right[right_entry[from] * width + t]", "right[right_entry[from] * width]"),
    ("masked_cholesky", "M[at(row, column)] += sum[s]", "M[at(row, column)] = sum[s]"),
    ("masked_cholesky", "diagonal[0] == 0 &&", "false &&"),
    ("masked_qr", "double head = R[at(j, j)]", "double head = 0"),
    ("masked_qr", "sqrt(ridge[i])", "ridge[i]"),
    ("masked_cg", "energy / before * s.p[j]", "s.p[j]"),
    ("masked_cg", "s.sums[g * k + j]", "s.sums[j]"),
    ("masked_cg", "s.base[(i64)c * k + j] * in[c]", "s.base[(i64)c * k + c] * in[c]"),
    ("masked_sketched_cg", "j] += word & 1 ? -value : value", "j] += value"),
    ("masked_sketched_cg", "= -factor;", "= factor;"),
    ("masked_variances", "variance : 1.0 / 0.0", "variance : 0.0"),
    ("masked_variances", "starts[g + 1] : count", "starts[g] + 1 : count"),
    ("nonneg_sweeps", "s < thread - thread % TILE + TILE", "s < thread - thread % TILE + 1"),
    ("nonneg_sweeps", "if (c > a) sum[c] +=", "if (c < a) sum[c] +="),
    ("nonneg_sweeps", "if (!(pivot > 0)) continue;", "if (k >= r) continue;"),
    ("nonneg_pivots", "(every || k == last)", "every"),
    ("nonneg_pivots", "slope < -tol * floor &&", "slope > tol * floor &&"),
    ("masked_nonneg_sweeps", "double sum = -b[j];", "double sum = b[j];"),
    ("masked_nonneg_sweeps", "if (!(pivot > 0) || value == old) continue;", "if (value == old) continue;"),
    ("divergence_sweeps", "step /= 1 + decrement", "step *= 1"),
    ("divergence_sweeps", "if (!(d.data[p] > 0)) continue;", ""),
    ("divergence_sweeps", "c += d.folds[FOLDS + f]", "c += d.folds[f]"),
    ("symmetric_sweep", "step = x - h", "step = h - x"),
    ("symmetric_sweep", "square += x * x - h * h;", ""),
    ("csr_symmetric_sweep", "sparse ? indices[e] : e - first;", "e - first;"),
    ("sampled_products", "row_of(first + r, m, indptr)", "row_of(first, m, indptr)"),
    ("binary_search", "0.5 * shift", "0 * shift"),
    ("binary_search", "both < best", "false"),
    ("masked_binary_search", "weight * (double)v[a] * (double)v[c]", "(double)v[a] * (double)v[c]"),
    ("top_columns", "column < other_column", "column > other_column"),
    ("top_columns", "(row[c] == value && c > column)", "false"),
    ("softmin_rows", "total[a] * e + 1 : total[a] + e", "total[a] + 1 : total[a] + e"),
    ("softmin_rows", "*fold(s, a, q, other) * share", "*fold(s, a, q, other)"),
    ("softmin_rows", "s.metric == EUCLIDEAN ? sqrt(c[a]) : c[a]", "c[a]"),
    ("sinkhorn_sweep", "given == 0 ? -INFINITE :", ""),
    ("sinkhorn_sweep", "first = item / m * rows, last", "first = item / m, last"),
    ("plan_sums", "e > 0 ? price[a] + e * c[a] : price[a]", "price[a] + e * c[a]"),
    ("plan_sums", "part * m + j", "j"),
    ("plan_matrix", "factor * exponential(", "exponential("),
    ("plan_matmul", "(i + a - first) * m + j", "(i - first) * m + j"),
    ("plan_entries", "if (0 <= b && b < BINS - 1)", "if (0 <= b)"),
    ("plan_entries", "if (spent > allowed) break", "if (spent >= 2 * allowed) break"),
    ("plan_entries", "indices[mine++] = (int)c", "indices[mine++] = (int)j"),
]


@pytest.mark.parametrize(("kernel", "old", "new"), MUTATIONS, ids=[f"{m[0]}-{m[1]}" for m in MUTATIONS])
def test_mutated_kernel_is_caught(kernel: str, old: str, new: str, compiler: None) -> None:
    assert sum(_compile.source(stem).count(old) > 0 for stem in STEMS), "the mutation no longer applies"
    mutant = fake_cupy.installed(flags=("-O0",), mutations={old: new})  # each is built for this test alone
    with mutant as module, pytest.raises(AssertionError):
        check_all(kernel, module)


# --- sanitizers -------------------------------------------------------------------------------------------------------

SANITIZED = """
from tests import contracts, fake_cupy
from randla.gpu import _compile, completion, hadamard, transport
_compile.BLOCK, _compile.MOST_BLOCKS, hadamard.TILE_BYTES, completion.SHARED, transport.TILE = 16, 2, 512, 1200, 100
flags = ("-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
with fake_cupy.installed(flags=flags, mutations={mutations!r}) as gpu:
    for contract in contracts.contracts():
        if contract.kernel.startswith({prefix!r}):
            contracts.check(contract, gpu)
"""


def _run_sanitized(prefix: str, mutations: dict[str, str]) -> subprocess.CompletedProcess[str]:
    found = subprocess.run(["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    environment = {**os.environ, "LD_PRELOAD": found.stdout.strip(), "ASAN_OPTIONS": "detect_leaks=0"}
    command = [sys.executable, "-c", SANITIZED.format(prefix=prefix, mutations=mutations)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)


@pytest.mark.slow
def test_no_address_is_missed_and_nothing_is_undefined(compiler: None) -> None:
    done = _run_sanitized("", {})
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize(
    ("prefix", "old", "new", "message"),
    [
        ("uniforms", "i < (n); ++i", "i <= (n); ++i", "heap-buffer-overflow"),
        ("uniform_rows", "(u64)i, 0);", "(u64)i, 1 << (i + 40));", "shift exponent"),
        ("srht_adjoint", "0 <= to && to < target_size", "to <= target_size", "heap-buffer-overflow"),
        ("masked_qr", "? shared + vectors :", "? shared + vectors + 1 :", "heap-buffer-overflow"),
    ],
)
def test_sanitizers_see_a_mutated_kernel(prefix: str, old: str, new: str, message: str, compiler: None) -> None:
    done = _run_sanitized(prefix, {old: new})
    assert done.returncode != 0
    assert message in done.stderr


#: Before a source and before its program: barriers and launches are numbered, what is told in the environment is left
#: out, and at the end the launch that came first to each barrier is printed.  Relaxed: it orders nothing by itself.
NUMBERED = """
#include <atomic>
#include <cstdio>
#include <cstdlib>
static const int left_out = std::atoi(std::getenv("LEFT_OUT")), skipped = std::atoi(std::getenv("SKIPPED"));
static int stage;
static std::atomic<int> reached[COUNT];
static bool meets(int barrier) {
    int never = 0;
    reached[barrier].compare_exchange_strong(never, stage, std::memory_order_relaxed);
    return barrier != left_out;
}
static struct report {
    ~report() {
        for (auto &first : reached) std::printf("%d ", (int)first);
    }
} at_the_end;
"""
STAGED = "\n#define launch(...) if (stage++ >= skipped) launch(__VA_ARGS__)\n"


def _races(stem: str, left_out: int = -1, skipped: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the program of a source under ThreadSanitizer, if told without a barrier and first launches; built once."""
    parts = _compile.source(stem).split("__syncthreads();")
    numbered = "".join(f"{part}if (meets({n})) __syncthreads();" for n, part in enumerate(parts[:-1])) + parts[-1]
    head = NUMBERED.replace("COUNT", str(len(parts) - 1))
    text = head + fake_cupy.host_text(numbered, threads=True) + STAGED + PROGRAMS[stem]
    program = fake_cupy.build(text, ("-fsanitize=thread", "-g"), shared=False)
    # the first race ends it: threads that a missing barrier sent different ways would wait for ever
    options = f"halt_on_error=1:symbolize={int(left_out < 0)}"
    environment = {**os.environ, "LEFT_OUT": str(left_out), "SKIPPED": str(skipped), "TSAN_OPTIONS": options}
    return subprocess.run([str(program)], env=environment, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def thread_sanitizer(compiler: None) -> None:
    try:
        works = subprocess.run([str(fake_cupy.build("int main() {}", ("-fsanitize=thread",), shared=False))]).returncode
    except subprocess.CalledProcessError:
        works = 1
    if works != 0:
        skip("tsan")


@pytest.mark.parametrize("stem", PROGRAMS)
def test_no_races_in_shared_memory(stem: str, thread_sanitizer: None) -> None:
    done = _races(stem)
    assert done.returncode == 0, done.stderr[:3000]


def test_cooperative_sources_are_listed() -> None:
    assert PROGRAMS.keys() == {stem for stem in STEMS if "__syncthreads" in _compile.source(stem)}


@pytest.mark.parametrize("stem", PROGRAMS)
def test_every_missing_barrier_is_a_race(stem: str, thread_sanitizer: None) -> None:
    first = [int(number) for number in _races(stem).stdout.split()]  # launches, from 1; those before need not run
    assert len(first) == _compile.source(stem).count("__syncthreads();")
    for which, launch in enumerate(first):
        done = _races(stem, which, launch - 1)
        assert "data race" in done.stderr, f"barrier {which}"


# --- compilers --------------------------------------------------------------------------------------------------------


def _nvrtc() -> ctypes.CDLL | None:
    if find_spec("nvidia") is None:
        return None
    folders = [Path(folder) for folder in find_spec("nvidia").submodule_search_locations]
    found = [path for folder in folders for path in folder.glob("*/lib/libnvrtc.so.*") if "alt" not in path.name]
    return ctypes.CDLL(str(found[0])) if found else None


def _compile_with_nvrtc(library: ctypes.CDLL, text: str, options: list[str]) -> tuple[int, str]:
    """Size of the cubin (0 if there is none) and the log."""
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    assert library.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"randla.cu", 0, None, None) == 0
    encoded = [option.encode() for option in options]
    status = library.nvrtcCompileProgram(program, len(encoded), (ctypes.c_char_p * len(encoded))(*encoded))
    library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    library.nvrtcGetProgramLog(program, log)
    size.value = 0
    if status == 0:
        library.nvrtcGetCUBINSize(program, ctypes.byref(size))
    library.nvrtcDestroyProgram(ctypes.byref(program))
    return size.value, log.value.decode()


def _compile_with_nvcc(text: str, options: list[str], folder: Path) -> tuple[int, str]:
    source, cubin = folder / "randla.cu", folder / "randla.cubin"
    source.write_text(text, encoding="utf-8")
    done = subprocess.run(["nvcc", *options, "-cubin", "-o", cubin, source], capture_output=True, text=True)
    return cubin.stat().st_size if done.returncode == 0 else 0, done.stderr


def compile_cubin(text: str, options: list[str], folder: Path) -> tuple[int, str]:
    """By the NVRTC wheel, which is what CuPy uses, or else by nvcc."""
    library = _nvrtc()
    if library is not None:
        return _compile_with_nvrtc(library, text, options)
    if shutil.which("nvcc") is None:
        skip("nvrtc")
    return _compile_with_nvcc(text, options, folder)


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
@pytest.mark.parametrize("real", ["float", "double"])
@pytest.mark.parametrize("stem", STEMS)
def test_sources_compile_without_spills(stem: str, real: str, architecture: str, tmp_path: Path) -> None:
    options = [*_compile.options(stem, real), f"-arch={architecture}", "--ptxas-options=-v"]
    size, log = compile_cubin(_compile.source(stem), options, tmp_path)
    assert size > 0, log
    kernels = fake_cupy.signatures(_compile.source(stem))
    assert log.count("0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads") == len(kernels), log


def test_compiler_refuses_a_broken_source(tmp_path: Path) -> None:
    text = _compile.source("scatter").replace("T sum = 0;", "")
    size, log = compile_cubin(text, [*_compile.options("scatter", "float"), "-arch=sm_90"], tmp_path)
    assert size == 0
    assert '"sum" is undefined' in log


# --- the surface of CuPy ----------------------------------------------------------------------------------------------

SURFACE = json.loads((Path(__file__).parent / "cupy_surface.json").read_text(encoding="utf-8"))


def surface_errors(tree: ast.AST) -> list[str]:
    """Names and keywords that the stored list of CuPy's API does not have."""
    functions, methods, errors = SURFACE["functions"], {**SURFACE["arrays"], **SURFACE["sparse"]}, []
    aliases = {"cupy": "cupy"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in ("cupy", "cupyx"):
            aliases |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    called = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "cupy":
            name, known = f"cupy.{node.attr}", functions
        elif isinstance(node, ast.Name) and node.id in aliases and node.id != "cupy":
            name, known = aliases[node.id], functions
        elif isinstance(node, ast.Attribute) and id(node) in called and node.attr in methods:
            name, known = node.attr, methods
        else:
            continue
        if name not in known:
            errors.append(f"line {node.lineno}: {name} is not in the stored list")
        elif id(node) in called and (parameters := known[name]) is not None:
            call = called[id(node)]
            errors += [
                f"line {node.lineno}: {name} has no keyword {keyword.arg}"
                for keyword in call.keywords
                if keyword.arg not in parameters
            ]
            if len(call.args) > len(parameters) and name != "reshape":
                errors.append(f"line {node.lineno}: {name} takes at most {len(parameters)} arguments")
    return errors


@pytest.mark.parametrize("path", LAUNCHERS, ids=lambda path: path.stem)
def test_launchers_use_what_cupy_has(path: Path) -> None:
    assert not surface_errors(ast.parse(path.read_text(encoding="utf-8")))


def test_methods_of_arrays_are_those_of_cupy() -> None:
    """Every attribute that launchers read off something that is no module or class of ours is one of CuPy's arrays."""
    ours = {"lo", "hi", "bit_length", "append"}
    for path in LAUNCHERS:
        if path.stem.startswith("_"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) not in ("cupy", "Stream"):
                known = SURFACE["arrays"].keys() | SURFACE["sparse"].keys() | ours
                assert node.attr in known, f"{path.name}, line {node.lineno}: {node.attr}"


def namespace_names(tree: ast.AST) -> set[str]:
    """What code asks of an array namespace: ``xp.a.b``, also as ``self.xp.a.b``."""
    found = set()
    for node in ast.walk(tree):
        names: list[str] = []
        inner = node
        while isinstance(inner, ast.Attribute):
            names.insert(0, inner.attr)
            inner = inner.value
        names = [*([inner.id] if isinstance(inner, ast.Name) else []), *names]
        if "xp" in names[:2] and len(names) > names.index("xp") + 1:
            found.add(".".join(names[names.index("xp") + 1 :]))
    return {name for name in found if not any(other.startswith(f"{name}.") for other in found)}


@pytest.mark.parametrize("path", ALGORITHMS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_algorithms_ask_only_for_names_that_cupy_has(path: Path) -> None:
    """The stored names are in CuPy, or in what array_api_compat adds to it."""
    asked = namespace_names(ast.parse(path.read_text(encoding="utf-8")))
    assert asked <= set(SURFACE["namespace"]) | {"__name__"}
    assert namespace_names(ast.parse("xp.einsumm(A); self.xp.linalg.qr(A)")) == {"einsumm", "linalg.qr"}


def test_surface_check_sees_wrong_names() -> None:
    code = (
        "import cupy\nfrom cupyx.scipy.sparse import csr_matrix, bsr_matrix\n"
        "cupy.emptyy(3)\ncupy.empty(3, dtyp=int)\ncupy.cumsum(1, 2, 3, 4, 5)\nx.astype(int, copies=True)\n"
        "bsr_matrix(3)\ncsr_matrix((1, 2), shapes=3)\ncupy.empty(3, cupy.int64)\n"
    )
    assert len(surface_errors(ast.parse(code))) == 6


@pytest.mark.gpu
def test_stored_surface_is_the_one_installed() -> None:
    import cupy

    for name in SURFACE["functions"]:
        module, _, attribute = name.rpartition(".")
        assert hasattr(pytest.importorskip(module), attribute), name
    for name in SURFACE["arrays"]:
        assert hasattr(cupy.empty(1), name) or name in ("c_contiguous", "kind", "name"), name


# --- a real GPU -------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("kernel", reference.__all__)
def test_contracts_on_the_device(kernel: str) -> None:
    import cupy

    check_all(kernel, gpu, put=cupy.asarray, get=cupy.asnumpy)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_device_sums_repeat_bit_for_bit(dtype: str) -> None:
    """Long lists in pieces, many blocks, several passes: two runs give equal bits, and adjoints fit together."""
    import cupy

    n, d, k = 2**17, 24, 64
    packed = gpu.sparse_sign_table(contracts.KEY, 0, n, 4, k).ravel()
    pointers = cupy.arange(n + 1) * 4
    A = gpu.gaussian_table(contracts.KEY, 0, n, d, dtype)
    rows = gpu.distinct_rows(contracts.KEY, n, k)
    for apply in (
        lambda out: gpu.scatter_rows(pointers, packed, A, out),
        lambda out: gpu.srht_apply(contracts.KEY, A, n, 2, rows, out),
        lambda out: gpu.block_srht_apply(contracts.KEY, A, 0, 2**12, 2, rows % 2**12, out),
    ):
        first, second = cupy.zeros((k, d), dtype), cupy.zeros((k, d), dtype)
        apply(first)
        apply(second)
        assert cupy.array_equal(first, second)
        assert float(cupy.abs(first).max()) > 0


@pytest.mark.gpu
@pytest.mark.parametrize("metric", ["stored", "sqeuclidean"])
def test_device_plans_repeat_bit_for_bit(metric: str) -> None:
    """Rows and columns that fill the device many times over, two tiles of a sparse plan, and sums that are right."""
    import cupy

    n, m, reg = 9001, 7003, 0.05
    rng = np.random.default_rng(0)
    X, Y = (cupy.asarray(rng.random(shape)) for shape in ((n, 3), (m, 3)))
    X, Y = (cupy.asarray(rng.random((n, m))), None) if metric == "stored" else (X, Y)
    a, g = cupy.full(n, 1 / n), cupy.asarray(0.1 * rng.standard_normal(m))
    (f, sums), (again, others) = (gpu.sinkhorn_sweep(metric, X, Y, a, g, reg) for _ in range(2))
    assert cupy.array_equal(f, again)
    assert cupy.array_equal(sums, others)
    assert abs(float(sums.sum()) - 1) <= tolerance("float64", n + m)
    first, second = (gpu.plan_entries(metric, X, Y, f, g, reg, 0.01) for _ in range(2))
    assert all(cupy.array_equal(mine, other) for mine, other in zip(first, second, strict=True))
    assert abs(float(first[0].sum()) - 0.995) <= 0.005 + tolerance("float64", n + m, 1 + 1 / reg)


@pytest.mark.gpu
@pytest.mark.parametrize("kernel", ["masked_cholesky", "masked_qr", "masked_cg", "masked_sketched_cg"])
def test_device_solutions_repeat_bit_for_bit(kernel: str) -> None:
    """Rows that fill the device many times over, of very different lengths."""
    import cupy

    lengths = np.r_[20_000, np.arange(4000) % 300]
    rng, indptr = np.random.default_rng(0), np.r_[0, np.cumsum(lengths)]
    V, t = (cupy.asarray(rng.standard_normal(shape)) for shape in ((500, 32), indptr[-1]))
    indices = cupy.asarray(rng.integers(0, 500, indptr[-1]))
    ridge, start = cupy.ones(lengths.size), cupy.zeros((lengths.size, 32))
    rows = V, indices, cupy.asarray(indptr), None, t
    arguments = {
        "masked_cholesky": (*rows, None, ridge),
        "masked_qr": (*rows, ridge),
        "masked_cg": (*rows, None, ridge, cupy.ones(32), cupy.asarray(lengths), start, 1e-6, 30),
        "masked_sketched_cg": (contracts.KEY, *rows, ridge, start, 128, 8, 1e-6, 30),
    }[kernel]
    first, second = (getattr(gpu, kernel)(*arguments) for _ in range(2))
    assert all(cupy.array_equal(mine, other) for mine, other in zip(first, second, strict=True))
    assert float(cupy.abs(first[0]).max()) > 0
