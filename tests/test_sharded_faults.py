"""A rank that dies, stops, fails or is interrupted ends all ranks soon, with its number."""

import contextlib
import ctypes
import functools
import os
import re
import signal
import subprocess
import time

import pytest
import torch.distributed as dist
from torch.distributed import distributed_c10d

from dynal_fast.collective import RankError
from dynal_fast.collective.process_group import OfProcessGroup
from dynal_fast.collective.watch import History, Watch
from dynal_fast.ops.farthest_first.sharded.functions import farthest_first_of_shards
from tests.cases.farthest_first import gaussian
from tests.gloo_ranks import GlooRanks

PATIENCE = 1.5  # seconds
BAD_RANK = 1


def pick_until(group, fault):
    """Pick on every rank; in the fourth round the bad one has its fault."""
    ranks = OfProcessGroup(group, patience=PATIENCE)

    def after_round(state):
        if fault == "all" and state.rounds == 4:
            raise RuntimeError("no rank has a disk")
        if state.rounds == 4 and ranks.rank == BAD_RANK:
            if fault == "error":
                raise RuntimeError("the disk is gone")
            if fault == "late":
                time.sleep(2 * PATIENCE)  # as a computation that is long: it is alive
                return
            if fault.startswith("SIG"):
                os.kill(os.getpid(), getattr(signal, fault))
                time.sleep(0.2)

    got = farthest_first_of_shards(
        ranks, [gaussian(300, 3, ranks.rank)], 150, after_round=after_round
    )
    return got.indices.tolist()


def check_told(ranks, who, others):
    for rank in who:
        answer = ranks.result(rank, timeout=30)
        assert answer.startswith("RankError: "), answer
        assert others in answer


def check_refused(ranks, who, size, since):
    """Calls of the group so far may be unanswered, so that no further one is made."""
    for rank in who:
        ranks.pipes[rank].send((pick_until, ("none",), size))
    for rank in who:
        answer = ranks.result(rank)
        assert answer.startswith("RankError: the process group cannot be used any more"), answer
        why = r"its ranks are out of step|rank \d+ did not come to this call within \d+ s"
        assert re.search(rf"any more, as ({why}) since {re.escape(since)}", answer), answer


@pytest.mark.parametrize("fault", ["SIGKILL", "SIGSTOP"])
def test_a_rank_that_dies_or_stops_ends_all(fault):
    with GlooRanks(3) as ranks:
        ranks.begin(pick_until, fault, ranks=3)
        began = time.monotonic()
        check_told(ranks, (0, 2), "rank 1 gave no sign of life")
        assert time.monotonic() - began < 20
        check_refused(ranks, (0, 2), 3, "rank 1 gave no sign of life")
        if fault == "SIGSTOP":
            os.kill(ranks.processes[BAD_RANK].pid, signal.SIGKILL)


def test_an_error_or_ctrl_c_of_one_rank_ends_all():
    with GlooRanks(3) as ranks:
        for size, fault, own, others in (
            (3, "SIGINT", "KeyboardInterrupt", "rank 1 was interrupted"),
            (2, "error", "RuntimeError: the disk is gone", "rank 1 failed: RuntimeError: the disk"),
        ):
            ranks.begin(pick_until, fault, ranks=size)
            began = time.monotonic()
            check_told(ranks, sorted({0, 2} & set(range(size))), others)
            assert time.monotonic() - began < 20
            assert ranks.result(BAD_RANK).startswith(own)
            check_refused(ranks, range(size), size, others)


PORT = 29_613


def move_apart(name, rank):
    """Run rank 1 in a network namespace, which one link joins with this one."""
    if rank == 1:
        libc = ctypes.CDLL(None, use_errno=True)
        with open(f"/run/netns/{name}") as space:
            assert libc.setns(space.fileno(), 0) == 0, os.strerror(ctypes.get_errno())
    os.environ["GLOO_SOCKET_IFNAME"] = f"{name}-{rank}"


@pytest.fixture
def two_networks():
    """The name of a network namespace and of the two ends of its link, and this end's address."""
    name, subnet = f"df{os.getpid()}", f"10.213.{os.getpid() % 250}"
    commands = [
        f"netns add {name}",
        f"link add {name}-0 type veth peer name {name}-1 netns {name}",
        f"addr add {subnet}.1/24 dev {name}-0",
        f"link set {name}-0 up",
        f"-n {name} addr add {subnet}.2/24 dev {name}-1",
        f"-n {name} link set {name}-1 up",
        f"-n {name} link set lo up",
    ]
    try:
        for command in commands:
            done = subprocess.run(["ip", *command.split()], capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"no network namespace can be made here: {done.stderr.strip()}")
        yield name, f"{subnet}.1"
    except FileNotFoundError:
        pytest.skip("the command ip is missing")
    finally:
        with contextlib.suppress(FileNotFoundError):
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def test_a_rank_that_is_cut_off(two_networks):
    name, here = two_networks
    apart = functools.partial(move_apart, name)
    with GlooRanks(2, prepare=apart, address=f"tcp://{here}:{PORT}") as ranks:
        ranks.begin(cut_off_in_the_fourth_round, f"{name}-0", ranks=2)
        assert "rank 1 gave no sign of life" in ranks.result(0, timeout=40)
        assert "rank 1 cannot reach the store" in ranks.result(1, timeout=40)
        for process in ranks.processes:
            process.kill()  # torch would wait for the store


def cut_off_in_the_fourth_round(group, link):
    ranks = OfProcessGroup(group, patience=PATIENCE)

    def after_round(state):
        if state.rounds == 4 and ranks.rank == 0:
            subprocess.run(["ip", "link", "set", link, "down"], check=True)

    farthest_first_of_shards(ranks, [gaussian(300, 3, ranks.rank)], 150, after_round=after_round)


def test_ranks_that_are_late_or_fail_alike_stay_together():
    with GlooRanks(2) as ranks:
        first, second = ranks.call(pick_until, "late", ranks=2)
        assert first == second
        assert len(first) == 150
        for answer in ranks.call(pick_until, "all", ranks=2):
            assert "RuntimeError: no rank has a disk" in answer
        assert ranks.call(pick_until, "none", ranks=2) == [first, first]


def test_a_store_that_is_gone_is_an_error_of_the_rank(monkeypatch):
    """Where ranks find out whether they are in step, before the first sign of life is missed."""
    monkeypatch.setattr(distributed_c10d, "_get_default_store", dist.HashStore)
    history = History("a group")
    history.trouble = "an error before"
    watch = Watch(history, 1, 2, PATIENCE)

    class Gone:
        def __getattr__(self, name):
            raise RuntimeError("broken pipe")

    watch.store = Gone()
    with pytest.raises(RankError, match=r"rank 1 cannot reach the store .*\(.*broken pipe\)"):
        watch.__enter__()


def test_a_rank_that_does_not_come_after_an_error_is_named(monkeypatch):
    monkeypatch.setattr(distributed_c10d, "_get_default_store", dist.HashStore)
    history = History("a group that waits")
    history.trouble = "rank 1 failed: a disk"
    message = "rank 1 did not come to this call within 0 s since rank 1 failed: a disk; make a new"
    with pytest.raises(RankError, match=message):
        Watch(history, 0, 2, 0.1).__enter__()
    with pytest.raises(RankError, match=message):  # at once, and in every session to come
        Watch(history, 0, 2, 60).__enter__()


def test_a_group_has_to_be_initialized():
    assert not dist.is_initialized()
    with pytest.raises(ValueError, match="init_process_group"):
        OfProcessGroup(None)
