"""The snippets of the documentation's pages that need a library, for that library's tests."""

import re
from pathlib import Path

GUIDE = Path(__file__).parents[2] / "docs" / "guide"


def snippet(page: str, heading: str) -> str:
    """Return the code under a heading of a page of the guide."""
    section = (GUIDE / f"{page}.md").read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    (code,) = re.findall(r"```\{code-block\} python\n(?::[^\n]*\n)*(.*?)```", section, re.S)
    return code
