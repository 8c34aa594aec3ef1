"""Draw the shape of a kernel's errors (`gate.errors`) as text, without torch."""

from typing import Any


def drawing(found: dict[str, Any]) -> list[str]:
    """Lines that show where a tensor is wrong, by block: ``.`` nowhere, 1-9 tenths, ``#`` all."""
    height, width = found["block"]
    head = (
        f"{found['tensor']}: {found['wrong']} of {found['of']} wrong, blocks of {height} x {width}"
    )
    head += f"; rows mod 8 {found['rows_mod_8']}, columns mod 8 {found['columns_mod_8']}"
    rows = [f"{i * height:>6} {line}" for i, line in enumerate(found["map"])]
    return [head, *rows, *found["first"]]
