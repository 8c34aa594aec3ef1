"""A user's script is checked strictly against the package: no top-level name is ``Any``."""

import sys

import pytest

import dynal_fast

pytest.importorskip("mypy")


@pytest.mark.slow
def test_public_names_have_types(tmp_path, monkeypatch):
    from mypy import api

    names = sorted(set(dynal_fast.__all__) - {"__version__"})
    script = tmp_path / "script.py"
    script.write_text(
        "import torch\n\nimport dynal_fast\n\n"
        "picks: torch.Tensor = dynal_fast.farthest_first(torch.zeros(10, 3), 5).indices\n"
        + "".join(f"reveal_type(dynal_fast.{name})\n" for name in names)
    )
    monkeypatch.setenv("MYPYPATH", dynal_fast.__path__[0].removesuffix("/dynal_fast"))
    monkeypatch.chdir(tmp_path)  # away from the package's own settings
    options = ["--strict", "--follow-imports=silent", "--python-executable", sys.executable]
    output, errors, status = api.run([*options, str(script)])
    assert status == 0, output + errors
    revealed = [line for line in output.splitlines() if "Revealed type is" in line]
    assert len(revealed) == len(names)
    assert [line for line in revealed if 'is "Any"' in line] == []
