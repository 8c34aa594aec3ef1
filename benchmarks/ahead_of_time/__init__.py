"""Compile the GPU kernels for GPUs that are not there, and read what they use.

``python -m benchmarks.ahead_of_time`` prints registers, shared memory and spills of every kernel
variant for every architecture. It needs Triton and no GPU: the operations are called on CPU tensors
as a GPU run calls them, and each launch compiles its kernel for the target, with the specialisation
that Triton derives from the arguments. In a source tree with nvcc the kernels in CUDA C++ follow.
"""

from collections.abc import Iterator

from benchmarks.ahead_of_time import dense_discrepancy, farthest_first, kmeans_plusplus, pool_stats
from benchmarks.ahead_of_time.absent_device import compiling_for
from benchmarks.ahead_of_time.resources import Resources, resources_of
from benchmarks.ahead_of_time.variant import Variant


def variants() -> Iterator[Variant]:
    """Yield every kernel variant of the package."""
    for operation in (farthest_first, kmeans_plusplus, pool_stats, dense_discrepancy):
        yield from operation.variants()


def compile_variant(variant: Variant, architecture: str) -> list[Resources]:
    """Compile the kernels that a variant launches; return what each uses."""
    with compiling_for(architecture) as compiled:
        variant.call()
    return [resources_of(variant.name, kernel, architecture) for kernel in compiled]
