"""What commands write on a terminal: one bar for a run, and none with -q."""

import io
import os
import re
import struct
import sys
import threading

import numpy as np
import pytest

from dynal_fast.cli import main
from dynal_fast.strategies.registry import register_strategy, unregister_strategy

pty, fcntl, termios = map(pytest.importorskip, ("pty", "fcntl", "termios"))
pytestmark = pytest.mark.usefixtures("one_thread")

STRATEGIES = ["farthest_first", "margin+farthest_first", "coreset", "farthest_first_stratified"]
STRATEGIES += ["mine"]
RUN = ["--model", "mlp", "--threads", "1", "--seeds", "0", "--initial", "20", "--budget", "5"]
RUN += ["--cycles", "1", "--epochs", "2", "--no-reference"]


@pytest.fixture
def terminal(monkeypatch):
    """Make stderr a terminal; the fixture's value runs a command and returns what is on it."""

    def run(*arguments):
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
        written = io.BytesIO()

        def read():
            while True:
                try:
                    part = os.read(master, 4096)
                except OSError:
                    return
                if not part:
                    return
                written.write(part)

        reader = threading.Thread(target=read)
        reader.start()
        stream = os.fdopen(slave, "w")
        monkeypatch.setattr(sys, "stderr", stream)
        try:
            code = main([*map(str, arguments)])
        finally:
            monkeypatch.undo()
            stream.close()
            reader.join(30)
            os.close(master)
        assert code == 0, written.getvalue()
        return written.getvalue().decode()

    return run


@pytest.fixture
def own_strategy():
    """A user's strategy that calls the traversal as users do."""

    @register_strategy("mine", needs=("embeddings",))
    def mine(context):
        from dynal_fast import farthest_first

        pool = context.embeddings(context.candidates)
        return context.candidates[farthest_first(pool, context.budget).indices]

    yield
    unregister_strategy("mine")


@pytest.mark.usefixtures("own_strategy")
def test_a_quiet_run_writes_nothing_on_a_terminal(terminal, tmp_path):
    assert terminal("run", "-q", "-o", tmp_path, *RUN, "--strategies", *STRATEGIES) == ""


@pytest.mark.usefixtures("own_strategy")
def test_a_run_has_one_bar_that_says_where_it_is(terminal, tmp_path):
    shown = terminal("run", "-o", tmp_path, *RUN, "--strategies", *STRATEGIES)
    assert "\n" not in shown
    drawn = [line for line in re.split(r"\r|\x1b\[A", shown) if line.strip()]
    assert all("/20 [" in line for line in drawn), drawn  # epochs of all runs
    assert any(line.startswith("coreset, seed 0, cycle 0, selecting:") for line in drawn), drawn
    assert not re.search("farthest-first|FF-Comp|pick", shown.replace("farthest_first", ""))


def test_a_quiet_selection_writes_nothing_and_another_has_its_bar(terminal, tmp_path):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).standard_normal((50, 3), np.float32))
    command = ["select", tmp_path / "a.npy", "-k", 5, "-o", tmp_path / "picks.npy"]
    assert terminal(*command, "-q") == ""
    assert "farthest-first" in terminal(*command)
