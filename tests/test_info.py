import os
import subprocess
import sys

import pytest

from dynal_fast import __version__, _extension, info


def test_module_prints_what_a_bug_report_needs():
    run = subprocess.run(
        [sys.executable, "-m", "dynal_fast.info"], capture_output=True, text=True, check=True
    )
    assert __version__ in run.stdout
    for name in ("torch", "instruction set", "threads", "backend cpu", "backend triton"):
        assert any(line.startswith(name) for line in run.stdout.splitlines()), name


def test_an_extension_that_does_not_load_is_reported_not_raised(monkeypatch):
    def missing():
        raise ImportError("no such file")

    monkeypatch.setattr(_extension, "load", missing)
    facts = info.info()
    assert "no such file" in facts["extension"]
    assert facts["backend cpu"].startswith("not available")


def test_the_instruction_set_can_be_lowered_and_a_wrong_name_is_an_error():
    extension = _extension.load()
    before = extension.active_isa()
    try:
        extension.set_isa("baseline")
        assert extension.active_isa() == "baseline"
    finally:
        extension.set_isa(before)
    with pytest.raises(ValueError, match=r"sse9.*baseline"):
        extension.set_isa("sse9")


def test_environment_variable_lowers_the_instruction_set():
    code = "from dynal_fast._extension import load; print(load().active_isa())"
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "DYNAL_FAST_ISA": "baseline"},
    )
    assert run.stdout.strip() == "baseline"
