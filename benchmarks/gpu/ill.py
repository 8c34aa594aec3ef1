"""For the rehearsal: a part that hangs, and one that is killed; what each wrote before is kept."""

import os
import signal
import subprocess
import sys
import time

from benchmarks.gpu.job import Job, Lines


def run(job: Job) -> Lines:
    yield {"kind": "ill", "said": f"before it {job.ill}s"}
    if job.ill == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    # and a process that leaves the part's group, as a compiler's workers may
    subprocess.Popen([sys.executable, "-c", SLEEP, str(job.output)], start_new_session=True)
    time.sleep(3600)


SLEEP = "import time; time.sleep(3600)"
