"""The plan of the house, held by walking syntax trees: floors, rooms of dependencies, twins, imports, docstrings."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

import randla
from randla._results import Result

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "randla"
SOURCES = sorted(path for path in PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}

FLOORS = {
    0: {"_arrays", "_atomic", "_backend", "_blocks", "_checks", "_parallel", "_random", "_results"},
    1: {"kernels", "gpu"},
    2: {"operators"},
    3: {
        "completion",
        "cur_scoring",
        "datasets",
        "diagnostics",
        "linear_maps",
        "lowrank",
        "nonnegative",
        "qr",
        "regression",
        "sampling",
        "sensing",
        "streaming",
        "structured",
        "traces",
        "transport",
        "triangular",
        "updating",
    },
    4: {"estimators"},
    5: {"__main__", "cli", "files", "plot", "rating_lines", "ratings", "tour"},
}
FLOOR = {room: floor for floor, rooms in FLOORS.items() for room in rooms}

#: Optional or slow dependency -> the rooms that may import it at all.
ROOMS = {
    "numba": {"kernels"},
    "cupy": {"gpu", "cli"},
    "cupyx": {"gpu"},
    "sklearn": {"estimators", "cli", "tour"},
    "joblib": set(),
    "torch": set(),
    "matplotlib": {"plot", "tour"},
    "PIL": {"plot", "tour"},
    "rich": {"cli", "tour"},
    "pyarrow": {"files"},
    "lightphe": {"nonnegative"},
    "pyscipopt": {"nonnegative"},
    "dask": {"distributed"},
    "pandas": set(),
}
#: Of these, the ones imported inside functions only, so that a module loads without them.
LAZY = {"cupy", "cupyx", "matplotlib", "PIL", "rich", "pyarrow", "lightphe", "pyscipopt", "dask"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in SOURCES}


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def _only_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def walk(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node of a tree but those under ``if TYPE_CHECKING``, which never run."""
    for child in ast.iter_child_nodes(tree):
        if not _only_for_types(child):
            yield child
            yield from walk(child)


def imports(path: Path, tree: ast.AST) -> set[str]:
    """Dotted names that the nodes of `tree` import; relative imports resolved, submodules told from names."""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    found = set()
    for node in walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            for alias in node.names:
                dotted = f"{origin}.{alias.name}"
                found.add(dotted if dotted in MODULES else origin)
    return found


def internal_imports(path: Path) -> set[str]:
    return {name for name in imports(path, TREES[path]) if name in MODULES and name != "randla"}


def test_every_room_has_a_floor() -> None:
    rooms = {room(module) for module in MODULES} - {""}
    assert rooms <= FLOOR.keys(), "put the new room on a floor, in this table and in the plan"


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_imports_go_down(path: Path) -> None:
    here = room(module_name(path))
    upward = [name for name in internal_imports(path) if here and FLOOR[room(name)] > FLOOR[here]]
    assert not upward


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_surroundings_are_imported_by_no_lower_floor_and_the_package_by_nobody(path: Path) -> None:
    """A module of randla imports its neighbours by module, never through the package, which would load lazily."""
    through_package = [name for name in imports(path, TREES[path]) if name == "randla"]
    floor = FLOOR.get(room(module_name(path)))
    assert floor == 5 or not through_package


def test_no_circles() -> None:
    graph = {module: internal_imports(path) - {module} for module, path in MODULES.items()}
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"import circle: {' -> '.join(error.args[1])}")
    assert len(graph) > 10


def test_floor_checks_see_an_upward_import(tmp_path: Path) -> None:
    """The check of the check: imports of every spelling are found, those for types alone are not."""
    source = (
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from .. import cli\n"
        "from .. import operators\n"
        "def f():\n    from ..estimators import TruncatedSVD\n    import randla.kernels\n"
    )
    found = imports(PACKAGE / "kernels" / "tables.py", ast.parse(source))
    assert found == {"typing", "randla.operators", "randla.estimators", "randla.kernels"}


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_dependencies_stay_in_their_rooms(path: Path) -> None:
    tops = {name.split(".")[0] for name in imports(path, TREES[path])}
    strangers = {top for top in tops & ROOMS.keys() if room(module_name(path)) not in ROOMS[top]}
    assert not strangers
    outside_functions = ast.Module(
        body=[node for node in TREES[path].body if not isinstance(node, (ast.FunctionDef, ast.ClassDef))],
        type_ignores=[],
    )
    eager = {name.split(".")[0] for name in imports(path, outside_functions)} & LAZY
    assert not eager, "import it inside the function that needs it"


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_no_print_assert_or_global_random(path: Path) -> None:
    offences = []
    may_print = room(module_name(path)) in ("cli", "tour")
    for node in walk(TREES[path]):
        called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
        if isinstance(node, ast.Assert) or (called == "print" and not may_print):
            offences.append(f"line {node.lineno}: {ast.unparse(node)}")
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("np.random", "numpy.random"):
            types = ("Generator", "SeedSequence", "RandomState")  # to recognise, not to draw from
            offences += [f"line {node.lineno}: {ast.unparse(node)}"] * (node.attr not in types)
    assert not offences


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_sizes(path: Path) -> None:
    """Modules under 600 lines; bodies of functions, docstring apart, at most 60."""
    assert len(path.read_text(encoding="utf-8").splitlines()) < 600
    too_long = []
    for node in ast.walk(TREES[path]):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            if lines > 60:
                too_long.append(f"{node.name}: {lines} lines")
    assert not too_long


def test_no_drawer_for_everything() -> None:
    assert not {path.stem for path in SOURCES} & {"utils", "util", "helpers", "misc", "common"}


def test_twins() -> None:
    """Every kernel has a slow truth and a CUDA launcher of the same name and signature."""
    kernels, reference, gpu = (import_module(f"randla.{name}") for name in ("kernels", "kernels.reference", "gpu"))
    names = set(kernels.__all__)
    assert names
    assert names == set(gpu.__all__)
    for name in sorted(names):
        signatures = [list(inspect.signature(getattr(m, name)).parameters) for m in (kernels, reference, gpu)]
        assert signatures[0] == signatures[1] == signatures[2], name


def run_python(code: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=60).stdout


def test_import_loads_nothing_heavy() -> None:
    loaded = run_python("import sys, randla; print(*sys.modules)").split()
    heavy = {"numpy", "scipy", "numba", "sklearn", "cupy", "dask", "pandas", "matplotlib", "array_api_compat"}
    assert "randla" in loaded
    assert not heavy & {name.split(".")[0] for name in loaded}


def test_import_adds_few_modules_to_numpy() -> None:
    """What an import costs is what it loads: a count of modules, unlike a time, does not depend on the machine."""
    code = "import sys, numpy; before = set(sys.modules); import randla; print(*(set(sys.modules) - before))"
    assert len(run_python(code).split()) <= 5


def test_ground_floor_loads_no_kernels() -> None:
    loaded = run_python("import sys, randla; randla.as_key(0), randla.threads, randla.Status; print(*sys.modules)")
    assert not {"numba", "sklearn", "scipy", "cupy", "dask"} & {name.split(".")[0] for name in loaded.split()}


@pytest.mark.parametrize("name", randla.__all__)
def test_public_names_resolve(name: str) -> None:
    assert getattr(randla, name) is not None
    assert name in dir(randla)


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'svdd'"):
        randla.svdd  # noqa: B018


def test_names_for_type_checkers_are_the_public_names() -> None:
    tree = TREES[PACKAGE / "__init__.py"]
    block = next(node for node in tree.body if _only_for_types(node))
    declared = {}
    for node in block.body:
        for alias in node.names:
            declared[alias.asname] = node.module or alias.name
    expected = {**randla._HOMES, **{name: name for name in randla._SUBMODULES}}
    assert declared == expected


def test_public_names_are_in_the_reference_pages() -> None:
    listed = set()
    for page in (ROOT / "docs" / "api").glob("*.rst"):
        for block in re.findall(r"\.\. autosummary::\n((?:[ \t]+.*\n|\n)+)", page.read_text(encoding="utf-8")):
            listed |= set(re.findall(r"^\s+([\w.]+)$", block, flags=re.MULTILINE))
    flat = set(randla.__all__) - {"__version__", *randla._SUBMODULES}
    assert {name for name in listed if "." not in name} == flat


# --- docstrings -------------------------------------------------------------------------------------------------------

FUNCTIONS = [name for name in randla._HOMES if name[0].islower()]
PLAIN = ("Status", "Choice", "Warning", "Error")  # their summary says all
CLASSES = [name for name in randla._HOMES if name[0].isupper() and not name.endswith(PLAIN)]


def sections(docstring: str) -> dict[str, str]:
    """Numpydoc section title -> text."""
    parts = re.split(r"^([A-Z][A-Za-z ]+)\n-{3,}\n", inspect.cleandoc(docstring), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def documented_names(text: str) -> list[str]:
    """Names at the left margin of a parameter section; ``a, b : type`` documents two."""
    heads = re.findall(r"^([A-Za-z_*][\w*, ]*?)(?: :.*)?$", text, flags=re.MULTILINE)
    return [name.strip(" *") for head in heads for name in head.split(",")]


def check_parameters(text: str, described: Callable[..., object]) -> None:
    """All parameters are documented: the positional ones first and in order, then the keywords."""
    parameters = inspect.signature(described).parameters.values()
    positional = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
    documented = documented_names(text)
    assert documented[: len(positional)] == positional
    assert sorted(documented) == sorted(p.name for p in parameters)


def check_summary(docstring: str | None) -> None:
    assert docstring, "no docstring"
    summary = inspect.cleandoc(docstring).split("\n\n")[0]
    assert summary.endswith("."), f"the summary must end with a full stop: {summary!r}"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_docstrings(name: str) -> None:
    function = getattr(randla, name)
    check_summary(function.__doc__)
    found = sections(function.__doc__)
    required = {"Parameters", "Raises", "Examples"} | ({"Returns"} if name != "threads" else set())
    assert required <= found.keys()
    check_parameters(found["Parameters"], function)


@pytest.mark.parametrize("name", CLASSES)
def test_class_docstrings(name: str) -> None:
    cls = getattr(randla, name)
    check_summary(cls.__doc__)
    found = sections(cls.__doc__)
    if issubclass(cls, Result):
        assert {"Attributes", "Parameters"} & found.keys()  # a result that users make has parameters
        documents = [sections(base.__doc__) for base in cls.__mro__ if issubclass(base, Result) and base.__doc__]
        documented = {
            name
            for text in documents
            for name in documented_names(text.get("Attributes", "") + text.get("Parameters", ""))
        }
        assert {field for field in cls.__dataclass_fields__ if not field.startswith("_")} <= documented
    else:
        assert {"Parameters", "Examples"} <= found.keys()
        check_parameters(found["Parameters"], cls)
    for attribute, value in vars(cls).items():
        if inspect.isfunction(value) and not attribute.startswith("_"):
            assert inspect.getdoc(getattr(cls, attribute)), f"{name}.{attribute} has no docstring"


# --- the tests themselves ---------------------------------------------------------------------------------------------

CHECKS = ("assert", "check", "raises", "warns", "skip", "fail", "importorskip")


def checks_something(function: ast.FunctionDef, helpers: dict[str, ast.FunctionDef]) -> bool:
    """True if a test asserts, expects an error or skips, itself or through a function of its module."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called.lstrip("_").startswith(CHECKS):
                return True
            others = {name: helper for name, helper in helpers.items() if name != called}
            if called in helpers and checks_something(helpers[called], others):
                return True
    return False


@pytest.mark.parametrize("path", sorted((ROOT / "tests").glob("test_*.py")), ids=lambda path: path.stem)
def test_every_test_checks_something(path: Path) -> None:
    functions = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.FunctionDef)]
    helpers = {node.name: node for node in functions if not node.name.startswith("test_")}
    tests = [node for node in functions if node.name.startswith("test_")]
    assert tests
    assert not [test.name for test in tests if not checks_something(test, helpers)]


def test_an_empty_test_is_seen() -> None:
    source = "def helper():\n    assert 1\ndef test_a():\n    helper()\ndef test_b():\n    len([])\n"
    helper, good, empty = ast.parse(source).body
    assert checks_something(good, {"helper": helper})
    assert not checks_something(empty, {"helper": helper})
