"""Whether an array lies in a file that is mapped into memory, and is read as it is used."""

from pathlib import Path

from dynal_fast.ops.farthest_first.contract import Rows

MAPS = Path("/proc/self/maps")  # Linux; elsewhere files are read as the system thinks best
SMALLEST = 2**26  # bytes: of less, all is read soon


def is_mapped_file(rows: Rows) -> bool:
    """Whether rows lie in a mapped file and are worth reading ahead."""
    row, column = abs(rows.row_bytes), abs(rows.column_bytes)
    if row * rows.size < SMALLEST or rows.device.type != "cpu" or not MAPS.exists():
        return False
    if row < column * rows.columns:  # a row lies all over the file
        return False
    for line in MAPS.read_text().splitlines():
        span, _, _, _, inode = line.split(maxsplit=5)[:5]
        begin, end = (int(part, 16) for part in span.split("-"))
        if begin <= rows.address < end:
            return inode != "0"
    return False
