"""The update of the pool statistics: every implementation on the CPU against the reference."""

import functools
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dynal_fast import _extension
from dynal_fast.ops.pool_stats import DROPPED, DUPLICATE, NON_FINITE, STATE, cpu, pool_stats_update
from tests.cases.pool_stats import (
    CLASSES,
    DTYPES,
    TYPICAL,
    Tracker,
    assert_same,
    batches,
)

NATIVE = _extension.load()
ISAS = NATIVE.supported_isas()
IMPLEMENTATIONS = ["reference", *(f"cpu-{isa}-1" for isa in ISAS), f"cpu-{ISAS[-1]}-2"]


@pytest.fixture(autouse=True)
def as_many_threads_as_torch_has(monkeypatch):
    """Small batches would take one thread."""
    monkeypatch.setattr(cpu, "ELEMENTS_PER_THREAD", 1)


@pytest.fixture(params=IMPLEMENTATIONS)
def backend(request):
    """The name of a backend, with its instruction set and number of threads in force."""
    name, *how = request.param.split("-")
    if how:
        threads, isa = torch.get_num_threads(), NATIVE.active_isa()
        NATIVE.set_isa(how[0])
        torch.set_num_threads(int(how[1]))
        yield name
        NATIVE.set_isa(isa)
        torch.set_num_threads(threads)
    else:
        yield name


def run(got, want, cases, backend):
    for number, ids, logits, teacher in cases:
        for tracker in (got, want):
            if tracker.pass_stamp.item() != 4 * number:
                tracker.begin_pass(number)
        got.update(ids, logits, teacher, backend=backend)
        want.update(ids, logits, teacher)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("num_classes", CLASSES)
def test_update_agrees_with_float64(backend, num_classes, dtype):
    got, want = Tracker(37, num_classes), Tracker(37, num_classes, exact=True)
    run(got, want, batches(37, num_classes, dtype), backend)
    assert_same(got, want)


def test_update_takes_many_classes(backend):
    got, want = Tracker(5, 21841), Tracker(5, 21841, exact=True)
    run(got, want, batches(5, 21841, torch.float32, passes=2, rows=3), backend)
    assert_same(got, want)


@pytest.mark.parametrize("num_classes", [7, 65])
@pytest.mark.parametrize("labels", [torch.uint16, torch.int32], ids=str)
def test_narrow_outputs_and_wide_counts(backend, num_classes, labels):
    options = {"output_dtype": torch.float16, "label_dtype": labels}
    got = Tracker(37, num_classes, **options)
    want = Tracker(37, num_classes, exact=True, **options)
    run(got, want, batches(37, num_classes, torch.float32), backend)
    assert_same(got, want)


@pytest.mark.parametrize("part", sorted({spec.part for spec in STATE.values()}))
def test_only_what_is_passed_is_updated(backend, part):
    names = tuple(name for name, spec in STATE.items() if spec.part == part)
    got, want = Tracker(20, 5, names), Tracker(20, 5, names, exact=True)
    run(got, want, batches(20, 5, torch.float32), backend)
    assert_same(got, want)


@pytest.mark.parametrize("num_classes", [2, 10, 65])
def test_shapes_of_a_batch(backend, num_classes):
    got, want = Tracker(40, num_classes), Tracker(40, num_classes, exact=True)
    for rows in (0, 1, 2, 15, 16, 17, 33):
        cases = [(rows + 1, torch.arange(rows), *torch.randn(2, rows, num_classes).unbind())]
        run(got, want, cases, backend)
    assert_same(got, want)


@pytest.mark.parametrize("num_classes", [3, 65])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_bad_rows_change_nothing_else(backend, num_classes, dtype):
    got, want = Tracker(50, num_classes), Tracker(50, num_classes, exact=True)
    for tracker in (got, want):
        tracker.stamp[9] = DROPPED
        tracker.begin_pass(1)
    ids = torch.tensor([3, 1, 3, 50, -1, 7, 9, 8, 4, 7, 2**40, 5, 6])
    logits, teacher = torch.randn(2, len(ids), num_classes).to(dtype).unbind()
    logits[1, -1], logits[7, 0], logits[8] = float("nan"), -float("inf"), float("inf")
    teacher[5, 1] = float("nan")
    before = {name: tensor.clone() for name, tensor in got.state.items()}
    for tracker in (got, want):
        tracker.update(ids, logits, teacher, *([backend] if tracker is got else []))
    assert_same(got, want)
    assert got.unknown_ids[:5].tolist() == [4, 50, -1, 9, 2**40]
    assert got.stamp[[1, 3, 7, 8, 4, 5, 9]].tolist() == [
        4 | NON_FINITE,
        4 | DUPLICATE,
        4 | NON_FINITE | DUPLICATE,
        4 | NON_FINITE,
        4 | NON_FINITE,
        4,
        DROPPED,
    ]
    untouched = [i for i in range(50) if i not in (3, 5, 6)]
    for name, tensor in got.state.items():
        torch.testing.assert_close(
            tensor[untouched].double(),
            before[name][untouched].double(),
            rtol=0,
            atol=0,
            equal_nan=True,
        )
    for tracker in (got, want):  # a second sight in a later batch of the same pass
        tracker.update(ids[11:], logits[11:], teacher[11:], *([backend] if tracker is got else []))
    assert got.stamp[5] == 4 | DUPLICATE
    assert_same(got, want)


@pytest.mark.parametrize("num_classes", [10, 65])
def test_first_of_equal_logits_is_the_label(backend, num_classes):
    tracker = Tracker(4, num_classes, ("label_counts", "last_margin"))
    tracker.begin_pass(1)
    logits = torch.zeros(3, num_classes)
    logits[1, 3:8] = 2
    logits[2, num_classes - 2 :] = 1
    tracker.update(torch.arange(3), logits, backend=backend)
    assert tracker.state["label_counts"].argmax(dim=1)[:3].tolist() == [0, 3, num_classes - 2]
    assert tracker.state["last_margin"][:3].tolist() == [0, 0, 0]


@pytest.mark.parametrize("num_classes", [10, 100])
@pytest.mark.parametrize("isa", ISAS)
def test_results_do_not_depend_on_threads_or_batches(num_classes, isa):
    generator = torch.Generator().manual_seed(1)
    ids = torch.randperm(333, generator=generator)
    ids[200] = ids[3]
    logits, teacher = torch.randn(2, 333, num_classes, generator=generator).unbind()
    threads, before = torch.get_num_threads(), NATIVE.active_isa()
    NATIVE.set_isa(isa)
    outcomes = []
    for count, rows in ((1, 333), (2, 333), (3, 333), (1, 1), (2, 50)):
        torch.set_num_threads(count)
        tracker = Tracker(333, num_classes)
        tracker.begin_pass(1)
        for part in torch.arange(333).split(rows):
            tracker.update(ids[part], logits[part], teacher[part], backend="cpu")
        outcomes.append(tracker)
    torch.set_num_threads(threads)
    NATIVE.set_isa(before)
    for other in outcomes[1:]:
        assert_same(other, outcomes[0], rtol=0, atol=0)


@pytest.mark.parametrize(("logits_per_thread", "threads"), [(1, 3), (100, 3), (334, 2), (999, 1)])
def test_each_thread_has_enough_to_do(monkeypatch, logits_per_thread, threads):
    monkeypatch.setattr(cpu, "ELEMENTS_PER_THREAD", logits_per_thread)
    taken, before = [], torch.get_num_threads()
    fake = SimpleNamespace(
        Tracker=lambda *given: None,
        Batch=lambda *given: None,
        update=lambda tracker, batch, count: taken.append(count),
    )
    monkeypatch.setattr(cpu, "load", lambda: SimpleNamespace(pool_stats=fake))
    torch.set_num_threads(3)
    try:
        Tracker(100, 10, TYPICAL).update(torch.arange(100), torch.randn(100, 10), backend="cpu")
    finally:
        torch.set_num_threads(before)
    assert taken == [threads]


def torch_float32_update(state, ids, logits):
    """What people write in plain torch: Welford's update of the softmax, in float32."""
    p = logits.softmax(dim=1)
    state["count"][ids] += 1
    delta = p - state["mean"][ids]
    state["mean"][ids] += delta / state["count"][ids, None]
    state["m2"][ids] += (delta * (p - state["mean"][ids])).sum(dim=1)


@functools.cache
def long_run(confidence, passes):
    """Logits offset by 1e4, their exact statistics, and the error of plain torch in float32."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(passes, 6, 5, generator=generator)
    logits[..., 2] += confidence
    logits += 1e4
    plain = Tracker(6, 5, ("count", "mean", "m2")).state
    for one_pass in logits:
        torch_float32_update(plain, torch.arange(6), one_pass)
    p = logits.double().softmax(dim=-1)
    exact = {
        "mean": p.mean(dim=0),
        "m2": (p - p.mean(dim=0)).square().sum(dim=(0, 2)),
        "logit_m2": (logits.double() - logits.double().mean(dim=0)).square().sum(dim=(0, 2)),
    }
    return logits, exact, (plain["m2"] / exact["m2"] - 1).abs().max()


@pytest.mark.parametrize(("confidence", "bound"), [(0, 1e-4), (12, 1e-3)], ids=["spread", "sure"])
def test_variance_does_not_cancel(backend, confidence, bound):
    """Thousands of observations, logits offset by 1e4, probabilities near 1.

    Against the two-pass variance in float64 the error is at most twice that of plain torch in
    float32 on the same input, whose mean near 1 moves in steps of 6e-8 as well.
    """
    logits, exact, plain_error = long_run(confidence, 2000)
    tracker = Tracker(6, 5, ("count", "mean", "m2", "logit_count", "logit_mean", "logit_m2"))
    for number, one_pass in enumerate(logits, start=1):
        tracker.begin_pass(number)
        tracker.update(torch.arange(6), one_pass, backend=backend)
    error = (tracker.state["m2"] / exact["m2"] - 1).abs().max()
    assert error <= 2 * plain_error + 1e-6
    assert error < bound
    assert (tracker.state["mean"] - exact["mean"]).abs().max() < 1e-5
    assert (tracker.state["logit_m2"] / exact["logit_m2"] - 1).abs().max() < 1e-3


@pytest.mark.parametrize(("confidence", "passes"), [(12, 200), (8, 4000)])
def test_standard_deviation_is_within_the_documented_bound(confidence, passes):
    """The mean's rounding, at most 2^-25 a step, is all that a long run adds."""
    logits, exact, _ = long_run(confidence, passes)
    tracker = Tracker(6, 5, ("count", "mean", "m2"))
    for number, one_pass in enumerate(logits, start=1):
        tracker.begin_pass(number)
        tracker.update(torch.arange(6), one_pass, backend="cpu")
    got, want = ((m2.double() / passes).sqrt() for m2 in (tracker.state["m2"], exact["m2"]))
    bound = passes * 2.0**-25
    assert (got - want).abs().max() <= bound
    assert bound < want.min() / 10
    sums = torch.zeros(2, 6, 5)  # E[p^2] - E[p]^2, the cancellation that Welford's update avoids
    for p in logits.softmax(dim=-1):
        sums += torch.stack([p, p.square()])
    mean, square = sums / passes
    cancelled = (square - mean.square()).sum(dim=-1).clamp(min=0).sqrt()
    assert (cancelled - want).abs().max() > bound


@pytest.mark.parametrize("num_classes", [10, 65])
def test_equal_outputs_have_no_discrepancy(backend, num_classes):
    """Exactly none, so that samples whose output did not change tie."""
    names = ("count", "mean", "output", "cycle_discrepancy", "teacher_discrepancy")
    tracker = Tracker(40, num_classes, names)
    logits = 5 * torch.randn(40, num_classes)
    for number in (1, 2):
        tracker.begin_pass(number)
        tracker.update(torch.arange(40), logits, logits.clone(), backend=backend)
    assert not tracker.state["teacher_discrepancy"].any()
    if backend != "reference":  # which compares float64 with the float32 that is kept
        assert not tracker.state["cycle_discrepancy"].any()


@pytest.mark.parametrize("num_classes", [10, 65])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_range_of_logits_may_overflow(backend, dtype, num_classes):
    """Finite logits whose difference is not are no error, beside rows that are."""
    logits = torch.randn(40, num_classes)
    logits[3, 1], logits[3, 4] = 3e38, -3e38
    logits[7] = -torch.inf
    logits[8, 2] = -torch.inf
    logits[9, 9] = torch.inf
    logits = logits.to(dtype)
    got = Tracker(40, num_classes, TYPICAL)
    want = Tracker(40, num_classes, TYPICAL, exact=True)
    for tracker in (got, want):
        tracker.begin_pass(1)
        tracker.update(torch.arange(40), logits, *([None, backend] if tracker is got else []))
    assert_same(got, want)
    assert got.state["last_top"][3] == 1
    assert got.state["last_entropy"][3] == 0
    assert (got.stamp & 1).nonzero().flatten().tolist() == [7, 8, 9]


COUNTED = ("logit_count", "logit_mean", "logit_m2")


@pytest.mark.parametrize("num_classes", [3, 65])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_logits_too_large_to_be_squared_are_reported(backend, dtype, num_classes):
    """Up to 2^40 the variance is right; beyond, the row counts as not finite. Never NaN."""
    largest = [1e5, 2.0**40, 1.2e12, 2e19, 3e38] + [1e300] * (dtype == torch.float64)
    n = 2 * len(largest)
    got, want = (Tracker(n, num_classes, COUNTED, exact=exact) for exact in (False, True))
    for number in (1, 2, 3):
        logits = torch.randn(n, num_classes, dtype=torch.float64)
        logits[torch.arange(n), torch.arange(n) % num_classes] = (
            torch.tensor(
                [sign * value for value in largest for sign in (1, -1)], dtype=torch.float64
            )
            * (-1) ** number
        )
        for tracker in (got, want):
            tracker.begin_pass(number)
            tracker.update(
                torch.arange(n), logits.to(dtype), *([None, backend] if tracker is got else [])
            )
    assert got.stamp.tolist() == [12] * 4 + [12 | NON_FINITE] * (n - 4)
    assert_same(got, want, rtol=1e-5, atol=1e5 if dtype == torch.float64 else 1e-5)
    assert all(tensor.isfinite().all() for tensor in got.state.values())
    alone = Tracker(n, num_classes, ("label_counts", "logit_count"))
    alone.begin_pass(1)
    alone.update(torch.arange(n), logits.to(dtype), backend=backend)
    assert alone.state["label_counts"].sum(1).tolist() == [1] * 4 + [0] * (n - 4)
    assert not alone.state["logit_count"].any()


@pytest.mark.parametrize("num_classes", [7, 65])
@pytest.mark.parametrize("output_dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("latest", [False, True])
def test_outputs_are_replaced_or_kept_beside(backend, latest, output_dtype, num_classes):
    names = ("output", "latest_output", "cycle_discrepancy") if latest else (
        "output", "cycle_discrepancy")  # fmt: skip
    options = {"names": names, "output_dtype": output_dtype}
    got = Tracker(37, num_classes, **options)
    want = Tracker(37, num_classes, exact=True, **options)
    for tracker in (got, want):
        tracker.state["output"][:20] = 1 / num_classes  # the others have none yet
    earlier = got.state["output"].clone()
    run(got, want, batches(37, num_classes, torch.float32), backend)
    assert_same(got, want)
    if latest:
        assert torch.equal(got.state["output"][:20], earlier[:20])
        assert got.state["output"][20:].isnan().all()
        assert got.state["cycle_discrepancy"].isnan().tolist() == [False] * 20 + [True] * 17


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("num_classes", [2, 65])
def test_exponential_and_logarithm_are_accurate(isa, num_classes):
    """Over the whole range of differences of logits; half a unit of float32 at 1 is 6e-8."""
    before = NATIVE.active_isa()
    NATIVE.set_isa(isa)
    gaps = torch.linspace(0, 110, 20001)
    logits = torch.full((len(gaps), num_classes), -1e30)
    logits[:, 0], logits[:, 1] = gaps, 0
    got = Tracker(len(gaps), num_classes, TYPICAL)
    want = Tracker(len(gaps), num_classes, TYPICAL, exact=True)
    for tracker in (got, want):
        tracker.begin_pass(1)
        tracker.update(torch.arange(len(gaps)), logits, *([None, "cpu"] if tracker is got else []))
    NATIVE.set_isa(before)
    mean, exact = got.state["mean"][:, 1].double(), want.state["mean"][:, 1]
    seen = gaps < 87
    assert ((mean - exact) / exact)[seen].abs().max() < 3e-7
    assert mean[~seen].max() < 2e-38
    for name in ("last_entropy", "last_top", "last_margin"):
        assert (got.state[name] - want.state[name]).abs().max() < 3e-7, name


HEADS = [(2, 1), (10, 64), (65, 7), (333, 130)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("num_classes", "width"), HEADS)
def test_update_from_features(backend, num_classes, width, dtype):
    generator = torch.Generator().manual_seed(width)

    def draw(*shape):
        return torch.randn(shape, generator=generator).to(dtype)

    got, want = Tracker(260, num_classes), Tracker(260, num_classes, exact=True)
    weight, bias = draw(num_classes, width) / width**0.5, draw(num_classes)
    teacher_weight = draw(num_classes, 3)
    for number in (1, 2):
        for tracker in (got, want):
            tracker.begin_pass(number)
        for ids in torch.randperm(260, generator=generator).split(199):
            heads = (draw(len(ids), width), weight, bias, draw(len(ids), 3), teacher_weight, None)
            if number == 2:
                heads[0][1, 0] = float("nan")
            got.update_from_features(ids, *heads, backend=backend)
            want.update_from_features(ids, *heads)
    assert_same(got, want, rtol=2e-5, atol=5e-6)


def bad_batch(**changes):
    batch = {
        "sample_ids": torch.arange(4),
        "logits": torch.zeros(4, 5),
        "teacher_logits": torch.zeros(4, 5),
        **changes,
    }
    tracker = Tracker(6, 5, (*TYPICAL, "teacher_discrepancy"))
    pool_stats_update(*batch.values(), *tracker.tensors)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sample_ids": torch.zeros(4)}, r"sample_ids must be \(batch,\) int32 or int64, got"),
        ({"sample_ids": torch.zeros(4, 1, dtype=torch.int64)}, r"got \(4, 1\) int64"),
        ({"sample_ids": torch.arange(8)[::2]}, "sample_ids must be contiguous"),
        ({"logits": torch.zeros(3, 5)}, r"logits must be .* = \(4, 5\), got \(3, 5\)"),
        ({"logits": torch.zeros(4, 6)}, r"logits must be .* = \(4, 5\), got \(4, 6\)"),
        ({"logits": torch.zeros(4, 5, dtype=torch.int64)}, "logits must be float32 or float16"),
        ({"logits": torch.zeros(5, 4).T}, r"pass logits\.contiguous\(\)"),
        ({"logits": torch.zeros(4, 5, device="meta")}, "logits is on meta, but the statistics"),
        ({"teacher_logits": torch.zeros(4, 5).double()}, "teacher_logits must have the dtype"),
        ({"teacher_logits": None}, "teacher_discrepancy needs teacher_logits"),
    ],
)
def test_wrong_batches_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        bad_batch(**changes)


@pytest.mark.parametrize("name", ["sample_ids", "logits", "teacher_logits"])
def test_what_is_no_tensor_is_refused(name):
    with pytest.raises(TypeError, match=f"{name} must be a torch.Tensor, got numpy.ndarray"):
        bad_batch(**{name: np.zeros((4, 5))})
    with pytest.raises(TypeError, match=f"{name} must be a torch.Tensor, got list"):
        bad_batch(**{name: [0, 1, 2, 3]})


def test_one_class_is_refused_with_the_reason():
    tracker = Tracker(4, 1, ("label_counts",))
    with pytest.raises(ValueError, match="softmax of one logit is always 1"):
        tracker.update(torch.arange(2), torch.zeros(2, 1))


def test_wrong_state_is_refused():
    tracker = Tracker(4, 3, TYPICAL)
    del tracker.state["mean"]
    with pytest.raises(ValueError, match=r"part 'probabilities' without \['mean'\]"):
        tracker.update(torch.arange(2), torch.zeros(2, 3))
    tracker = Tracker(4, 3, TYPICAL)
    tracker.state["m2"] = torch.zeros(3)
    with pytest.raises(ValueError, match=r"m2 must be \(4,\) float32, got \(3,\) float32"):
        tracker.update(torch.arange(2), torch.zeros(2, 3))


def test_addresses_of_another_device_are_refused():
    tracker = Tracker(4, 3, TYPICAL, device="meta")
    ids, logits = torch.arange(2, device="meta"), torch.zeros(2, 3, device="meta")
    with pytest.raises(ValueError, match='backend "cpu" needs tensors on the CPU, got meta'):
        tracker.update(ids, logits, backend="cpu")
    heads = (logits, torch.zeros(3, 3, device="meta"), None) + (None,) * 3
    with pytest.raises(ValueError, match='backend "cpu" needs tensors on the CPU, got meta'):
        tracker.update_from_features(ids, *heads, backend="cpu")
    with pytest.raises(ValueError, match='backend "reference" needs tensors on the CPU, got meta'):
        tracker.update(ids, logits, backend="reference")


@pytest.mark.filterwarnings("ignore")
def test_operator_passes_opcheck():
    tracker = Tracker(12, 5)
    tracker.begin_pass(1)
    arguments = (
        torch.arange(7),
        torch.randn(7, 5),
        torch.randn(7, 5),
        *tracker.tensors[:3],
        *tracker.state.values(),
    )
    torch.library.opcheck(torch.ops.dynal_fast.pool_stats_update.default, arguments)
    heads = (torch.randn(7, 4), torch.randn(5, 4), torch.randn(5)) * 2
    arguments = (torch.arange(7), *heads, *tracker.tensors[:3], *tracker.state.values())
    torch.library.opcheck(torch.ops.dynal_fast.pool_stats_update_from_features.default, arguments)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
def test_compile_keeps_the_update(compiler):
    eager, compiled = Tracker(12, 5, TYPICAL), Tracker(12, 5, TYPICAL)

    def step(tracker, ids, features, weight):
        logits = torch.relu(features) @ weight.T
        pool_stats_update(ids, logits, None, *tracker.tensors)
        return logits.sum()

    fast = torch.compile(step, backend=compiler, fullgraph=True)
    for number in (1, 2):
        ids, features, weight = torch.randperm(12)[:7], torch.randn(7, 4), torch.randn(5, 4)
        for tracker, function in ((eager, step), (compiled, fast)):
            tracker.begin_pass(number)
            function(tracker, ids, features, weight)
    assert compiled.state["count"].sum() == 14
    assert_same(compiled, eager, rtol=1e-5, atol=1e-6)
