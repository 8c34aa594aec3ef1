import gc
import os

import pytest
import torch

from dynal_fast import _extension


def pytest_configure():
    """Share the cores among the workers of pytest-xdist, and tell the processes tests start."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers > 1:
        threads = max(1, (os.cpu_count() or 1) // workers)
        os.environ["OMP_NUM_THREADS"] = str(threads)
        torch.set_num_threads(threads)
    if os.environ.get("TRITON_INTERPRET") == "1":
        from tests.quick_interpreter import make_quick

        make_quick()


def pytest_collection_modifyitems(items):
    """Begin with the slow tests, so that no worker is left with one at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="no CUDA device")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(skip)


@pytest.fixture(params=_extension.load().supported_isas())
def isa(request):
    """Each instruction set that this CPU runs, in force."""
    native = _extension.load()
    usual = native.active_isa()
    native.set_isa(request.param)
    yield request.param
    native.set_isa(usual)


@pytest.fixture
def one_thread():
    """Tiny models train faster on one thread, above all where other tests run beside them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def small_heap():
    """``gc.collect()`` looks at what the tests make, not at all that torch and pytest hold."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
