"""What the documentation says is run: doctests, the tour of README.md, and the shapes that docstrings promise."""

from __future__ import annotations

import doctest
import inspect
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import randla

ROOT = Path(__file__).parents[1]
OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "randla").rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)
PAGES = sorted(path for path in (ROOT / "docs").glob("*.md") if ">>> " in path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = doctest.testmod(import_module(name), optionflags=OPTIONS)
    assert outcome.attempted > 0
    assert outcome.failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pages(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples of a page share one namespace, as a reader would type them."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    test = doctest.DocTestParser().get_doctest("".join(blocks), {}, page.name, str(page), 0)
    outcome = doctest.DocTestRunner(optionflags=OPTIONS).run(test)
    assert outcome.attempted > 0
    assert outcome.failed == 0


def readme_block(language: str) -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def test_readme_tour_runs(tmp_path: Path) -> None:
    (code,) = readme_block("python")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=tmp_path, timeout=120, env=environment)
    assert len([line for line in code.splitlines() if line.strip()]) <= 35


def test_readme_has_two_commands() -> None:
    """`.ci/run` takes them from here; each is one line and starts from a bare Python."""
    commands = readme_block("bash")
    assert len(commands) == 2
    for command in commands:
        assert command.count("\n") == 1
        assert command.startswith("python3.11 -m venv ")


def shell_lines() -> list[str]:
    """Every `randla ...` that README.md and the docs tell a reader to type."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    typed = re.findall(
        r"(?:^\$ |`)(randla (?:tour|svd|sketch|lstsq|complete|nmf|transport|info)[^`\n]*)", text, flags=re.MULTILINE
    )
    return sorted(set(typed))


@pytest.mark.parametrize("line", shell_lines())
def test_commands_in_the_docs_exist(line: str) -> None:
    from randla.cli import _parser

    assert callable(_parser().parse_args(line.split()[1:]).run)


# --- shapes -----------------------------------------------------------------------------------------------------------

M, N, RANK, SIZE = 60, 30, 4, 20
DIMENSIONS = {"m": M, "n": N, "d": N, "rank": RANK, "sketch_size": SIZE, "n_components": RANK, "n_samples": M}
DIMENSIONS |= {"n_features": N}
A = np.random.default_rng(0).normal(size=(M, RANK)) @ np.random.default_rng(1).normal(size=(RANK, N)) + 0.01
SYMMETRIC = A.T @ A

#: What is called to see the shapes that a docstring promises of its result.
CALLS: dict[str, Any] = {
    "svd": lambda: randla.svd(A, RANK, rng=0),
    "eigh": lambda: randla.eigh(SYMMETRIC, RANK, rng=0),
    "range_finder": lambda: randla.range_finder(A, RANK, rng=0),
    "LowRankResult": lambda: randla.svd(sp.csr_array(A), RANK, rng=0),
    "EighResult": lambda: randla.eigh(SYMMETRIC, RANK, rng=0),
    "RangeResult": lambda: randla.range_finder(A, RANK, rng=0),
    "sketch": lambda: randla.sketch(A, SIZE, rng=0),
}


def promised_shapes(described: Any) -> list[tuple[str, str]]:
    """(attribute, shape) of each ``X`` (a, b), X : array, shape (a, b) and array, shape (a, b) that is promised."""
    text = inspect.getdoc(described) or ""
    section = r"^(?:Returns|Attributes)\n-+\n(.*?)(?=^[A-Z][A-Za-z ]+\n-+\n|\Z)"
    match = re.search(section, text, re.MULTILINE | re.DOTALL)
    if match is None:
        return []
    inline = re.findall(r"``(\w+)``,? (?:shape )?(\([\w, ]+\))", match[1])
    listed = [
        (attribute.strip(), shape)
        for names, shape in re.findall(r"^([\w, ]+?) : [^\n]*shape (\([\w, ]+\))", match[1], flags=re.MULTILINE)
        for attribute in names.split(",")
    ]
    anonymous = [("", shape) for shape in re.findall(r"^array, shape (\([\w, ]+\))", match[1], flags=re.MULTILINE)]
    return inline + listed + anonymous


@pytest.mark.parametrize("name", CALLS)
def test_promised_shapes(name: str) -> None:
    result = CALLS[name]()
    promised = promised_shapes(getattr(randla, name))
    assert promised, f"{name} must say the shapes of what it returns"
    dimensions = DIMENSIONS | ({"m": N} if name.startswith(("eigh", "Eigh")) else {})
    for attribute, shape in promised:
        expected = tuple(dimensions.get(part, None) or int(part) for part in re.findall(r"\w+", shape))
        value = getattr(result, attribute) if attribute else result
        if value is not None:  # optional fields, such as the mean of an uncentred factorisation
            assert value.shape == expected, attribute


def test_a_wrong_promise_is_seen() -> None:
    """The check of the check: both spellings of a shape are read."""

    def wrong() -> None:
        """Return nothing.

        Returns
        -------
        Result
            ``U`` (n, rank), ``s`` (rank,).
        Q : array, shape (m, rank)
        array, shape (m,)
        """

    assert promised_shapes(wrong) == [("U", "(n, rank)"), ("s", "(rank,)"), ("Q", "(m, rank)"), ("", "(m,)")]
