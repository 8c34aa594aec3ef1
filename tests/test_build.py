"""Building the extension: what ``setup.py`` finds out about the compiler."""

import runpy
import shutil
from pathlib import Path

import pytest
import setuptools
from setuptools import Distribution

pytest.importorskip("pybind11", reason="setup.py needs it")
FALSE = shutil.which("false")


def openmp_flags(monkeypatch, **compilers):
    """Return the flags that ``setup.py`` finds where the environment names ``compilers``."""
    for name, command in compilers.items():
        monkeypatch.setenv(name, command)
    monkeypatch.setattr(setuptools, "setup", lambda **settings: None)
    build = runpy.run_path(str(Path(__file__).parents[1] / "setup.py"))["BuildExtension"]
    command = build(Distribution())
    command.compiler = setuptools.distutils.ccompiler.new_compiler()
    setuptools.distutils.sysconfig.customize_compiler(command.compiler)
    return command._openmp_flags()


def test_openmp_is_looked_for_with_the_compiler_that_builds_the_kernels(monkeypatch, capsys):
    expected = openmp_flags(monkeypatch)
    assert openmp_flags(monkeypatch, CC=FALSE) == expected
    capsys.readouterr()
    assert openmp_flags(monkeypatch, CXX=FALSE) == []
    assert "OpenMP not found" in capsys.readouterr().err
