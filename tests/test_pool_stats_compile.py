"""The update inside ``torch.compile`` and CUDA graphs: the in-place writes must not get lost."""

import pytest
import torch

from dynal_fast.ops.pool_stats import (
    MAX_UNKNOWN_IDS,
    STAMP_STEP,
    pool_stats_update,
    pool_stats_update_from_features,
)

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def tracker(device, n=12, num_classes=5):
    state = {
        "count": torch.zeros(n, dtype=torch.int32, device=device),
        "mean": torch.zeros(n, num_classes, device=device),
        "label_counts": torch.zeros(n, num_classes, dtype=torch.uint8, device=device),
        "output": torch.full((n, num_classes), float("nan"), device=device),
        "cycle_discrepancy": torch.full((n,), float("nan"), device=device),
    }
    guard = (
        torch.tensor([STAMP_STEP], dtype=torch.int32, device=device),
        torch.zeros(n, dtype=torch.int32, device=device),
        torch.zeros(1 + MAX_UNKNOWN_IDS, dtype=torch.int64, device=device),
    )
    return state, guard


def observe(ids, logits, state, guard):
    """Twice in one graph, with the first result read in between."""
    pool_stats_update(ids, logits * 2, None, *guard, state)
    seen = state["count"].sum() + state["mean"].sum()
    guard[0].add_(STAMP_STEP)
    pool_stats_update(ids, logits + 1, None, *guard, state)
    return seen


def observe_features(ids, features, weight, state, guard):
    pool_stats_update_from_features(ids, features, weight, None, None, None, None, *guard, state)
    return state["mean"].sum()


def assert_same(left, right):
    for a, b in zip(left, right, strict=True):
        torch.testing.assert_close(a, b, equal_nan=True)


@pytest.mark.parametrize("device", DEVICES)
def test_inductor_keeps_the_updates(device):
    ids, logits = torch.tensor([3, 0, 7, 11], device=device), torch.randn(4, 5, device=device)
    state, guard = tracker(device)
    want_state, want_guard = tracker(device)
    want = observe(ids, logits, want_state, want_guard)
    got = torch.compile(observe, fullgraph=True)(ids, logits, state, guard)
    torch.testing.assert_close(got, want)
    assert state["count"].sum() == 8
    assert_same([*state.values(), *guard], [*want_state.values(), *want_guard])


@pytest.mark.parametrize("device", DEVICES)
def test_inductor_keeps_the_update_from_features(device):
    ids = torch.tensor([3, 0, 7, 11], device=device)
    features, weight = torch.randn(4, 6, device=device), torch.randn(5, 6, device=device)
    state, guard = tracker(device)
    want_state, want_guard = tracker(device)
    want = observe_features(ids, features, weight, want_state, want_guard)
    got = torch.compile(observe_features, fullgraph=True)(ids, features, weight, state, guard)
    torch.testing.assert_close(got, want)
    assert_same([*state.values(), *guard], [*want_state.values(), *want_guard])


@pytest.mark.gpu
def test_a_captured_graph_is_replayed_in_later_passes():
    ids, logits = torch.tensor([3, 0, 7, 11], device="cuda"), torch.randn(4, 5, device="cuda")
    state, guard = tracker("cuda")
    want_state, want_guard = tracker("cuda")
    for _ in range(3):
        want_guard[0].add_(STAMP_STEP)
        pool_stats_update(ids, logits, None, *want_guard, want_state)
    warm_state, warm_guard = tracker("cuda")
    pool_stats_update(ids, logits, None, *warm_guard, warm_state)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        guard[0].add_(STAMP_STEP)
        pool_stats_update(ids, logits, None, *guard, state)
    for _ in range(3):
        graph.replay()
    torch.cuda.synchronize()
    assert_same([*state.values(), *guard], [*want_state.values(), *want_guard])
