"""Batches as people have them, and tensors whose values are not what lies at their address."""

import warnings

import numpy as np
import pytest
import torch

from dynal_fast import PoolStats, farthest_first
from dynal_fast.ops.addressable import check_addressable
from dynal_fast.ops.dense_discrepancy import dense_discrepancy
from dynal_fast.ops.pool_stats import pool_stats_update, pool_stats_update_from_features
from tests.cases.pool_stats import Tracker

N, C = 5, 3
LOGITS = torch.randn(N, C, generator=torch.Generator().manual_seed(0))
LABELS = LOGITS.argmax(1).tolist()
IDS = torch.arange(N)


def labels_of(sample_ids, logits=LOGITS):
    """The labels that one update counts; any warning is an error."""
    stats = PoolStats(N, C, ("label_dispersion",))
    with warnings.catch_warnings(), stats.observe(1, 1):
        warnings.simplefilter("error")
        stats.update(sample_ids, logits)
    counts = stats.state_dict()["label_counts"]
    assert counts.sum(1).tolist() == [1] * N
    return counts.argmax(1).tolist()


def read_only(array):
    array.setflags(write=False)
    return array


INTEGERS = ["uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"]
KINDS_OF_IDS = {
    "list": [*range(N)],
    "tuple": (*range(N),),
    "range": range(N),
    "scalars": [np.int8(i) for i in range(N)],
    "tensors": [torch.tensor(i) for i in range(N)],
    "big-endian": np.arange(N, dtype=">i4"),
    "read-only": read_only(np.arange(N)),
    "reversed": np.arange(N)[::-1][::-1],
    "strided array": np.arange(2 * N)[::2] // 2,
    "strided": torch.arange(2 * N).div(2, rounding_mode="floor")[::2],
    "negated": torch._neg_view(-torch.arange(N)),
    **{name: np.arange(N, dtype=name) for name in INTEGERS},
    **{f"torch.{name}": torch.arange(N).to(getattr(torch, name)) for name in INTEGERS},
}


@pytest.mark.parametrize("kind", KINDS_OF_IDS)
def test_ids_of_every_kind(kind):
    assert labels_of(KINDS_OF_IDS[kind]) == LABELS


def test_ids_of_a_series_are_taken_by_position():
    pandas = pytest.importorskip("pandas")
    series = pandas.Series(range(N), index=[9, 8, 7, 6, 5])
    assert labels_of(series) == labels_of(pandas.Index(range(N))) == LABELS


def test_no_ids_are_an_empty_batch():
    stats = PoolStats(N, C, ("margin",))
    with stats.observe(1, 1, partial=True):
        stats.update([], torch.zeros(0, C))
    assert stats.score("margin").isnan().all()


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([0.0, 1.0, 2.0, 3.0, 4.0], r"integers, got list of shape \(5,\), float64"),
        ([True] * N, "integers, got list .* bool"),
        (torch.ones(N, dtype=torch.bool), r"mask\.nonzero\(\)"),
        (torch.arange(5.0), r"pass sample_ids\.long\(\)"),
        (np.arange(5)[:, None], r"got ndarray of shape \(5, 1\)"),
        (torch.arange(5)[:, None], r"\(batch,\) integers, got \(5, 1\).*flatten"),
        (3, "must be .* integers, got int of shape"),
        (None, "got NoneType"),
        ("01234", "integers in order, got str"),
        ({0, 1, 2, 3, 4}, "integers in order, got set"),
        (["a"] * N, "must be .* integers, got list"),
        ([[0, 1], [2]], "must be .* integers"),
        ([2**63] * N, r"below 2\^63, got 9223372036854775808"),
        (torch.tensor([-1] * N).view(torch.uint64), r"below 2\^63"),
        (np.ma.array(range(N), mask=[1] + [0] * 4), "no mask"),
        (torch.arange(N, device="meta"), "sample_ids is on meta"),
    ],
)
def test_what_are_no_ids_is_refused(ids, message):
    stats = PoolStats(N, C, ("label_dispersion",))
    stats.begin_pass(1, 1)
    with pytest.raises((ValueError, TypeError), match=message):
        stats.update(ids, LOGITS)
    assert not stats._state.guards[0][0].any()


ARRAY = LOGITS.numpy()
KINDS_OF_LOGITS = {
    "transposed": LOGITS.T.contiguous().T,
    "columns": torch.cat([LOGITS, LOGITS], 1)[:, :C],
    "every other row": LOGITS.repeat_interleave(2, 0)[::2],
    "array": ARRAY.copy(),
    "read-only": read_only(ARRAY.copy()),
    "big-endian": ARRAY.astype(">f4"),
    "Fortran": np.asfortranarray(ARRAY),
    "float64": ARRAY.astype(np.float64),
    "gradient": LOGITS.clone().requires_grad_(),
    "parameter": torch.nn.Parameter(LOGITS.clone()),
    "negated": torch._neg_view(-LOGITS),
    "imaginary": torch.complex(LOGITS, -LOGITS).conj().imag,
    "shared": LOGITS.clone().share_memory_(),
}


@pytest.mark.parametrize("kind", KINDS_OF_LOGITS)
def test_logits_of_every_kind(kind):
    assert labels_of(IDS, KINDS_OF_LOGITS[kind]) == LABELS


def test_logits_that_are_expanded():
    row = torch.tensor([0.0, 2.0, 1.0])
    assert labels_of(IDS, row.expand(N, C)) == [1] * N


@pytest.mark.parametrize("kind", KINDS_OF_LOGITS)
def test_features_teachers_and_heads_of_every_kind(kind):
    names = ("label_dispersion", "emaod")
    features = KINDS_OF_LOGITS[kind]
    head = torch.randn(C, C, generator=torch.Generator().manual_seed(1)).to(
        torch.float64 if kind == "float64" else torch.float32
    )
    kinds = {"weight": head.T.contiguous().T, "bias": torch._neg_view(-head[0])}
    got, want = PoolStats(N, C, names), PoolStats(N, C, names)
    for stats, x, w, b in ((got, features, *kinds.values()), (want, LOGITS, head, head[0])):
        with stats.observe(2, 2):
            x = x if stats is got else x.to(head.dtype)
            stats.update_from_features(range(N), x, w, b, x, w, None)
    for name in names:
        torch.testing.assert_close(got.score(name), want.score(name))
    teacher = PoolStats(N, C, ("emaod",))
    with teacher.observe(1, 1):
        teacher.update(IDS, features, features)
    assert teacher.score("emaod").tolist() == [0] * N


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (LOGITS.tolist(), r"a torch.Tensor or a NumPy array, got list; pass torch.as_tensor"),
        (ARRAY.astype(int), r"floating point, got int64; pass logits\.astype\(np\.float32\)"),
        (LOGITS.long(), "logits must be float32 .* got torch.int64"),
        (np.ma.array(ARRAY, mask=ARRAY > 0), "no mask"),
        (LOGITS[:2], r"= \(5, 3\), got \(2, 3\)"),
        (LOGITS[0], r"= \(5, 3\), got \(3,\)"),
        (LOGITS.to("meta"), "logits is on meta, but the statistics are on cpu"),
    ],
)
def test_what_are_no_logits_is_refused(logits, message):
    stats = PoolStats(N, C, ("label_dispersion",))
    stats.begin_pass(1, 1)
    with pytest.raises((ValueError, TypeError), match=message):
        stats.update(IDS, logits)


def freed():
    tensor = torch.zeros(N, C)
    tensor.untyped_storage().resize_(0)
    return tensor


def masked():
    from torch.masked import masked_tensor

    return masked_tensor(LOGITS, LOGITS > 0)


ELSEWHERE = {
    "sparse": (LOGITS.to_sparse, r"layout torch.sparse_coo.*\.to_dense\(\)"),
    "compressed": (LOGITS.to_sparse_csr, r"layout torch.sparse_csr.*\.to_dense\(\)"),
    "mkldnn": (LOGITS.to_mkldnn, r"layout torch._mkldnn.*\.to_dense\(\)"),
    "masked": (masked, r"MaskedTensor.*\.get_data\(\)"),
    "nested": (lambda: torch.nested.nested_tensor([*LOGITS]), "nested"),
    "jagged": (lambda: torch.nested.nested_tensor([*LOGITS], layout=torch.jagged), "jagged"),
    "freed": (freed, "without storage"),
    "zero": (lambda: torch._efficientzerotensor(N, C), "without storage"),
    "quantized": (
        lambda: torch.quantize_per_tensor(LOGITS, 0.1, 0, torch.quint8),
        r"quantized.*\.dequantize\(\)",
    ),
    "conjugated": (lambda: torch.complex(LOGITS, LOGITS).conj(), r"\.resolve_conj\(\)"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ELSEWHERE)
def test_values_that_lie_elsewhere_are_refused_everywhere(kind):
    make, message = ELSEWHERE[kind]
    tensor = make()
    stats = PoolStats(N, C, ("label_dispersion", "emaod"))
    stats.begin_pass(1, 1)
    calls = [
        lambda: stats.update(IDS, tensor, LOGITS),
        lambda: stats.update(IDS, LOGITS, tensor),
        lambda: stats.update_from_features(IDS, tensor, LOGITS[:C], None, LOGITS, LOGITS[:C]),
        lambda: stats.update_from_features(IDS, LOGITS, tensor, None, LOGITS, LOGITS[:C]),
        lambda: dense_discrepancy(tensor, LOGITS),
        lambda: farthest_first(tensor, 2),
        lambda: check_addressable("x", tensor),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=message):
            call()
    assert not stats._state.guards[0][0].any()


def test_a_batch_within_vmap_is_refused():
    stats = PoolStats(N, C, ("label_dispersion",))
    stats.begin_pass(1, 1)

    def update(logits):
        stats.update(IDS, logits)
        return logits

    with pytest.raises(ValueError, match="within vmap"):
        torch.vmap(update)(LOGITS[None])


NEGATED = {
    "sample_ids": torch._neg_view(torch.arange(N)),
    "logits": torch._neg_view(LOGITS),
    "teacher_logits": torch._neg_view(LOGITS),
}


@pytest.mark.parametrize("backend", [None, "cpu", "reference"])
@pytest.mark.parametrize("name", NEGATED)
def test_the_operation_refuses_negated_views(name, backend):
    tracker = Tracker(N, C, ("label_counts", "teacher_discrepancy"))
    batch = {"sample_ids": IDS, "logits": LOGITS, "teacher_logits": LOGITS, name: NEGATED[name]}
    with pytest.raises(ValueError, match=rf"{name} .*negated view.*\.resolve_neg\(\)"):
        pool_stats_update(*batch.values(), *tracker.tensors, backend=backend)


@pytest.mark.parametrize("at", range(6))
def test_the_operation_refuses_negated_heads(at):
    tracker = Tracker(N, C, ("label_counts", "teacher_discrepancy"))
    heads = [LOGITS, LOGITS[:C], LOGITS[0]] * 2
    heads[at] = torch._neg_view(heads[at])
    with pytest.raises(ValueError, match="negated view"):
        pool_stats_update_from_features(IDS, *heads, *tracker.tensors)


@pytest.mark.parametrize("change", [torch._neg_view, lambda t: t.repeat(2, 1)[:, ::2].t()[:0]])
def test_a_state_that_is_not_what_lies_in_memory_is_refused(change):
    tracker = Tracker(N, C, ("count", "mean"))
    tracker.state["mean"] = change(tracker.state["mean"])
    with pytest.raises(ValueError, match="mean"):
        tracker.update(IDS, LOGITS)


def test_stamps_lie_side_by_side():
    tracker = Tracker(N, C, ("label_counts",))
    tracker.stamp = torch.zeros(2 * N, dtype=torch.int32)[::2]
    with pytest.raises(ValueError, match="stamp must be contiguous"):
        tracker.update(IDS, LOGITS)
    tracker.stamp = torch.zeros(1, dtype=torch.int32).expand(N)
    with pytest.raises(ValueError, match="stamp must be contiguous"):
        tracker.update(IDS, LOGITS)


@pytest.mark.parametrize("backend", [None, "cpu", "reference"])
def test_the_dense_discrepancy_refuses_negated_views(backend):
    maps = torch.randn(1, 2, 3, 3)
    for pair in ((torch._neg_view(maps), maps), (maps, torch._neg_view(maps))):
        with pytest.raises(ValueError, match="negated view"):
            dense_discrepancy(*pair, backend=backend)


def test_farthest_first_refuses_negated_views():
    with pytest.raises(ValueError, match=r"pool must .* negated view"):
        farthest_first(torch._neg_view(LOGITS), 2)
