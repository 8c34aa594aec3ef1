"""Print the table of ``python -m benchmarks.ahead_of_time``."""

import argparse
import itertools

from benchmarks.ahead_of_time import compile_variant, variants
from benchmarks.ahead_of_time.absent_device import ARCHITECTURES
from benchmarks.ahead_of_time.resources import cuda_kernels


def main() -> None:
    """Print the table; exit with an error where a kernel spills or asks for too much memory."""
    parser = argparse.ArgumentParser(description="registers, shared memory and spills per kernel")
    parser.add_argument("--arch", nargs="+", default=ARCHITECTURES, choices=ARCHITECTURES)
    parser.add_argument("--match", default="", help="only variants whose name contains this")
    options = parser.parse_args()
    print(f"{'variant':<52}{'kernel':<20}{'arch':<9}{'warps':>5}{'regs':>6}{'shared':>9}  spills")
    failed = False
    rows = (
        row
        for variant in variants()
        if options.match in variant.name
        for architecture in options.arch
        for row in compile_variant(variant, architecture)
    )
    in_cuda = (
        row
        for row in (cuda_kernels() if "sm_90" in options.arch else [])
        if options.match in row.variant
    )
    for row in itertools.chain(rows, in_cuda):
        problems = row.problems()
        failed |= bool(problems)
        print(
            f"{row.variant:<52}{row.kernel:<20}{row.architecture:<9}{row.warps:>5}"
            f"{row.registers:>6}{row.shared:>9}  {row.spilled or '-'}"
            + (f"  <- {'; '.join(problems)}" if problems else ""),
            flush=True,
        )
    raise SystemExit(1 if failed else 0)


main()
