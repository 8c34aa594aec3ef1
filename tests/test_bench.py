"""The benchmark harness on tiny sizes: what it measures, refuses and extrapolates."""

import contextlib
import dataclasses
import json

import numpy as np
import pytest
import torch

from dynal_fast import farthest_first
from dynal_fast.bench import cycles, end_to_end, fresh_process, growth, suites, worker
from dynal_fast.bench.cases import TRACK, GradientCase, StatisticsCase, TraversalCase, as_record
from dynal_fast.bench.competitors import methods, statistics
from dynal_fast.bench.competitors.base import OURS, Method, Size, Streamed, per_epoch
from dynal_fast.bench.exactness import judge_draw, judge_picks, judge_scores, judge_traversal
from dynal_fast.bench.extrapolation import Limits, Run, largest_within, longest_pilot, predict
from dynal_fast.bench.fresh_process import call
from dynal_fast.bench.growth import fit
from dynal_fast.bench.inputs import EMBEDDINGS, lacking
from dynal_fast.bench.measure import Settings, measure
from dynal_fast.bench.record import Measurement, new_record
from dynal_fast.bench.table import full_text, row
from dynal_fast.bench.worker import full_size, measure_in_this_process
from dynal_fast.measured import Measurement as StepMeasurement

TRAVERSAL = TraversalCase("clustered", 300, 24, 20, labeled=40)
FROM_NOTHING = TraversalCase("clustered", 300, 24, 20)
STATISTICS = StatisticsCase(150, 7, 4, batch=64)
LIMITS = Limits(seconds=30, repeats=2, repeat_seconds=5)

pytestmark = pytest.mark.usefixtures("small_heap")  # every measurement collects garbage first


def measured(case, method, limits=LIMITS):
    result = measure_in_this_process(case, method, limits, "cpu", check=True)
    return Measurement(as_record(case), method.name, **result)


GRADIENTS = GradientCase(60, 4, 7, 12)


def here(case):
    """The methods that run on this machine, but not the one that is known to ignore its start."""
    return [
        pytest.param(case, method, id=f"{method.name}, {case.title()}")
        for method in methods(case.operation).values()
        if not method.missing()
        and not method.refuses(case)
        and "bucket" not in method.name
        # Compiling takes a minute; the function that is compiled has a test of its own.
        and "compile" not in method.name
    ]


@pytest.mark.parametrize(("case", "method"), here(TRAVERSAL) + here(FROM_NOTHING))
def test_every_method_does_the_same_traversal(case, method):
    measurement = measured(case, method)
    assert measurement.unavailable == ""
    assert measurement.extrapolated == ""
    assert measurement.seconds
    assert measurement.memory_bytes >= 0
    if method.name == OURS:
        assert measurement.exactness["certified"]
    elif method.exact_from == "picks":
        assert measurement.exactness["agreement"] == 1


@pytest.mark.parametrize(("case", "method"), here(GRADIENTS))
def test_every_method_draws_from_the_largest_gradient_on(case, method):
    measurement = measured(case, method)
    assert measurement.unavailable == ""
    assert measurement.exactness == {"first_pick": True}


def test_a_draw_that_begins_elsewhere_is_told():
    data = GRADIENTS.load()
    assert judge_draw(data, np.arange(3), 4) == {"wrong": "3 picks, 4 were asked for"}
    assert judge_draw(data, np.array([1, 1]), 2) == {"wrong": "repeats a sample or leaves pool"}
    picks = methods("badge")[OURS].prepare(GRADIENTS, data)(full_size(GRADIENTS))
    assert judge_draw(data, picks, 12) == {"first_pick": True}
    assert judge_draw(data, picks[::-1].copy(), 12) == {"first_pick": False}


@pytest.mark.parametrize(("case", "method"), here(STATISTICS))
def test_every_method_computes_the_same_statistics(case, method, monkeypatch):
    monkeypatch.setattr(statistics, "BEYOND_CACHES", 2**20)
    measurement = measured(case, method)
    if method.exact_from == "nothing":
        assert measurement.exactness == {}
    else:
        assert measurement.exactness["stability_error"] < 1e-5
        assert measurement.exactness["dispersion_agreement"] == 1
        assert measurement.exactness["uncertainty_error"] < 1e-6
    passes = 0 if "history" in method.name else case.epochs - 1
    assert len(measurement.pass_seconds) == passes * len(measurement.seconds)
    assert all(seconds > 0 for seconds in measurement.pass_seconds)


def test_what_is_compiled_computes_the_same_statistics():
    logits = STATISTICS.load()
    logits[3] = 0  # ties: the lowest class is the label, the margin 0
    trackers = [
        statistics.InPlace(STATISTICS, "cpu", update)
        for update in (statistics.update_in_place, statistics.update_for_compiler)
    ]
    batches = list(
        zip(torch.arange(STATISTICS.n).split(64), logits[: STATISTICS.n].split(64), strict=True)
    )
    for tracker in trackers:
        tracker.observe(batches)
        tracker.observe(batches)
        assert tracker.labels[3].tolist() == [2, 0, 0, 0, 0, 0, 0]
        assert tracker.margin[3] == 0
    in_place, for_compiler = (tracker.scores() for tracker in trackers)
    for name in TRACK:
        np.testing.assert_allclose(in_place[name], for_compiler[name], rtol=1e-5, atol=1e-6)


@pytest.fixture
def copied(monkeypatch):
    """The bytes that each ``Tensor.copy_`` moved, and where it read from."""
    made, copy_ = [], torch.Tensor.copy_

    def record(target, source):
        made.append((target.nbytes + source.nbytes, source.data_ptr()))
        return copy_(target, source)

    monkeypatch.setattr(torch.Tensor, "copy_", record)
    return made


def test_the_yardstick_copies_what_a_pass_must_move(monkeypatch, copied):
    floats = STATISTICS.moved_bytes() // 8
    for size, bytes_of_copies in (
        (2 * floats + 2, [8 * floats, 8 * floats, 16, 8 * floats - 16]),  # the third goes round
        (floats - 1, [8 * floats - 8, 8, 8 * floats - 16, 16, 8 * floats - 24, 24]),
    ):
        monkeypatch.setattr(statistics, "BEYOND_CACHES", size)
        copy = statistics.copy_from_memory(STATISTICS, "cpu")
        copied.clear()
        for _ in range(3):
            copy()
        moved, sources = zip(*copied, strict=True)
        assert list(moved) == bytes_of_copies
        starts = np.cumsum([0, *bytes_of_copies[:-1]]) // 2 % (4 * size)
        assert (np.array(sources) - sources[0]).tolist() == starts.tolist()


def test_wrong_picks_are_called_wrong():
    pool = torch.tensor([[0.0], [1.0], [5.0], [9.0]])
    labeled = torch.tensor([[0.0]])
    assert judge_picks(pool, labeled, np.array([3, 2]), 2, False) == {
        "agreement": 1.0,
        "radius_ratio": 1.0,
    }
    wrong = judge_picks(pool, labeled, np.array([3, 1]), 2, False)
    assert wrong == {"agreement": 0.5, "radius_ratio": 4.0}
    assert "wrong" in judge_picks(pool, labeled, np.array([3, 3]), 2, False)
    assert "wrong" in judge_picks(pool, labeled, np.array([3, 2]), 3, False)
    assert "wrong" in judge_picks(pool, labeled, np.array([3, 4]), 2, False)


def test_a_start_that_is_free_is_taken_as_given():
    pool = torch.tensor([[0.0], [1.0], [5.0], [9.0]])
    assert judge_picks(pool, None, np.array([3, 0]), 2, True)["agreement"] == 1
    assert judge_picks(pool, None, np.array([3, 0]), 2, False)["agreement"] == 0


def test_a_traversal_that_is_not_ours_is_not_certified():
    pool = torch.tensor([[0.0], [1.0], [5.0], [9.0]])
    right = farthest_first(pool, 2, progress=False)
    assert judge_traversal(pool, None, right)["certified"]
    swapped = right._replace(indices=torch.tensor([0, 1]))
    assert not judge_traversal(pool, None, swapped)["certified"]


def test_wrong_scores_are_called_wrong():
    logits = STATISTICS.load()
    method = methods("pool statistics")["torch, in place"]
    scores, _ = method.prepare(STATISTICS, logits)(full_size(STATISTICS))
    scores["label_dispersion"][0] += 0.25
    scores["prediction_stability"][1] += scores["prediction_stability"].max()
    judged = judge_scores(STATISTICS, logits, scores, full_size(STATISTICS))
    assert judged["dispersion_agreement"] == 1 - 1 / STATISTICS.n
    assert judged["stability_error"] == pytest.approx(1, rel=0.01)
    for more, name in enumerate(("entropy", "least_confidence", "margin"), start=1):
        scores[name][2] -= more
        judged = judge_scores(STATISTICS, logits, scores, full_size(STATISTICS))
        assert judged["uncertainty_error"] == pytest.approx(more, rel=1e-5)


@pytest.fixture
def clock(monkeypatch):
    """Time that passes only where ``slow_method`` says so, however busy the machine is."""
    elapsed = [0.0]

    @contextlib.contextmanager
    def measured_by_the_clock(device):
        step, start = StepMeasurement(), elapsed[0]
        yield step
        step.seconds = elapsed[0] - start

    monkeypatch.setattr(worker, "measured", measured_by_the_clock)
    return elapsed


def slow_method(seconds_per_epoch, clock):
    def prepare(case, data):
        def run(size):
            clock[0] += seconds_per_epoch * size.amount
            scores = dict.fromkeys(TRACK, torch.zeros(case.n))
            return Streamed(scores, [seconds_per_epoch] * (size.amount - 1))

        return run

    return Method("slow", "pool statistics", prepare, per_epoch, note="does nothing")


def test_a_job_over_the_limit_is_extrapolated_and_marked(clock):
    case = dataclasses.replace(STATISTICS, epochs=1000)
    limits = Limits(seconds=0.2, repeats=3, repeat_seconds=1)
    measurement = measured(case, slow_method(0.01, clock), limits)
    assert measurement.extrapolated == "extrapolated from up to 15 epochs"
    assert measurement.median == pytest.approx(10)
    record = new_record("test", 2, "cpu")
    record.add(measurement)
    cells = row(record, measurement)
    assert cells[1].startswith("≈ ")
    assert "extrapolated from up to 15 epochs" in cells[-1]
    assert cells[-2].endswith(", as far as it ran")
    assert measurement.pass_seconds == [0.01] * 14
    assert cells[4] == "10 ms"  # measured


def test_a_pilot_that_is_the_whole_job_is_measured_not_extrapolated(clock):
    case = dataclasses.replace(STATISTICS, epochs=40)
    limits = Limits(seconds=8, repeats=3, repeat_seconds=1)
    measurement = measured(case, slow_method(0.1, clock), limits)
    assert measurement.extrapolated == ""
    assert measurement.seconds == [pytest.approx(4)]  # no time for another repetition
    assert clock[0] == pytest.approx(0.1 * (2 + 2 + 2 + 4 + 40))  # two warm-ups, pilots, the job


def test_a_job_too_slow_for_the_limit_is_extrapolated_from_the_smallest_runs(clock):
    case = dataclasses.replace(STATISTICS, epochs=1000)
    measurement = measured(case, slow_method(0.2, clock), Limits(seconds=0.01))
    assert measurement.extrapolated == "extrapolated from up to 10 epochs"
    assert measurement.median == pytest.approx(200)
    assert clock[0] == pytest.approx(0.2 * (2 + 2 + 2 + 10 + 2))  # two warm-ups, three pilots


def test_extrapolation_is_exact_where_cost_is_linear():
    per_pick = lambda size: (1, size.labeled, size.amount)  # noqa: E731
    cost = lambda size: 3 + 0.01 * size.labeled + 0.5 * size.amount  # noqa: E731
    sizes = [Size(2, 256), Size(2, 1024), Size(10, 1024), Size(40, 5000)]
    runs = [Run(size, cost(size), 10 * cost(size)) for size in sizes]
    full = Size(4000, 25_000)
    assert predict(per_pick, runs, [run.seconds for run in runs], full) == pytest.approx(cost(full))
    inside = largest_within(per_pick, per_pick, runs, full, Limits(300, 1e9))
    assert inside.labeled == full.labeled
    assert 150 < cost(inside) <= 300
    pilot = longest_pilot(per_pick, per_pick, runs, full, Limits(100, 1e9))
    assert pilot == Size(62, 256)  # 4,000 halved until it takes at most half of the limit
    by_memory = largest_within(per_pick, per_pick, runs, full, Limits(1e9, 3000))
    assert 1500 < 10 * cost(by_memory) <= 3000


def test_what_is_not_installed_says_so():
    method = dataclasses.replace(slow_method(0, [0.0]), requires="no-such-distribution")
    measurement = measure(STATISTICS, method, Settings(threads=1))
    assert measurement.unavailable == "no-such-distribution is not installed"
    assert row(new_record("test", 1, "cpu"), measurement)[-1] == "does nothing"


def test_a_method_that_fails_still_says_what_is_wrong_with_it():
    def fails(case, data):
        raise RuntimeError("no such kernel")

    method = dataclasses.replace(
        slow_method(0, [0.0]), prepare=fails, defect=lambda: "ignores its start"
    )
    measurement = measured(STATISTICS, method)
    assert measurement.unavailable == "fails: RuntimeError: no such kernel"
    assert measurement.defect == "ignores its start"


def test_nothing_begins_when_no_time_is_left():
    settings = Settings(threads=1, deadline=0)
    assert measure(STATISTICS, slow_method(0, [0.0]), settings).unavailable == "no time was left"
    record = new_record("test", 2, "cpu")
    lines = []
    suites.run_end_to_end(record, settings, lines.append)
    assert [split.unavailable for split in record.splits] == ["no time was left"] * 9
    assert all("n/a: no time was left" in line for line in lines)
    assert "n/a: no time was left" in full_text(record)
    suites.run_growth(record, settings, lambda case, point: None)
    assert all(not curve.values for curve in record.growth)
    assert "62,500 no time was left" in full_text(record)
    assert "a pass of pool statistics" in full_text(record)


def test_ours_counts_before_and_after_the_others(monkeypatch):
    def measure_nothing(case, method, settings, check=True):
        seconds = 1.0 if check else 3.0
        return Measurement(as_record(case), method.name, [seconds], pass_seconds=[seconds / 10])

    monkeypatch.setattr(suites, "measure", measure_nothing)
    record = new_record("test", 2, "cpu")
    plan = (STATISTICS, (OURS, "torch, in place"))
    suites.run_plans([plan], record, Settings(threads=1), lambda case, measurement: None)
    ours, theirs = record.measurements
    assert (ours.seconds, ours.pass_seconds) == ([1.0, 3.0], [0.1, 0.3])
    assert (theirs.seconds, theirs.pass_seconds) == ([1.0], [0.1])


def test_growth_is_of_a_pass_or_of_a_whole_traversal(monkeypatch):
    def measure_nothing(case, method, settings, check=True):
        passes = [] if isinstance(case, TraversalCase) else [1e-6 * case.n, 9.0, 0.0]
        return Measurement(as_record(case), method.name, [1e-3 * case.n**2], pass_seconds=passes)

    monkeypatch.setattr(growth, "measure", measure_nothing)
    settings = Settings(threads=1)
    passes = growth.grow(growth.Curve(STATISTICS, "n", [100, 1000]), settings)
    assert passes.operation == "a pass of pool statistics"
    assert passes.fixed == "classes 7, epochs 4"
    assert passes.seconds == pytest.approx([1e-4, 1e-3])
    assert passes.exponent == pytest.approx(1)
    traversals = growth.grow(growth.Curve(TRAVERSAL, "n", [100, 1000]), settings)
    assert traversals.operation == "farthest-first"
    assert traversals.seconds == pytest.approx([10, 1000])
    assert traversals.exponent == pytest.approx(2)


def test_end_to_end_times_every_part():
    small = {"n": 60, "labeled": 30, "k": 5, "epochs": 1, "device": "cpu"}
    ways = {"bare forward", "observe_pool", "observe_pool, folded"}
    assert set(end_to_end.observing(60, 32, 1, "cpu")["parts"]) == ways
    for kind in cycles.KINDS:
        for with_package in (False, True):
            result = cycles.cycle(kind, with_package, **small)
            embeds = {"embed"} if kind == "farthest_first" else set()
            assert set(result["parts"]) == {"train", "observe", "score", "pick"} | embeds
            assert all(seconds > 0 for seconds in result["parts"].values())


def test_what_a_method_cannot_do_says_so():
    refusing = dataclasses.replace(
        slow_method(0, [0.0]), refuses=lambda case: "takes no statistics"
    )
    measurement = measure(STATISTICS, refusing, Settings(threads=1))
    assert measurement.unavailable == "takes no statistics"
    on_gpu = measure(STATISTICS, slow_method(0, [0.0]), Settings(threads=1, device="cuda"))
    assert on_gpu.unavailable == "runs on CPUs only"


def test_a_method_is_measured_in_a_process_of_its_own(tmp_path):
    settings = Settings(threads=1, limits=LIMITS, lock=tmp_path / "lock")
    measurement = measure(TRAVERSAL, methods(TRAVERSAL.operation)["BLAS loop"], settings)
    assert measurement.unavailable == ""
    assert measurement.exactness["agreement"] == 1
    assert settings.lock.exists()


def test_a_method_that_crashes_is_reported(tmp_path):
    assert call("os:abort", {}, threads=1, timeout=60) == {"unavailable": "crashes with signal 6"}
    job = {"function": "json:loads", "arguments": {"s": "{"}, "threads": torch.get_num_threads()}
    (tmp_path / "job").write_text(json.dumps(job))
    fresh_process.main(str(tmp_path / "job"), str(tmp_path / "result"))
    reason = json.loads((tmp_path / "result").read_text())["unavailable"]
    assert reason.startswith("fails: JSONDecodeError: Expecting property name")


@pytest.mark.parametrize(
    "name", [name for name in EMBEDDINGS if name not in ("lenet-mnist", "minilm-synopses")]
)
def test_inputs_have_their_shape_and_are_the_same_every_time(name):
    make = EMBEDDINGS[name]
    values = make(101, 64, 0)
    assert values.shape == (101, 64)
    assert values.dtype == np.float32
    assert np.array_equal(values, make(101, 64, 0))
    assert not np.array_equal(values, make(101, 64, 1))


def test_real_embeddings_are_read_or_named(tmp_path, monkeypatch):
    monkeypatch.setenv("DYNAL_FAST_DATA", str(tmp_path))
    assert lacking("minilm-synopses").startswith("package-synopses/minilm-f16.npy is not in ")
    assert lacking("clustered") == ""
    (tmp_path / "package-synopses").mkdir()
    rows = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float16)
    np.save(tmp_path / "package-synopses/minilm-f16.npy", rows)
    assert lacking("minilm-synopses") == ""
    pool, labeled = (EMBEDDINGS["minilm-synopses"](n, 4, seed) for n, seed in ((40, 0), (10, 1)))
    assert pool.dtype == np.float32
    both = np.concatenate([pool, labeled])
    assert np.array_equal(np.sort(both, axis=0), np.sort(rows.astype(np.float32), axis=0))
    with pytest.raises(ValueError, match=r"shape \(50, 4\), asked \(60, 4\)"):
        EMBEDDINGS["minilm-synopses"](60, 4, 0)


def test_growth_exponents():
    assert fit([10, 100, 1000], [2.0, 20.0, 200.0]) == pytest.approx((0.2, 1))
    assert fit([10, 100, 1000], [5.0, 5.0, 5.0]) == pytest.approx((5, 0))
    assert fit([10], [5.0]) is None


def test_every_planned_method_exists():
    for case, names in suites.FULL:
        assert set(names) <= set(methods(case.operation))
        assert case.title()
