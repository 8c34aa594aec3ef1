"""Two parts of the rehearsal that fail on purpose: one hangs, one is killed.

What each wrote before is kept, and the parts after it run.
"""

import os
import signal
import subprocess
import sys
import time

from benchmarks.gpu.job import Job, Lines


def run(job: Job) -> Lines:
    yield {"kind": "planted failure", "said": f"before it {job.failure}s"}
    if job.failure == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    # and a process that leaves the part's group, as a compiler's workers may
    subprocess.Popen([sys.executable, "-c", SLEEP, str(job.output)], start_new_session=True)
    time.sleep(3600)


SLEEP = "import time; time.sleep(3600)"
