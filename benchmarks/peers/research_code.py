"""The core-set steps of research code, theirs and ours.

They are taken from their sources as they are, but for their prints: the functions named are cut
out and run. Ours are the functions of ``docs/how-to/use-it-in-research-code.md``.
"""

import ast
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from sklearn.metrics import pairwise_distances

from benchmarks.peers.step import Select, Size, Step, features

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "use-it-in-research-code.md"


class WithoutPrints(ast.NodeTransformer):
    """What is printed goes; google/active-learning formats an array, which NumPy 2.4 refuses."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | ast.Pass:
        call = node.value
        named = isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
        return ast.Pass() if named and call.func.id == "print" else node


def cut_out(step: Step, sources: Path) -> tuple[dict[str, Any], int]:
    """Return the functions of a step by name, and their lines without docstrings and comments."""
    file, owner, names = step.where
    tree = ast.parse((sources / step.peer / file).read_text())
    body = tree.body
    if owner:
        body = next(n for n in body if isinstance(n, ast.ClassDef) and n.name == owner).body
    found = [n for n in body if isinstance(n, ast.FunctionDef) and n.name in names]
    lines = 0
    for function in found:
        if isinstance(function.body[0], ast.Expr) and ast.get_docstring(function):
            function.body = function.body[1:]
        lines += len(ast.unparse(function).splitlines())
    given = {
        "np": np,
        "torch": torch,
        "pairwise_distances": pairwise_distances,
        "tqdm": lambda steps, **options: steps,
        "cfg": SimpleNamespace(ACTIVE_LEARNING=SimpleNamespace()),
    }
    code = ast.fix_missing_locations(WithoutPrints().visit(ast.Module(found, [])))
    exec(compile(code, file, "exec"), given)
    return given, lines


def on_our_page(step: Step) -> tuple[dict[str, Any], int]:
    """Return the functions of our page that replace a step, and their lines."""
    page = PAGE.read_text()
    imports = re.findall(r"```python\n(.*?)```", page.split("\n## ")[0], re.S)[0]
    section = page.split(f"\n## {step.section}\n")[1].split("\n## ")[0]
    block = re.findall(r"```python\n(.*?)```", section, re.S)[1]
    given: dict[str, Any] = {}
    exec(imports + block, given)
    return given, len(ast.unparse(ast.parse(block)).splitlines())


def lines_of(step: Step, sources: Path) -> tuple[int, int]:
    """Return how many lines a step has, theirs and ours; a library's strategy is named in one."""
    if not step.section:
        return 1, 1
    return cut_out(step, sources)[1], on_our_page(step)[1]


def functions(step: Step, ours: bool, sources: Path) -> dict[str, Any]:
    return on_our_page(step)[0] if ours else cut_out(step, sources)[0]


def google(step: Step, size: Size, ours: bool, sources: Path) -> Select:
    X, labeled = features(size)
    code = functions(step, ours, sources)
    methods = {name: code[name] for name in step.where[2] if name in code}
    sampler = type("kCenterGreedy", (), methods)()
    sampler.X = sampler.features = sampler.flat_X = X
    sampler.metric, sampler.min_distances, sampler.already_selected = "euclidean", None, []
    model = SimpleNamespace(transform=lambda X: X)
    return lambda k: sampler.select_batch_(model, labeled.tolist(), k)


def deep_active_learning(step: Step, size: Size, ours: bool, sources: Path) -> Select:
    X, labeled = features(size)
    mask = np.zeros(size.n, dtype=bool)
    mask[labeled] = True
    dataset = SimpleNamespace(
        labeled_idxs=mask, n_pool=size.n, get_train_data=lambda: (mask.copy(), None)
    )
    strategy = SimpleNamespace(dataset=dataset, get_embeddings=lambda data: torch.from_numpy(X))
    query = functions(step, ours, sources)["query"]
    return lambda k: query(strategy, k)


def two_matrices(step: Step, size: Size, ours: bool, sources: Path) -> Select:
    X, labeled = features(size)
    rows = np.delete(X, labeled, axis=0), X[labeled]
    if step.peer == "distil":
        rows = tuple(map(torch.from_numpy, rows))
    furthest_first = functions(step, ours, sources)["furthest_first"]
    return lambda k: furthest_first(SimpleNamespace(device="cpu"), *rows, k)


def deepcore(step: Step, size: Size, ours: bool, sources: Path) -> Select:
    X, labeled = features(size)
    select = functions(step, ours, sources)["k_center_greedy"]
    options = {"device": "cpu", "random_seed": 0, "already_selected": labeled, "print_freq": 10**9}
    return lambda k: select(torch.from_numpy(X), k, torch.cdist, **options)


def alipy(step: Step, size: Size, ours: bool, sources: Path) -> Select:
    X, labeled = features(size)
    code = functions(step, ours, sources)
    methods = {name: code[name] for name in step.where[2] if name in code}
    strategy = type("QueryInstanceCoresetGreedy", (), methods)()
    strategy.X = strategy.features = X
    strategy.train_idx, strategy.metric = np.arange(size.n), "euclidean"
    unlabeled = np.delete(np.arange(size.n), labeled)

    def select(k: int) -> Any:
        strategy.already_selected, strategy.min_distances = [], None  # else it goes on from before
        return strategy.select(labeled, unlabeled, k)

    return select


def deep_al(step: Step, size: Size, ours: bool, sources: Path) -> Select:
    X, labeled = features(size)
    rows = X[labeled], np.delete(X, labeled, axis=0)
    code = functions(step, ours, sources)
    budget = code["cfg"].ACTIVE_LEARNING if "cfg" in code else SimpleNamespace()
    sampler = SimpleNamespace(cfg=SimpleNamespace(ACTIVE_LEARNING=budget))
    if not ours:
        sampler.compute_dists = lambda A, B: code["compute_dists"](sampler, A, B)

    def select(k: int) -> Any:
        budget.BUDGET_SIZE = k
        return code["greedy_k_center"](sampler, *rows)[0]

    return select
