"""Imports go downward only: no circle between modules or packages, each layer above those it uses.

An import inside a function counts, one under ``TYPE_CHECKING`` does not.
"""

import ast
import re
from collections.abc import Iterator, Mapping, Set
from pathlib import Path

import pytest

import dynal_fast

PACKAGE = "dynal_fast"
ROOT = Path(__file__).parent.parent

# From the bottom: a part may import from the layers before its own, a foundation from the others.
FOUNDATIONS = [
    "_deprecated",
    "_extension",
    "_triton",
    "_version",
    "collective",
    "evaluating",
    "files",
    "info",
    "measured",
    "normalize",
    "penultimate",
    "plain",
    "table",
    "threads",
]
LAYERS = [
    FOUNDATIONS,
    ["ops"],
    ["charts", "data", "embeddings", "models", "pool"],
    ["strategies"],
    ["acquisition", "experiment", "integrations"],  # the first is the old name of strategies
    ["bench", "report"],
    ["cli"],
    ["__main__"],
]
HEIGHT = {part: height for height, parts in enumerate(LAYERS) for part in parts}

Graph = Mapping[str, Set[str]]


def modules(root: Path, package: str) -> dict[str, Path]:
    """Return the file of each module of ``package`` by its dotted name."""
    found = {}
    for path in sorted((root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the import statements below ``node``, but for those that only a type checker runs."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield node
    children: list[ast.AST] = list(ast.iter_child_nodes(node))
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        children = list(node.orelse)
    for child in children:
        yield from imports(child)


def public_homes() -> dict[str, str]:
    """Return the module that ``from dynal_fast import name`` loads, by ``dynal_fast.name``."""
    return {f"{PACKAGE}.{name}": home for name, home in dynal_fast._HOMES.items()}


def imported(name: str, path: Path, known: Set[str]) -> set[str]:
    """Return which of the ``known`` modules the module ``name`` imports."""
    found = set()
    homes = public_homes()
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for statement in imports(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(statement, ast.Import):
            found |= {alias.name for alias in statement.names}
            continue
        base = statement.module or ""
        if statement.level:
            above = package.split(".")[: len(package.split(".")) - statement.level + 1]
            base = ".".join([*above, base] if base else above)
        for alias in statement.names:
            inner = f"{base}.{alias.name}"
            found.add(inner if inner in known else homes.get(inner, base))
    return (found & known) - {name}


def circle(graph: Graph) -> list[str]:
    """Return a circle of ``graph``, with its first name again at its end; empty where none is."""
    done: set[str] = set()

    def search(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for other in sorted(graph.get(name, ())):
            if found := search(other, [*path, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(graph) if (found := search(name, []))), [])


def part(module: str) -> str:
    """Return the package or module of the top level that ``module`` belongs to."""
    return module.split(".")[1]


def imports_of(package: str) -> Graph:
    files = modules(ROOT, package)
    return {name: imported(name, path, files.keys()) for name, path in files.items()}


@pytest.fixture(scope="module")
def graph() -> Graph:
    return imports_of(PACKAGE)


@pytest.mark.parametrize("package", [PACKAGE, "benchmarks"])
def test_no_circle_between_modules(package):
    assert not (found := circle(imports_of(package))), " -> ".join(found)


def test_no_circle_between_packages(graph):
    parts: dict[str, set[str]] = {}
    for name, others in graph.items():
        if name != PACKAGE:
            used = {part(other) for other in others if other != PACKAGE}
            parts.setdefault(part(name), set()).update(used - {part(name)})
    assert not (found := circle(parts)), " -> ".join(found)


def test_imports_go_downward(graph):
    upward = [
        f"{name} imports {other}"
        for name, others in graph.items()
        for other in sorted(others)
        if PACKAGE not in {name, other} and part(name) != part(other)
        if HEIGHT[part(name)] <= HEIGHT[part(other)] > 0
    ]
    assert not upward, "\n".join(upward)


def test_every_part_has_a_layer(graph):
    parts = {part(name) for name in graph if name != PACKAGE}
    assert parts == HEIGHT.keys()


def test_the_architecture_has_the_same_layers():
    text = (ROOT / "docs" / "architecture.md").read_text()
    rows = [set(re.findall(r"`(\w+)`", row)) for row in re.findall(r"^\| (`.*?) \|", text, re.M)]
    layers = [set(layer) - {"acquisition"} for layer in reversed(LAYERS)]
    assert rows[: len(layers)] == layers


def test_only_the_package_itself_loads_by_name(graph):
    """``import dynal_fast`` imports nothing heavy: its public names load when they are used."""
    assert graph[PACKAGE] == {f"{PACKAGE}._version"}


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        ("from sample import second", ["sample.first", "sample.second", "sample.first"]),
        ("from . import second", ["sample.first", "sample.second", "sample.first"]),
        ("from .second import f", ["sample.first", "sample.second", "sample.first"]),
        ("def g():\n    import sample.second", ["sample.first", "sample.second", "sample.first"]),
        ("if TYPE_CHECKING:\n    from sample import second", []),
        ("import os", []),
    ],
)
def test_a_circle_is_found_and_named(tmp_path, first, expected):
    folder = tmp_path / "sample"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "first.py").write_text(first)
    (folder / "second.py").write_text("import sample.first\n\ndef f(): ...")
    files = modules(tmp_path, "sample")
    assert circle({n: imported(n, path, files.keys()) for n, path in files.items()}) == expected


def test_no_class_is_a_named_tuple_and_generic():
    """Python 3.10 refuses such a class, and the modules that have one."""
    found = []
    for path in sorted((ROOT / "dynal_fast").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                bases = {ast.unparse(base).partition("[")[0] for base in node.bases}
                if {"NamedTuple", "Generic"} <= bases:
                    found.append(f"{path.name}: {node.name}")
    assert found == []
