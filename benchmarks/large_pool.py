"""One traversal of a pool on disk, cold, in a process of its own: what it takes, as JSON.

    python -m benchmarks.large_pool pool.npy 1000 [labeled.npy]

``peak_anonymous`` and ``anonymous_before`` are bytes that are not pages of files; ``read`` counts
bytes that came from storage.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np

from dynal_fast import farthest_first


def drop_pages(path):
    """Forget what the system holds of a file."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_bytes():
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


def anonymous_bytes():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def traverse(pool_file, k, labeled_file=None):
    """Return what the traversal took, with its radius and a digest of its picks."""
    labeled = None if labeled_file is None else np.load(labeled_file)
    pool = np.load(pool_file, mmap_mode="r")
    farthest_first(pool[:100], 3, progress=False)  # loads what is loaded once
    drop_pages(pool_file)
    ended, seen = threading.Event(), [anonymous_bytes()]

    def watch():
        while not ended.wait(0.005):
            seen.append(anonymous_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    read, cpu, begin = read_bytes(), time.process_time(), time.perf_counter()
    got = farthest_first(pool, k, labeled, progress=False)
    seconds = time.perf_counter() - begin
    ended.set()
    watcher.join()
    return {
        "seconds": seconds,
        "cpu_seconds": time.process_time() - cpu,
        "read": read_bytes() - read,
        "pool": pool.nbytes,
        "anonymous_before": seen[0],
        "peak_anonymous": max(seen),
        "radius": got.radius,
        "digest": int((got.indices * (1 + got.indices.new_ones(k).cumsum(0))).sum()),
    }


if __name__ == "__main__":
    file, count, *labeled_files = sys.argv[1:]
    print(json.dumps(traverse(file, int(count), *labeled_files)))
