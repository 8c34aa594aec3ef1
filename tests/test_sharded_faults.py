"""A rank that dies, stops, fails or is interrupted ends all ranks soon, with its number."""

import contextlib
import ctypes
import os
import signal
import subprocess
import time

import pytest
import torch.distributed as dist

from dynal_fast.collective.process_group import OfProcessGroup
from dynal_fast.ops.farthest_first.sharded.functions import farthest_first_of_shards
from tests.cases.farthest_first import gaussian
from tests.gloo_ranks import GlooRanks

PATIENCE = 1.5  # seconds
BAD_RANK = 1


def pick_until(group, fault):
    """Pick on every rank; in the fourth round the bad one has its fault."""
    ranks = OfProcessGroup(group, patience=PATIENCE)

    def after_round(state):
        if state.rounds == 4 and ranks.rank == BAD_RANK:
            if fault == "error":
                raise RuntimeError("the disk is gone")
            if fault == "late":
                time.sleep(2 * PATIENCE)  # as a computation that is long: it is alive
                return
            os.kill(os.getpid(), getattr(signal, fault))
            time.sleep(0.2)

    got = farthest_first_of_shards(
        ranks, [gaussian(300, 3, ranks.rank)], 150, after_round=after_round
    )
    return got.indices.tolist()


@pytest.mark.parametrize(
    ("fault", "own", "others"),
    [
        ("SIGKILL", None, "rank 1 gave no sign of life"),
        ("SIGSTOP", None, "rank 1 gave no sign of life"),
        ("SIGINT", "KeyboardInterrupt", "rank 1 was interrupted"),
        (
            "error",
            "RuntimeError: the disk is gone",
            "rank 1 failed: RuntimeError: the disk is gone",
        ),
    ],
)
def test_a_fault_of_one_rank_ends_all(fault, own, others):
    with GlooRanks(3) as ranks:
        ranks.begin(pick_until, fault, ranks=3)
        began = time.monotonic()
        for rank in (0, 2):
            answer = ranks.result(rank, timeout=30)
            assert answer.startswith("RankError: "), answer
            assert others in answer
        assert time.monotonic() - began < 20
        if own is not None:
            assert ranks.result(BAD_RANK).startswith(own)
        if fault == "SIGSTOP":
            os.kill(ranks.processes[BAD_RANK].pid, signal.SIGKILL)


SPACE, LINK = "dynal-fast-test", "dynal-fast"
HERE, THERE, PORT = "10.213.57.1", "10.213.57.2", 29_613


def move_apart(rank):
    """Run rank 1 in a network namespace, which one link joins with this one."""
    if rank == 1:
        libc = ctypes.CDLL(None, use_errno=True)
        with open(f"/run/netns/{SPACE}") as space:
            assert libc.setns(space.fileno(), 0) == 0, os.strerror(ctypes.get_errno())
    os.environ["GLOO_SOCKET_IFNAME"] = f"{LINK}{rank}"


@pytest.fixture
def two_networks():
    commands = [
        f"netns add {SPACE}",
        f"link add {LINK}0 type veth peer name {LINK}1 netns {SPACE}",
        f"addr add {HERE}/24 dev {LINK}0",
        f"link set {LINK}0 up",
        f"-n {SPACE} addr add {THERE}/24 dev {LINK}1",
        f"-n {SPACE} link set {LINK}1 up",
        f"-n {SPACE} link set lo up",
    ]
    try:
        for command in commands:
            done = subprocess.run(["ip", *command.split()], capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"no network namespace can be made here: {done.stderr.strip()}")
        yield
    except FileNotFoundError:
        pytest.skip("the command ip is missing")
    finally:
        with contextlib.suppress(FileNotFoundError):
            subprocess.run(["ip", "netns", "del", SPACE], capture_output=True)


def test_a_rank_that_is_cut_off(two_networks):
    with GlooRanks(2, prepare=move_apart, address=f"tcp://{HERE}:{PORT}") as ranks:
        ranks.begin(cut_off_in_the_fourth_round, ranks=2)
        assert "rank 1 gave no sign of life" in ranks.result(0, timeout=40)
        assert "rank 1 cannot reach the store" in ranks.result(1, timeout=40)
        for process in ranks.processes:
            process.kill()  # torch would wait for the store


def cut_off_in_the_fourth_round(group):
    ranks = OfProcessGroup(group, patience=PATIENCE)

    def after_round(state):
        if state.rounds == 4 and ranks.rank == 0:
            subprocess.run(["ip", "link", "set", f"{LINK}0", "down"], check=True)

    farthest_first_of_shards(ranks, [gaussian(300, 3, ranks.rank)], 150, after_round=after_round)


def test_a_rank_that_computes_for_long_is_not_lost():
    with GlooRanks(2) as ranks:
        first, second = ranks.call(pick_until, "late", ranks=2)
        assert first == second
        assert len(first) == 150


def test_a_group_has_to_be_initialized():
    assert not dist.is_initialized()
    with pytest.raises(ValueError, match="init_process_group"):
        OfProcessGroup(None)
