"""Device memory beyond pool and state, counted on the CPU: what a GPU run would allocate."""

import weakref
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dynal_fast.ops.farthest_first import contract, heads, routing

LIMIT = 512e6
N, LABELED, PICKS = 150_000, 25_000, 4_000


class LiveBytes(TorchDispatchMode):
    """Adds up the storages that operations within the block make, while a tensor uses them."""

    def __init__(self):
        super().__init__()
        self.users, self.now, self.peak = Counter(), 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        inputs = filter(is_tensor, tree_leaves((args, kwargs)))
        given = {tensor.untyped_storage().data_ptr() for tensor in inputs}
        result = function(*args, **(kwargs or {}))
        for tensor in filter(is_tensor, tree_leaves(result)):
            storage = tensor.untyped_storage()
            pointer, size = storage.data_ptr(), storage.nbytes()
            if pointer in given and pointer not in self.users:
                continue  # a view of what was there before
            self.now += size * (self.users[pointer] == 0)
            self.users[pointer] += 1
            weakref.finalize(tensor, self.release, pointer, size)
        self.peak = max(self.peak, self.now)
        return result

    def release(self, pointer, size):
        self.users[pointer] -= 1
        if self.users[pointer] == 0:
            del self.users[pointer]
            self.now -= size


def is_tensor(value):
    return isinstance(value, torch.Tensor)


class Allocations:
    """Kernels of farthest-first that allocate what those on a GPU do, and draw their results."""

    metric, rounding = "euclidean", 0.0

    def points(self, rows, name):
        measured = torch.empty(3, rows.size)  # norms, tails, grains
        return SimpleNamespace(rows=rows, largest=1.0, measured=measured)

    def scaled(self, points, exponent):
        return points

    def at_once(self, candidates):
        return False

    def keep(self, clusters):
        return None

    def distances(self, x, rows, y, centers):
        return tuple(torch.empty(2, len(rows), len(centers)).uniform_())

    def bound(self, x, y, groups, bound):
        bound[groups.rows] = torch.rand(len(groups.rows))

    def refresh(self, x, y, groups, first, bound, exact):
        reach = torch.minimum(bound, exact)
        pairs = torch.empty((2, 1 << 20), dtype=torch.int32)
        exact[groups.rows] = torch.minimum(reach[groups.rows], torch.rand(len(groups.rows)))
        del pairs

    def traverse(self, x, head, outside, exact, picks, values):
        block = torch.empty(len(head), len(head))
        count = min(len(head), len(picks))
        picks[:count], values[:count] = head[:count], block.new_zeros(count)
        exact[head[:count]] = -torch.inf
        return count


def test_it_sees_what_is_allocated_and_freed():
    given = torch.ones(1000)
    with LiveBytes() as live:
        a = given * 2
        b = a[10:]
        del a
        assert (live.now, live.peak) == (4000, 4000)
        c = b + 1
        del b, c
        view = given[5:]
        view += 1
    assert (live.now, live.peak) == (0, 4000 + 4 * 990)


@pytest.mark.parametrize("labeled", [0, LABELED])
def test_farthest_first(labeled, monkeypatch):
    pytest.importorskip("triton", reason="triton is not installed")
    from dynal_fast.ops.farthest_first import triton

    for name in ("TILE", "CHUNK"):  # as on a GPU
        monkeypatch.setattr(routing, name, getattr(routing, name) * routing.ON_GPU)
    torch.manual_seed(0)
    rows = [contract.as_rows(torch.zeros(size, 1), "pool") for size in (N, labeled)]
    with LiveBytes() as live:
        points = (kernels := Allocations()).points(rows[0], "pool")
        state = heads.HeadTraversal(kernels, points, triton.HEAD)
        state.most = state.head  # as on a GPU
        state.cover(rows[1] if labeled else None, None)
        state.pick(PICKS, None, lambda count: None)
    assert 4 * triton.HEAD**2 < live.peak < LIMIT


@pytest.mark.parametrize("num_classes", [1000, 2048])
def test_update_from_features(num_classes, monkeypatch):
    pytest.importorskip("triton", reason="triton is not installed")
    from benchmarks.ahead_of_time import pool_stats as variants
    from benchmarks.ahead_of_time.absent_device import compiling_for
    from dynal_fast.ops.pool_stats import Head
    from dynal_fast.ops.pool_stats.triton import update_from_features

    launched = []
    monkeypatch.setattr(
        "dynal_fast.ops.pool_stats.triton.launch", lambda kernel, *rest, **_: launched.append(rest)
    )
    head = (torch.empty(N, 1), torch.empty(num_classes, 1))
    features, weight = (tensor.to(torch.bfloat16) for tensor in head)
    tracker = variants._tracker(num_classes, "typical")
    ids = torch.arange(N)
    with compiling_for("sm_90"), LiveBytes() as live:
        update_from_features(ids, Head(features, weight, None), None, tracker)
    assert len(launched) == 1
    tiles = -(-num_classes // 128)
    assert 32 * tiles * N <= live.peak < LIMIT
