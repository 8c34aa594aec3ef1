"""The program that compute-sanitizer watches: the gate's checks of a kernel, small."""

from benchmarks.gpu.gate.kernel import checks_of
from benchmarks.gpu.job import Job, Lines
from benchmarks.gpu.kernels import KERNELS


def run(job: Job) -> Lines:
    for name in job.kernels:
        checks = checks_of(job, KERNELS[name])
        yield {"kind": "sanitized", "kernel": name, "checks": len(checks)}
