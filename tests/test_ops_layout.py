"""Every operation has the same files for the same roles, and a README that describes each."""

import re
from pathlib import Path

import pytest

from dynal_fast import ops

FOLDERS = sorted(path.parent for path in Path(ops.__file__).parent.glob("*/__init__.py"))
ROLES = {"__init__.py", "contract.py", "reference.py", "cpu.py", "triton.py"}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_an_operation_has_its_files_and_they_are_described(folder):
    files = {path.name for path in folder.glob("*.py")}
    assert files >= ROLES
    rows = [line for line in (folder / "README.md").read_text().splitlines() if line[:3] == "| `"]
    named = [name for row in rows for name in re.findall(r"`(\w+\.py)`", row.split("|")[1])]
    assert sorted(named) == sorted(files)
