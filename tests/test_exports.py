"""The public names: each is listed once for readers, once for type checkers, and loads."""

import importlib

import pytest


@pytest.mark.parametrize("package", ["dynal_fast", "dynal_fast.experiment"])
def test_every_public_name_loads(package):
    module = importlib.import_module(package)
    assert sorted(module._HOMES) == sorted(set(module.__all__) - {"__version__"})
    for name in module.__all__:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = module.nothing
