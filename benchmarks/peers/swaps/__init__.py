"""pytest plugins: each puts our strategies in place of one library's own, before its tests load.

They end with `use_tests`, so that ``import tests`` finds those of the codebase and not ours.
"""

import os
import sys
from pathlib import Path

SOURCES = Path(os.environ["PEER_SOURCES"])
ROOT = Path(__file__).parents[3]


def use_tests(*, first: bool = False, below: str = "") -> None:
    """Put the codebase's sources on the path instead of ours, the installed libraries first.

    With ``first`` the codebase's own copy of its library comes first, for tests of its version.
    """
    sys.path = [path for path in sys.path if path not in ("", str(ROOT))]
    sys.path.insert(0 if first else len(sys.path), str(SOURCES / below))
