"""The GPU run, as far as it goes without a GPU."""

import dataclasses
import importlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed")
if sys.platform != "linux":
    pytest.skip("the run's processes are watched as Linux has it", allow_module_level=True)

from benchmarks.gpu import (
    build,
    guard,
    kernels,
    lines,
    plan,
    processes,
    races,
    record,
    rehearsal,
    table,
    targets,
    timing,
    warm_share,
)
from benchmarks.gpu import run as gpu_run
from benchmarks.gpu.figures.certificate import shortfall
from benchmarks.gpu.figures.farthest_first import baseline, clustered
from benchmarks.gpu.gate import kernel as gate_kernel
from benchmarks.gpu.gate import pool_stats as gate_pool_stats
from benchmarks.gpu.gate.drawing import drawing
from benchmarks.gpu.gate.errors import between, near
from benchmarks.gpu.gate.plants import SPOILED, swizzled
from benchmarks.gpu.job import Job
from benchmarks.gpu.launches import compiled
from benchmarks.gpu.part import refused

ROOT = Path(__file__).parent.parent
SLEEP = "import time; time.sleep(3600)"
# A process that starts another, which leaves its session and says who it is.
PARENT_OF_ONE = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {SLEEP!r}], start_new_session=True)
open(sys.argv[1], "w").write(str(child.pid))
time.sleep(3600)
"""


def environment(**changes):
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **changes}


def run(*options, **changes):
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "benchmarks.gpu", *map(str, options)],
        cwd=ROOT,
        env=environment(**changes),
        capture_output=True,
        text=True,
    )


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return value


@pytest.fixture
def settings(tmp_path):
    """What the options say, for a `gpu_run.Run` into ``tmp_path``."""
    return SimpleNamespace(
        output=tmp_path, rehearse=True, repeats=2, without=[], plant=[], only=[], build=True
    )


# The run as a whole.


def test_rehearsal(tmp_path):
    """Every part runs; what is planted is found; what ends badly costs nothing else."""
    finished = run("--rehearse", "--output", tmp_path / "out")
    said = finished.stdout + finished.stderr
    assert finished.returncode == 0, said[-6000:]
    assert "PROBLEM" not in said
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"results.jsonl", "log.txt", "parity.xml", "record.json", "table.txt"}
    found = json.loads((tmp_path / "out" / "record.json").read_text())
    assert set(found["parts"]) == {part.name for part in plan.PARTS + plan.PLANTED_FAILURES}
    assert found["parts"]["hangs"]["outcome"].startswith("stopped after")
    assert found["parts"]["dies"]["outcome"] == "killed by SIGKILL"
    assert set(found["kernels"]) == set(kernels.KERNELS)
    # rows 16 to 31 of the planted kernel, and no others
    (check, *_) = found["kernels"]["head-whole"]["wrong"]
    assert [bool(row.strip(".")) for row in check["map"]][:6] == [False, False, True, True] + 2 * [
        False
    ]
    assert "rows mod 8" in said
    # where it is refused another kernel runs, and says so
    replaced = found["figures"]["head in Triton C=100, all rows at once"]
    assert replaced["kernel"] == ["update_long_rows"]
    assert replaced["error"]["error"] < 1e-5
    assert found["races"]["update C=5000"]["left_out"] == "without update-long"
    for name, figure in found["figures"].items():
        assert figure.get("ms", 0) > 0 or "left_out" in figure, name
    for target in targets.TARGETS:
        assert target.figure in found["figures"], target
    shown = (tmp_path / "out" / "table.txt").read_text()
    assert len(shown) <= table.LIMIT
    assert all(name[:51] in shown for name in found["figures"])
    assert all(line in said for line in rehearsal.LEFT_OUT)
    # all of it is within the last 12,000 characters, whatever else there was to say
    assert finished.stdout.rpartition("written to")[0].endswith(shown)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_without_a_gpu_it_says_so_and_tries_nothing_else(tmp_path):
    finished = run("--output", tmp_path)
    assert finished.returncode == 1
    assert "needs a CUDA device, and torch sees none" in finished.stdout
    parts = json.loads((tmp_path / "record.json").read_text())["parts"]
    assert parts.pop("environment")["outcome"] == "failed with exit status 1"
    assert {part["outcome"] for part in parts.values()} == {"skipped: there is no GPU to run on"}


def test_options_that_make_no_sense(tmp_path):
    (tmp_path / "file").write_text("")
    for options in (
        ["--output", tmp_path / "file"],
        ["--output", tmp_path, "--only", "nothing"],
        ["--output", tmp_path, "--without", "nothing"],
    ):
        finished = run(*options)
        assert finished.returncode == 2
        assert "error" in finished.stderr
    assert run().returncode == 2


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_a_kill_in_the_middle_leaves_what_was_measured(tmp_path, signum):
    """The lines of finished parts stay, make a record, and no process is left behind."""
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.DEVNULL,
    )

    def hanging():
        return any(line.get("said") == "before it hangs" for line in lines.read(tmp_path))

    assert wait_for(hanging)
    children = guard.descendants(process.pid)
    assert len(children) >= 2  # the guard, the part, and what the part starts
    assert wait_for(lambda: len(guard.descendants(process.pid)) >= 3)
    children |= guard.descendants(process.pid)
    process.send_signal(signum)
    process.wait(60)
    assert wait_for(lambda: not any(map(is_running, children)))
    found = record.of(lines.read(tmp_path))
    assert found["parts"]["dies"]["outcome"] == "killed by SIGKILL"
    assert {line["said"] for line in found["other"]} == {"before it dies", "before it hangs"}
    if signum == signal.SIGKILL:
        assert run("--record", "--output", tmp_path).returncode == 0
    assert json.loads((tmp_path / "record.json").read_text())["parts"]["dies"]
    assert "dies" in (tmp_path / "table.txt").read_text()


# The run with two parts only: one that dies, and one that hangs for as long as it may.
KILLED = """
import sys
from benchmarks.gpu import forked, plan, run
forked.preload = lambda: None  # the parts are processes of their own
plan.PARTS, plan.PLANTED_FAILURES = (), tuple(
    plan.Part(part.name, part.module, 600, 600, "", arguments=part.arguments)
    for part in reversed(plan.PLANTED_FAILURES)
)
sys.argv = ["gpu", "--rehearse", "--output", sys.argv[1]]
run.main()
"""


def test_a_part_costs_its_own_limit_and_the_next_goes_on(settings, monkeypatch, capsys):
    monkeypatch.setattr(rehearsal, "PATIENCE", 1)
    running = gpu_run.Run(settings)
    parts = [
        plan.Part("hangs", "planted_failure", 1, 1, "", arguments=("--failure", "hang")),
        plan.Part("dies", "planted_failure", 1, 60, "", arguments=("--failure", "die")),
        plan.Part("is not there", "nothing", 1, 60, ""),
    ]
    for part in parts:
        running.step(plan.Step((part,)), 0)
    running.begin -= plan.TOTAL
    running.step(plan.Step((plan.Part("late", "planted_failure", 1, 60, ""),)), 0)
    found = running.write()["parts"]
    assert [part["outcome"] for part in found.values()] == [
        "stopped after 1 s",
        "killed by SIGKILL",
        "failed with exit status 1",
        "skipped: no time left",
    ]
    assert "No module named 'benchmarks.gpu.nothing'" in found["is not there"]["output"]
    assert found["hangs"]["seconds"] < 30
    assert "No module named" in capsys.readouterr().out


def test_a_part_that_prints_without_end_is_stopped(settings, monkeypatch):
    monkeypatch.setattr(gpu_run, "LOG_LIMIT", 100_000)
    endless = "while True: print('x' * 1000)"

    def start(self, part, seconds):
        with open(self.output / gpu_run.LOG, "ab") as log:
            return guard.start([sys.executable, "-c", endless], stdout=log)

    monkeypatch.setattr(gpu_run.Run, "start", start)
    running = gpu_run.Run(settings)
    running.step(plan.Step((plan.Part("prints", "", 60, 60, ""),)), 0)
    outcome = running.write()["parts"]["prints"]["outcome"]
    assert outcome == "failed: it printed too much"
    assert (settings.output / gpu_run.LOG).stat().st_size < 200_000


def test_where_nothing_can_be_written_it_still_prints(settings, monkeypatch, capsys):
    running = gpu_run.Run(settings)

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lines, "append", full)
    monkeypatch.setattr(record, "write", full)
    running.ended(plan.PARTS[3], "done", 1.0, 0)
    running.write()
    said = capsys.readouterr().out
    assert "cannot write results" in said
    assert "gate: done" in said


# The guard.


def guarded(seconds, *command, parent=None):
    watched = [
        sys.executable,
        "-m",
        "benchmarks.gpu.guard",
        str(seconds),
        str(parent or os.getpid()),
    ]
    return subprocess.Popen([*watched, *command], cwd=ROOT, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(
    ("code", "status"),
    [("", 0), ("raise SystemExit(3)", 3), ("import os; os.kill(os.getpid(), 9)", 137)],
)
def test_a_guarded_command_ends_as_it_would(code, status):
    assert guarded(60, sys.executable, "-c", code).wait(60) == status


def test_a_guarded_command_and_all_that_came_of_it_end_in_time(tmp_path):
    process = guarded(5, sys.executable, "-c", PARENT_OF_ONE, str(tmp_path / "pid"))
    assert wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    child = int((tmp_path / "pid").read_text())
    assert process.wait(60) == guard.STOPPED
    assert not is_running(child)


def test_nothing_starts_for_a_parent_that_is_gone(tmp_path):
    process = guarded(
        5, sys.executable, "-c", f"open({str(tmp_path / 'ran')!r}, 'w')", parent=1 << 30
    )
    process.wait(60)
    assert not (tmp_path / "ran").exists()


def test_a_process_that_does_not_die_is_told(monkeypatch):
    monkeypatch.setattr(guard, "descendants", lambda root: {1 << 30})
    assert guard.end_all(0.1) == {1 << 30}
    assert gpu_run.outcome(guard.UNKILLABLE, 9) == "could not be killed after 9 s"


# Time.


def test_the_count_fits_and_keeps_what_later_parts_expect():
    steps = plan.steps(plan.PARTS)
    assert sum(step.expected for step in steps) <= plan.TOTAL
    assert all(part.expected <= part.limit for part in plan.PARTS)
    assert f"{plan.TOTAL} s" in plan.schedule(plan.PARTS)
    gate = next(part for part in plan.PARTS if part.name == "gate")
    assert plan.limit(gate, 400, 100) == gate.limit
    assert plan.limit(gate, 120, 80) == 40
    assert plan.limit(gate, 100, 90) == gate.expected
    assert plan.limit(gate, 10, 90) == 10
    assert plan.limit(gate, -1, 90) == 0


def test_figures_bring_the_ceilings_of_their_own_call():
    names = [part.name for part in plan.chosen(["update", "parity"], build=False)]
    assert names == ["environment", "ceilings", "update", "parity"]
    assert [part.name for part in plan.chosen(["races"], build=True)] == ["environment", "races"]
    assert "build" not in [part.name for part in plan.chosen([], build=False)]


def test_triton_and_baselines_come_before_cuda():
    names = [part.name for part in plan.PARTS]
    ours = names.index("head_cuda")
    assert max(map(names.index, plan.NEEDS_CEILINGS)) == ours
    assert ours < names.index("parity") < names.index("races") < names.index("sanitizer")


# The warm-up.


def test_the_warm_up_runs_all_that_launches_a_triton_kernel(tmp_path):
    job = Job(output=tmp_path, device="cpu", small=True)
    warmed = {name for name, _ in warm_share.work(dataclasses.replace(job, warm=True))}
    modules = [part.module for part in plan.PARTS if part.name in plan.NEEDS_CEILINGS]
    cases = [
        case
        for module in modules
        for case in importlib.import_module(f"benchmarks.gpu.{module}").cases(job)
    ]
    wanted = {case.name for case in cases if case.needs not in ((), kernels.HEAD_CUDA)}
    assert len(wanted) > 10
    assert wanted <= warmed
    assert {f"races {race.name}" for race in races.races(job)} <= warmed
    hopper = {name for name, kernel in kernels.KERNELS.items() if kernel.only_hopper}
    assert {f"gate {name}" for name in set(kernels.KERNELS) - hopper} <= warmed


def test_what_was_compiled_is_told_from_what_the_cache_had(tmp_path, monkeypatch):
    from triton import knobs

    from benchmarks.ahead_of_time.absent_device import compiling_for
    from dynal_fast.ops.dense_discrepancy.triton import dense_discrepancy, whole_columns

    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("nothing is compiled")
    monkeypatch.setattr(knobs.cache, "dir", str(tmp_path))
    maps = torch.zeros(1, 3, 8, 16)
    seen = []
    for _ in range(2):
        whole_columns.device_caches.clear()  # as in another process
        with compiling_for("sm_90"), compiled() as names:
            dense_discrepancy(maps, maps)
        seen.append(names)
    assert seen == [["whole_columns"], []]


# What is wrong with a kernel, and what takes its place.


def test_the_map_shows_where_a_result_is_wrong():
    want = torch.rand(70, 40)
    assert "map" not in near("x", want, want, 0, 0)
    got = want.clone()
    got[16:24, 8:16] += 1
    got[64:, :] = math.nan
    found = near("x", got, want, 1e-6, 0)
    assert found["wrong"] == 64 + 6 * 40
    assert found["map"] == [".....", ".....", ".#...", *5 * ["....."], "#####"]
    assert found["error"] == math.inf
    every = near("x", want + (torch.arange(40) % 8 == 3), want, 1e-6, 0)
    assert every["columns_mod_8"] == "...#...."
    shown = drawing(every)
    assert "columns mod 8 ...#...." in shown[0]
    assert shown[1].split() == ["0", "11111"]
    assert any("should be" in line for line in shown)


def test_bounds_nan_and_infinities_are_compared_as_they_are():
    low, high = torch.zeros(4), torch.ones(4)
    assert between("x", torch.tensor([0.0, 0.5, 1.0, 1.1]), low, high)["wrong"] == 1
    odd = torch.tensor([math.inf, -math.inf, math.nan])
    assert near("x", odd, odd, 1e-3, 1e-3)["wrong"] == 0
    assert near("x", torch.zeros(3), odd, 1e-3, 1e-3)["wrong"] == 3


def test_a_large_map_is_of_blocks():
    got, want = torch.zeros(900, 1100), torch.zeros(900, 1100)
    got[899, 1099] = 1
    found = near("x", got, want, 0, 0)
    assert len(found["map"]) <= 24
    assert len(found["map"][0]) <= 48
    assert found["map"][-1][-1] == "1"


def test_the_planted_fault_exchanges_groups_of_columns():
    rows = torch.arange(40 * 16.0).reshape(40, 16)
    spoiled = swizzled(rows)
    assert torch.equal(spoiled[SPOILED, :8], rows[SPOILED, 8:])
    assert torch.equal(spoiled[: SPOILED.start], rows[: SPOILED.start])
    assert torch.equal(spoiled[SPOILED.stop :], rows[SPOILED.stop :])


@pytest.mark.parametrize(
    "name", [name for name, kernel in kernels.KERNELS.items() if kernel.fallback]
)
def test_every_fall_back_is_there_to_be_chosen(name):
    module, attribute, value = kernels.KERNELS[name].fallback
    home = importlib.import_module(module)
    usual = getattr(home, attribute)
    with kernels.left_out([name]):  # raises where the package no longer has that choice
        assert getattr(home, attribute) == value != usual
    assert getattr(home, attribute) == usual


def test_what_cannot_run_without_a_kernel_is_named():
    assert kernels.missing(kernels.UPDATE, {"update-whole"}) == ""
    assert kernels.missing(kernels.UPDATE, {"update-whole", "update-long"}) == (
        "update-whole and update-long"
    )
    assert kernels.missing((), set(kernels.KERNELS)) == ""
    for needs in (kernels.HEAD, kernels.HEAD_ROW, kernels.FARTHEST_FIRST, kernels.DENSE):
        assert {name for row in needs for name in row} <= set(kernels.KERNELS)


@pytest.mark.parametrize(
    ("last", "status"), [("update_whole_rows", "agrees"), ("update_long_rows", "not run")]
)
def test_every_case_of_a_check_has_to_run_the_kernel(monkeypatch, tmp_path, last, status):
    checks = [{"wrong": 0, "error": 0.0, "ran": [name]} for name in ("update_whole_rows", last)]
    monkeypatch.setattr(gate_kernel, "checks_of", lambda job, kernel: checks)
    found = gate_kernel._checked(Job(tmp_path, "cpu"), "update-whole", "")
    assert found["status"] == status


def test_the_cuda_kernel_takes_what_its_check_tracks(monkeypatch):
    from dynal_fast.ops.pool_stats import STATE, cuda

    monkeypatch.setattr(cuda, "runs_on", lambda device: True)
    monkeypatch.setattr(
        cuda,
        "_extension",
        lambda: SimpleNamespace(pool_stats_head_fits=lambda classes, width: True),
    )
    state = {name: torch.zeros(1) for name in gate_pool_stats.LIGHT}
    rows = torch.zeros(130, 104, dtype=torch.float16)
    assert cuda.fits(rows, rows, rows[:, 0].contiguous(), state)
    assert {"output", "class_m2", "previous_output"} <= set(state)
    assert set(gate_pool_stats.CYCLE) == {n for n in STATE if STATE[n].part == "cycle"}


def test_a_kernel_is_refused_until_the_gate_finds_it_right():
    def said(kernel, status):
        return {"kind": "kernel", "kernel": kernel, "status": status}

    found = [said("a", "wrong"), said("b", "hung"), said("c", "agrees"), said("a", "agrees")]
    assert refused(found) == {"b"}
    assert refused([*found, said("c", "died"), said("d", "unasked")]) == {"b", "c"}


# What is written.


def test_lines_survive_a_torn_one(tmp_path):
    lines.append(tmp_path, {"kind": "figure", "name": "a", "ms": math.nan})
    with open(tmp_path / lines.NAME, "ab") as file:
        file.write(b'{"kind": "figure", "na\n[1, 2]\n')
    lines.append(tmp_path, {"kind": "call"})
    lines.append(tmp_path, {"kind": "figure", "name": "b"})
    assert [line["kind"] for line in lines.read(tmp_path)] == ["figure", "call", "figure"]
    assert lines.read(tmp_path)[0]["ms"] == "nan"
    assert [line.get("name") for line in lines.this_call(tmp_path)] == [None, "b"]
    assert lines.read(tmp_path / "nowhere") == []


def test_the_newest_figure_counts_and_problems_are_named():
    def figure(name, ms):
        line = {"kind": "figure", "part": "update", "name": name, "ms": ms}
        return line | {"spread": 0.01, "kernel": ["torch"]}

    ours = "update C=1000"
    found = record.of(
        [
            {"kind": "call"},
            figure(ours, 2.0),
            figure(ours, 1.0),
            figure("plain torch C=1000", 6.0),
            {"kind": "figure", "part": "head", "name": "broken", "failed": "RuntimeError()"},
            {"kind": "part", "part": "update", "outcome": "done", "seconds": 1.0},
            {"kind": "part", "part": "head", "outcome": "stopped after 40 s", "seconds": 40.0},
            {"kind": "part", "part": "sanitizer", "outcome": "skipped: no time left"},
            {"kind": "kernel", "kernel": "head-cuda", "status": "missing"},
            {"kind": "race", "name": "update C=10", "repeats": 50, "differing": 3},
            {"kind": "test", "test": "tests/test_a.py::b", "said": "assert"},
            {"kind": "sanitizer", "case": "memcheck update-whole", "outcome": "FOUND"},
        ]
    )
    met = {(t["figure"], t["other"]): t for t in found["targets"] if t["what"] == "times"}
    assert met["update C=1000", "plain torch C=1000"]["measured"] == 6.0
    assert met["update C=1000", "plain torch C=1000"]["met"] is True
    problems = "\n".join(record.problems(found))
    for name in ("part head", "head-cuda", "broken", "update C=10", "test_a.py::b", "memcheck"):
        assert name in problems
    assert len(problems.splitlines()) == 6
    shown = table.of(found)
    assert "met     update C=1000: 6 x faster than plain torch C=1000 (at least 5)" in shown
    assert "MISSING farthest_first clustered, labeled: ? ms (at most 40)" in shown


def test_a_table_is_never_too_long():
    figures = [{"kind": "figure", "name": f"figure {i}", "failed": "x" * 400} for i in range(400)]
    wrong = between("x", torch.ones(500, 500), torch.zeros(500, 500), torch.zeros(500, 500))
    kernel = {"kind": "kernel", "kernel": "k", "status": "wrong", "error": 1.0, "wrong": [wrong]}
    shown = table.of(record.of([*figures, kernel]))
    assert len(shown) <= table.LIMIT
    assert "the rest is in record.json" in shown
    assert table.of(record.of([]))


# What a figure says of its own result.


def test_the_certificate_finds_a_pick_that_falls_short():
    pool, labeled = clustered(200, 8, "cpu", 0), clustered(20, 8, "cpu", 1)
    for rows in (labeled, None):
        picks = baseline(pool, 15, rows)
        assert shortfall(pool, picks, rows)["wrong"] == 0
        swapped = picks.clone()
        swapped[[3, 9]] = swapped[[9, 3]]
        assert shortfall(pool, swapped, rows)["wrong"] > 0
        picks[4] = picks[2]
        assert shortfall(pool, picks, rows)["error"] == math.inf


@pytest.mark.parametrize("head_start", [False, True])
def test_the_host_has_launched_a_graph_before_its_time_begins(monkeypatch, tmp_path, head_start):
    happened = []

    class Event:
        def __init__(self, enable_timing):
            pass

        def record(self):
            happened.append("event")

        def synchronize(self):
            pass

        def elapsed_time(self, end):
            return 1.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: happened.append("sleep"))
    job = Job(tmp_path, "cuda")
    timing.times(job, lambda: happened.append("call"), 1, 0, head_start=head_start)
    assert happened == ["sleep"] * head_start + ["event", "call", "event"]


def test_processes_share_the_cores(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    command = [sys.executable, "-c", "import os; print(os.environ['OMP_NUM_THREADS'])"]
    tasks = [
        processes.Task("a", command, 60),
        processes.Task("b", command, 60, {"OMP_NUM_THREADS": "7"}),
    ]
    said = {e.name: e.output.strip() for e in processes.run_all(tasks, 5, time.monotonic() + 60)}
    assert said == {"a": "3", "b": "7"}


def test_the_build_reads_no_metadata(monkeypatch, tmp_path):
    """Setuptools before 77 refuses what pyproject.toml says of the license."""
    from pybind11.setup_helpers import ParallelCompile
    from setuptools import Distribution

    (tmp_path / "pyproject.toml").write_text("[project]\nname = 3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.setattr(build, "ROOT", tmp_path)
    monkeypatch.setattr(ParallelCompile, "install", lambda self: None)
    ran = []

    def run_path(path, run_name):
        Distribution().parse_config_files()
        ran.append(sys.argv[0])

    monkeypatch.setattr(build.runpy, "run_path", run_path)
    build.build()
    assert ran == ["setup.py"]
