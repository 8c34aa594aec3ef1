"""The CUDA kernel of the update from features against the float64 reference.

On a Hopper the kernel itself runs. Elsewhere its source is compiled for the CPU, with a model of
what it uses of the hardware (``hopper_emulation.h``) that draws the order of events.
"""

import importlib.machinery
import importlib.util
import subprocess
import sysconfig
from pathlib import Path

import pytest
import torch

from dynal_fast.ops.pool_stats import (
    NON_FINITE,
    STAMP_STEP,
    STATE,
    Head,
    cuda,
    pool_stats_update_from_features,
)
from dynal_fast.ops.pool_stats import reference as reference_kernels
from tests.cases.pool_stats_tensors import TYPICAL, Tracker, draw
from tests.triton_device import DEVICE

ROOT = Path(__file__).parent.parent
ALL = tuple(
    name
    for name, tensor in STATE.items()
    if tensor.part not in ("logits", "teacher")  # of which the kernel takes none
    and name != "latest_output"
)
OUTPUTS = ("increase_count", "increase_sum", "previous_output", "output", "cycle_discrepancy")


@pytest.fixture(scope="session")
def emulation(tmp_path_factory):
    """``dynal_fast._cuda`` with the model in place of the hardware."""
    pybind11 = pytest.importorskip("pybind11", reason="the model of the GPU is compiled with it")
    path = tmp_path_factory.mktemp("emulation") / f"_cuda{sysconfig.get_config_var('EXT_SUFFIX')}"
    includes = [pybind11.get_include(), sysconfig.get_path("include"), ROOT / "tests"]
    command = (sysconfig.get_config_var("CXX") or "c++").split()
    command += ["-std=c++17", "-O1", "-shared", "-fPIC", "-Wall", "-Wno-unknown-pragmas"]
    command += [f"-I{folder}" for folder in includes]
    command += [str(ROOT / "csrc" / "cuda" / "bindings.cpp")]
    command += [str(ROOT / "tests" / "emulated_pool_stats_head.cpp"), "-o", str(path)]
    compiled = subprocess.run(command, capture_output=True, text=True)
    assert compiled.returncode == 0, compiled.stderr
    spec = importlib.util.spec_from_file_location("_cuda", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_wait_for_what_never_comes_is_given_up(tmp_path):
    """By the clock: a poll may take any time. In the model, time passes when nothing else can."""
    command = (sysconfig.get_config_var("CXX") or "c++").split()
    command += ["-std=c++17", "-O1", str(ROOT / "tests" / "emulated_patience.cpp")]
    compiled = subprocess.run(
        [*command, "-o", str(tmp_path / "patience")], capture_output=True, text=True
    )
    assert compiled.returncode == 0, compiled.stderr
    said = subprocess.run([tmp_path / "patience"], capture_output=True, text=True).stdout
    whole, short = said.splitlines()[:3], said.splitlines()[3:]
    assert whole == ["32 went on"] * 3
    assert short == ["a wait took more than two seconds"] * 3


@pytest.fixture(autouse=True)
def device(request, monkeypatch):
    """Where there is no Hopper, the model stands for one."""
    if DEVICE == "cuda":
        if not cuda.runs_on(torch.device("cuda", torch.cuda.current_device())):
            pytest.skip("the kernel was not built, or this GPU is no Hopper")
    else:
        module = request.getfixturevalue("emulation")
        monkeypatch.setattr(cuda, "_extension", lambda: module)
        monkeypatch.setattr(cuda, "runs_on", lambda device: True)
        monkeypatch.setattr(cuda, "_stream", lambda device: 0)


def update(tracker, ids, features, weight, bias):
    inputs = (features, weight, bias, None, None, None)
    there = [tensor if tensor is None else tensor.to(DEVICE) for tensor in inputs]
    assert cuda.fits(*there[:3], tracker.state)
    pool_stats_update_from_features(
        ids.to(DEVICE),
        *there,
        *tracker.tensors,
        backend="cuda",
    )
    want = tracker.expected
    reference_kernels.update_from_features(ids, Head(features, weight, bias), None, want)


def run(num_classes, names, dtype, *, rows, width, passes=2, bias=True, bad=True, **options):
    n = rows + 9
    tracker = Tracker(n, num_classes, names, **options)
    tracker.drop(7)
    weight = draw(num_classes, width, dtype, 7, 2 * width**-0.5)
    bias = draw(1, num_classes, dtype, 8)[0] if bias else None
    for number in range(1, passes + 1):
        tracker.begin_pass(number)
        ids = torch.randperm(n, generator=torch.Generator().manual_seed(number))[:rows]
        ids = ids.to(torch.int32 if number % 2 else torch.int64)
        features = draw(rows, width, dtype, number, 1.0)
        if bad:
            features[1, 1], features[2, 0] = float("nan"), -float("inf")
            ids[5], ids[6] = n, -1
            ids[-1], features[-1] = ids[0], features[0]  # whichever row of the sample counts
        update(tracker, ids, features, weight, bias)
    tracker.check(rtol=5e-5, atol=1e-5)
    return tracker


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("num_classes", "names", "rows", "width"),
    [
        (130, TYPICAL, 70, 40),
        (256, ALL, 200, 64),
        (300, OUTPUTS, 129, 104),
        (1000, TYPICAL, 65, 72),
    ],
)
def test_parity(num_classes, names, rows, width, dtype):
    run(num_classes, names, dtype, rows=rows, width=width)


@pytest.mark.parametrize("rows", [1, 2, 63, 64, 65, 400])
def test_any_number_of_rows(rows):
    run(132, TYPICAL, torch.bfloat16, rows=rows, width=8, bad=rows > 8)


@pytest.mark.parametrize("width", [8, 32, 56, 96, 136])
def test_any_width_with_and_without_bias(width):
    run(192, ("count", "mean"), torch.float16, rows=150, width=width, bias=width > 32)


@pytest.mark.parametrize("labels", [torch.uint8, torch.uint16, torch.int32])
@pytest.mark.parametrize("output_dtype", [torch.float16, torch.float32])
def test_every_dtype_of_the_state(output_dtype, labels):
    run(150, ALL, torch.float16, rows=20, width=16, output_dtype=output_dtype, labels=labels)


@pytest.mark.parametrize("seed", range(10))
def test_any_order_of_events(seed):
    """Each call draws another order; three pieces a row, so that stages are used again soon."""
    run(260, TYPICAL, torch.bfloat16, rows=260 + seed, width=96, passes=1)


def test_the_largest_head_that_fits():
    run(1024, TYPICAL, torch.bfloat16, rows=64, width=768, passes=1)


def test_ties_go_to_the_lowest_class_also_across_blocks():
    tracker = Tracker(3, 300, ("label_counts", "last_margin"))
    tracker.begin_pass(1)
    weight = torch.zeros(300, 8, dtype=torch.float16)
    weight[[100, 299], 1] = 5.0
    weight[[127, 128, 129], 2] = 5.0
    update(tracker, torch.arange(3), torch.eye(3, 8, dtype=torch.float16), weight, None)
    tracker.check()
    assert tracker.state["label_counts"].cpu().nonzero()[:, 1].tolist() == [0, 100, 127]


def test_large_logits():
    tracker = Tracker(70, 260, TYPICAL)
    weight = torch.zeros(260, 8, dtype=torch.bfloat16)
    weight[:, 0] = torch.linspace(0, 1, 260).bfloat16()
    features = torch.full((70, 8), 2.0**10, dtype=torch.bfloat16)
    features[::2] = -features[::2]
    for number in (1, 2):
        tracker.begin_pass(number)
        update(tracker, torch.arange(70), features, weight, None)
    tracker.check(rtol=5e-5, atol=1e-5)


def test_rows_far_below_all_logits_are_refused_not_misread():
    """Columns beyond the classes would win their maximum."""
    tracker = Tracker(3, 132, TYPICAL)
    tracker.begin_pass(1)
    features = torch.full((3, 8), -1e19, dtype=torch.bfloat16)
    weight = torch.full((132, 8), 1.6e19, dtype=torch.bfloat16)
    features[1] = 0
    assert cuda.fits(features.to(DEVICE), weight.to(DEVICE), None, tracker.state)
    pool_stats_update_from_features(
        torch.arange(3).to(DEVICE), features.to(DEVICE), weight.to(DEVICE), *[None] * 4,
        *tracker.tensors, backend="cuda",
    )  # fmt: skip
    stamps, counts = tracker.tensors.stamp.cpu(), tracker.state["label_counts"].cpu()
    assert stamps.tolist() == [STAMP_STEP + NON_FINITE, STAMP_STEP, STAMP_STEP + NON_FINITE]
    assert counts.nonzero().tolist() == [[1, 0]]


@pytest.mark.parametrize("width", [8, 64, 160])
def test_many_tiles_of_few_pieces(width):
    run(130, ("label_counts",), torch.float16, rows=500, width=width, passes=5)


def test_a_duplicate_counts_once_and_is_flagged():
    tracker = run(200, TYPICAL, torch.float16, rows=100, width=24, passes=1)
    stamps = tracker.tensors.stamp.cpu()
    assert ((stamps == STAMP_STEP + 2).sum(), (stamps == STAMP_STEP + 1).sum()) == (1, 2)


def test_an_empty_batch_changes_nothing():
    tracker = Tracker(3, 130, TYPICAL)
    tracker.begin_pass(1)
    weight = torch.zeros(130, 8, dtype=torch.float16)
    update(tracker, torch.zeros(0, dtype=torch.int64), weight[:0], weight, None)
    tracker.check()
    assert not tracker.state["count"].any()


@pytest.mark.parametrize(
    ("classes", "width", "fits"),
    [
        (1000, 768, True),
        (1000, 776, False),  # weights of 13 pieces leave no room
        (1026, 64, False),  # nine blocks
        (128, 64, False),  # a row fits in a program's registers
        (131, 64, False),  # classes are stored in pairs
        (130, 12, False),  # rows begin at multiples of 16 bytes
    ],
)
def test_what_fits(classes, width, fits):
    features = torch.zeros(1, width, dtype=torch.float16, device=DEVICE)
    weight = torch.zeros(classes, width, dtype=torch.float16, device=DEVICE)
    state = {"mean": torch.zeros(1, classes, device=DEVICE)}
    assert cuda.fits(features, weight, None, state) == fits
    assert not cuda.fits(features.float(), weight.float(), None, state)
    for other in ("logit_count", "latest_output"):  # of which the kernel knows nothing
        assert not cuda.fits(features, weight, None, {**state, other: state["mean"]})
    shifted = torch.zeros(width + 1, dtype=torch.float16, device=DEVICE)[1:].reshape(1, width)
    assert not cuda.fits(shifted, weight, None, state)
    bias = torch.zeros(classes + 1, dtype=torch.float16, device=DEVICE)[1:]
    assert not cuda.fits(features, weight, bias, state)
