"""No kernel is compiled twice because a vector starts elsewhere or a batch has another size.

A compilation takes a tenth of a second or more, in the middle of a pass or of a traversal.
"""

from collections import defaultdict

import pytest
import torch

from tests.triton_device import DEVICE, INTERPRETED, RUNS

pytest.importorskip("triton", reason="triton is not installed")
if not RUNS:
    pytest.skip(
        "no GPU; tests/test_interpreter.py runs this under TRITON_INTERPRET=1",
        allow_module_level=True,
    )

from triton.backends.compiler import GPUTarget
from triton.compiler.compiler import make_backend
from triton.runtime.interpreter import InterpretedFunction
from triton.runtime.jit import JITFunction, create_function_from_signature

from dynal_fast import farthest_first
from dynal_fast.ops.farthest_first import heads, routing
from dynal_fast.ops.pool_stats import pool_stats_update, pool_stats_update_from_features
from tests.cases.farthest_first import clustered
from tests.cases.pool_stats_tensors import TYPICAL, Tracker, draw

BACKEND = make_backend(GPUTarget("cuda", 90, 32))


class Launches:
    """The specialisations that Triton derives from the arguments of each launch."""

    def __init__(self):
        self.binders = {}
        # (kernel, what it must be compiled for) -> (alignments and values that it is compiled for)
        self.keys = defaultdict(set)

    def record(self, kernel, args, options):
        if kernel not in self.binders:
            jit = kernel
            if isinstance(kernel, InterpretedFunction):
                jit = JITFunction(kernel.fn, **kernel.kwargs)
            binder = create_function_from_signature(jit.signature, jit.params, BACKEND)
            self.binders[kernel] = jit, binder
        jit, binder = self.binders[kernel]
        bound, specialisation, others = binder(*args, **options)
        needed, derived = [], []
        for parameter, (dtype, extra) in zip(jit.params, specialisation, strict=True):
            value = bound[parameter.name]
            if parameter.is_constexpr or value is None:
                needed.append(value)
            else:  # 1 is a constant of its own
                needed.append("i32" if isinstance(value, int) and dtype == "constexpr" else dtype)
                derived.append((parameter.name, extra))
        self.keys[jit.__name__, str(needed), str(others)].add(str(derived))

    def repeated(self):
        """The kernels that are compiled more than once for the same dtypes and sizes."""
        return {name[0]: sorted(keys) for name, keys in self.keys.items() if len(keys) > 1}

    def kernels(self):
        names = [name for name, _, _ in self.keys]
        return {name: names.count(name) for name in names}


@pytest.fixture
def launches(monkeypatch):
    recorded = Launches()
    kind = InterpretedFunction if INTERPRETED else JITFunction
    run = kind.run

    def listen(self, *args, grid, warmup, **options):
        recorded.record(self, args, dict(options))
        return run(self, *args, grid=grid, warmup=warmup, **options)

    monkeypatch.setattr(kind, "run", listen)
    return recorded


@pytest.mark.parametrize(("n", "d", "labeled"), [(39, 32, 19), (27, 5, 18)])
def test_a_traversal_compiles_each_kernel_once(n, d, labeled, launches, monkeypatch):
    monkeypatch.setattr("dynal_fast.ops.farthest_first.triton.HEAD", 6)
    monkeypatch.setattr(heads, "FRONT", 24)
    for name, value in {"CLUSTERED_FROM": 16, "PROBES": 1, "MORE_PROBES": 1, "TILE": 9}.items():
        monkeypatch.setattr(routing, name, value)
    pool, rows = (
        torch.as_tensor(clustered(size, d, seed)).to(DEVICE)
        for seed, size in enumerate((n, labeled))
    )
    got = farthest_first(pool, 11, rows, backend="triton", progress=False)
    want = farthest_first(pool.cpu(), 11, rows.cpu(), backend="reference", progress=False)
    assert torch.equal(got.indices.cpu(), want.indices)
    assert launches.repeated() == {}
    # compare: bounds, distances, and pairs with and without centers that were applied before
    expected = {"measure": 1, "compare": 4, "decide_pairs": 1, "decide_tiles": 1, "traverse": 1}
    assert launches.kernels() == expected


@pytest.mark.parametrize("source", ["logits", "features"])
def test_a_pass_compiles_its_kernel_once(source, launches):
    sizes, num_classes, width = (16, 32, 5, 1), 16, 32
    n = sum(sizes)
    tracker = Tracker(n, num_classes, TYPICAL)
    tracker.begin_pass(1)
    ids, weight = torch.arange(n), draw(num_classes, width, torch.float32, 1)
    features = draw(n, width, torch.float32, 2)
    tracker.expect(ids, features @ weight.T)
    weight = weight.to(DEVICE)
    batches = zip(ids.to(DEVICE).split(sizes), features.to(DEVICE).split(sizes), strict=True)
    for some, rows in batches:
        if source == "logits":
            update, inputs = pool_stats_update, (rows @ weight.T, None)
        else:
            update, inputs = pool_stats_update_from_features, (rows, weight, *(None,) * 4)
        update(some, *inputs, *tracker.tensors, backend="triton")
    tracker.check()
    assert launches.repeated() == {}
    assert launches.kernels() == {"update_whole_rows": 1}
