"""Kernels are compiled for the GPU of their tensors, whatever the current one is."""

from contextlib import contextmanager

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed")

from triton.backends.compiler import GPUTarget

from dynal_fast.ops import launch as launching
from dynal_fast.ops.pool_stats import triton as pool_stats

AMPERE, HOPPER, MI300 = (torch.device("cuda", index) for index in range(3))
TARGETS = [GPUTarget("cuda", 80, 32), GPUTarget("cuda", 90, 32), GPUTarget("hip", "gfx942", 64)]


class TensorOn:
    """As much of a tensor as `launch` looks at."""

    def __init__(self, device):
        self.device = device


class Kernel:
    """Remembers its launches, and which device was the current one."""

    def __init__(self, machine):
        self.machine, self.launches = machine, []

    def __getitem__(self, grid):
        return lambda *args, **options: self.launches.append((self.machine.current, options))


class Machine:
    """Three kinds of GPU in one machine."""

    is_absent = False

    def __init__(self):
        self.current, self.asked = 0, 0

    def get_current_target(self):
        self.asked += 1
        return TARGETS[self.current]

    @contextmanager
    def on(self, index):
        before, self.current = self.current, index
        yield
        self.current = before


@pytest.fixture
def machine(monkeypatch):
    machine = Machine()
    monkeypatch.setattr(launching.driver, "_active", machine)
    monkeypatch.setattr(torch.cuda, "device", machine.on)
    monkeypatch.setattr(torch.cuda, "device_of", lambda tensor: machine.on(tensor.device.index))
    launching._target_of_gpu.cache_clear()
    yield machine
    launching._target_of_gpu.cache_clear()


@pytest.mark.parametrize("current", range(3))
def test_decisions_follow_the_device_of_the_tensors(current, machine):
    machine.current = current
    devices = (AMPERE, HOPPER, MI300)
    kernel = object()
    assert [launching.is_hopper(kernel, device) for device in devices] == [False, True, False]
    wide = [launching.multiplies_64_rows(kernel, device) for device in devices]
    assert wide == [False, True, False]
    precisions = [launching.dot_operand(torch.float32, kernel, device)[1] for device in devices]
    assert precisions == ["tf32x3", "tf32x3", "ieee"]
    assert machine.current == current


@pytest.mark.parametrize("current", range(3))
def test_a_launch_is_made_for_and_on_the_device_of_the_tensors(current, machine):
    machine.current = current
    kernel = Kernel(machine)
    for device in (AMPERE, HOPPER, MI300):
        launching.launch(kernel, (1,), TensorOn(device), registers=64, dependent=True)
    (ampere, a), (hopper, h), (mi300, m) = kernel.launches
    assert (ampere, hopper, mi300) == (0, 1, 2)
    assert (a["maxnreg"], h["maxnreg"], "maxnreg" in m) == (64, 64, False)
    assert [options["DEPENDENT"] for options in (a, h, m)] == [False, True, False]
    assert ["launch_pdl" in options for options in (a, h, m)] == [False, True, False]


def test_a_device_is_asked_once(machine):
    kernel = Kernel(machine)
    for _ in range(3):
        for device in (HOPPER, AMPERE):
            launching.launch(kernel, (1,), TensorOn(device))
    assert machine.asked == 2


@pytest.mark.parametrize(("device", "split"), [(AMPERE, False), (HOPPER, True), (MI300, False)])
def test_the_head_on_hopper_is_chosen_by_the_features(device, split, machine):
    features = TensorOn(device)
    features.element_size = lambda: 2
    assert pool_stats._splits(features, 1000, None, {"count": None, "mean": None}) is split


def test_cpu_tensors_are_refused_before_any_driver_is_asked(monkeypatch):
    monkeypatch.setattr(launching.driver, "_active", None)
    cpu = torch.device("cpu")
    for call in (
        lambda: launching.is_hopper(object(), cpu),
        lambda: launching.dot_operand(torch.float32, object(), cpu),
        lambda: launching.launch(Kernel(None), (1,), TensorOn(cpu)),
    ):
        with pytest.raises(ValueError, match=r"needs CUDA tensors, got CPU ones"):
            call()
