"""A Triton that is missing or too old is refused, with what to do about it, before kernels load."""

import re
import sys
from pathlib import Path

import pytest

from dynal_fast import _triton
from dynal_fast.info import info
from dynal_fast.ops import dense_discrepancy, pool_stats
from dynal_fast.ops.farthest_first import backends

# The loaders themselves: what was loaded before, with the Triton that is there, is kept.
LOADERS = {
    "dense_discrepancy": dense_discrepancy.BACKENDS.loaders["triton"],
    "farthest_first": backends.BACKENDS.loaders["triton"],
    "pool_stats": pool_stats.BACKENDS.loaders["cuda"],
    "pool_stats in Triton alone": pool_stats.BACKENDS.loaders["triton"],
}


def test_every_operation_takes_triton_on_a_gpu():
    for operation in (dense_discrepancy, backends, pool_stats):
        assert operation.BACKENDS.defaults["cuda"] in ("triton", "cuda")


@pytest.fixture(params=["3.0.0", "3.3.1", "3.4.0", "2.3.1+git1234"])
def too_old(request, monkeypatch):
    triton = pytest.importorskip("triton", reason="triton is not installed")
    monkeypatch.setattr(triton, "__version__", request.param)
    return request.param


@pytest.mark.parametrize("loader", LOADERS)
def test_an_old_one_is_refused_by_every_operation(loader, too_old):
    with pytest.raises(ImportError, match=rf"Triton {re.escape(too_old)} is too old.*3\.5"):
        LOADERS[loader]()


def test_an_old_one_stands_in_the_facts_with_the_reason_and_the_cure(too_old):
    fact = info()["backend triton"]
    assert fact.startswith("not available")
    assert f"Triton {too_old} is too old" in fact
    assert "3.3 gives wrong results" in fact
    assert "pip install" in fact


@pytest.mark.parametrize("loader", LOADERS)
def test_a_missing_one_is_refused_with_the_extra_to_install(loader, monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(ImportError, match=r"need Triton.*pip install 'dynal_fast\[gpu\]'"):
        LOADERS[loader]()
    assert info()["backend triton"].startswith("not available: triton does not load")


def test_what_breaks_while_it_loads_is_reported_not_raised(monkeypatch):
    def broken(name):
        raise RuntimeError("libcuda is from elsewhere")

    monkeypatch.setattr(_triton.importlib, "import_module", broken)
    assert "libcuda is from elsewhere" in _triton.triton_problem()
    with pytest.raises(ImportError, match="libcuda is from elsewhere"):
        _triton.require_triton()


def test_a_folder_named_triton_is_none(monkeypatch):
    triton = pytest.importorskip("triton", reason="triton is not installed")
    monkeypatch.delattr(triton, "__version__")
    assert "Triton of an unknown version is too old" in _triton.triton_problem()


@pytest.mark.parametrize("version", ["3.5.0", "3.10.1", "4.0.0", "3.6.0+git9844da95"])
def test_new_ones_are_taken(version, monkeypatch):
    triton = pytest.importorskip("triton", reason="triton is not installed")
    monkeypatch.setattr(triton, "__version__", version)
    assert _triton.triton_problem() is None
    _triton.require_triton()


def test_the_extra_asks_for_the_oldest_that_is_taken():
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    (oldest,) = re.findall(r'"triton>=([\d.]+);', text)
    assert tuple(map(int, oldest.split("."))) == _triton.OLDEST
