"""The public names: each is listed once for readers, once for type checkers, and loads."""

import importlib
import sys
import warnings

import pytest

import dynal_fast


@pytest.mark.parametrize("package", ["dynal_fast", "dynal_fast.experiment"])
def test_every_public_name_loads(package):
    module = importlib.import_module(package)
    assert sorted(module._HOMES) == sorted(set(module.__all__) - {"__version__"})
    for name in module.__all__:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = module.nothing


def test_the_earlier_paths_of_modules_work_and_warn_once(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("dynal_fast.acquisition")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.warns(DeprecationWarning, match="is now dynal_fast.strategies"):
        registry = importlib.import_module("dynal_fast.acquisition.registry")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        from dynal_fast.acquisition import scores
    assert registry.register_strategy is dynal_fast.register_strategy
    assert scores.SCORES["cod"].compares_cycles
