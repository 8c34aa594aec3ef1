"""Checkpoints: atomic files, resuming after SIGKILL anywhere, refusal of other configurations."""

import errno
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dynal_fast import files
from dynal_fast.experiment import ActiveLearningExperiment, Protocol, Training
from dynal_fast.experiment.checkpoint import Checkpoint, RandomStreams, own_random_state
from dynal_fast.experiment.grid import run_grid
from dynal_fast.files import write_atomically
from tests.cases.experiment import PROTOCOL, TRAINING, blobs, grid_config

pytestmark = pytest.mark.usefixtures("one_thread")

# Forks before torch computes anything; each child is killed at one point, the next one goes on.
# Points: "epoch:N" is after the N-th epoch that a child trains; "write:N:when" is within the N-th
# file that it writes: half written, written but not renamed, or renamed.
DRIVER = """
import os, signal, sys
import safetensors.torch
import torch
import torch._dynamo  # as the optimizers do: once, and not in every child
from dynal_fast import files
from dynal_fast.experiment.grid import run_grid
from tests.cases.experiment import blobs, grid_config

torch.set_num_threads(1)
retrain, whole, killed, *points = sys.argv[1:]
config = grid_config(
    strategies=["bald", "cod"], seeds=[5],
    protocol={"initial": 12, "budget": 6, "cycles": 2, "retrain": retrain},
)

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

def run(folder, point):
    count = {"epoch": 0, "write": 0}
    kind, number, when = (point.split(":") + ["", ""])[:3]

    def on_epoch(where, done):
        count["epoch"] += 1
        if kind == "epoch" and count["epoch"] == int(number):
            kill()

    class Killing:
        def __getattr__(self, name):
            return getattr(os, name)
        def fsync(self, descriptor):
            count["write"] += 1
            if kind == "write" and count["write"] == int(number) * 2 - 1:
                if when == "half":
                    os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
                if when in ("half", "written"):
                    kill()
            os.fsync(descriptor)
        def replace(self, source, target):
            os.replace(source, target)
            if kind == "write" and count["write"] == int(number) * 2 - 1 and when == "renamed":
                kill()

    files.os = Killing()
    run_grid(config, folder, data=blobs(), on_epoch=on_epoch)

for folder, point in [(whole, ""), *((killed, point) for point in [*points, ""])]:
    child = os.fork()
    if child == 0:
        run(folder, point)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    was_killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert was_killed if point else status == 0, (point, status)
"""


def drive(retrain, whole, killed, *points):
    root = Path(__file__).parents[1]
    subprocess.run(
        [sys.executable, "-c", DRIVER, retrain, str(whole), str(killed), *points],
        check=True,
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
        timeout=300,
    )


@pytest.mark.parametrize("retrain", ["scratch", "continue"])
def test_a_run_that_was_killed_anywhere_ends_with_the_same_bytes(tmp_path, retrain):
    drive(
        retrain, tmp_path / "whole", tmp_path / "killed",
        "epoch:2", "write:1:half", "epoch:1", "epoch:5", "write:1:written", "write:1:renamed",
        "epoch:7", "write:2:half", "write:2:renamed",
    )  # fmt: skip
    for name in ("results.json", "results.csv"):
        whole, killed = ((tmp_path / run / name).read_bytes() for run in ("whole", "killed"))
        assert whole == killed
    assert b'"all_data"' in whole or b"all_data," in whole
    assert not list((tmp_path / "killed").rglob("*.tmp"))


def experiment(folder, strategy="cod", **changes):
    settings = {"protocol": PROTOCOL, "training": TRAINING, "directory": folder} | changes
    return ActiveLearningExperiment(blobs(), "mlp", strategy, **settings)


def test_a_finished_run_is_not_run_again(tmp_path):
    first = experiment(tmp_path).run()
    trained = []
    again = experiment(tmp_path, on_epoch=lambda cycle, epoch: trained.append(epoch)).run()
    assert again == first
    assert again.timings == first.timings
    assert trained == []


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"training": Training(epochs=5, batch_size=16)}, "training.epochs is 4 there and 5 here"),
        ({"protocol": Protocol(12, False, 7, 3)}, "protocol.budget is 6 there and 7 here"),
        ({"strategy": "margin"}, "strategy is 'cod' there and 'margin' here"),
        ({"schedules": {"cod": "every"}}, "schedules.cod is None there and 'every' here"),
        ({"seed": 1}, "seed is 0 there and 1 here"),
    ],
)
def test_a_checkpoint_of_another_configuration_is_refused(tmp_path, changes, difference):
    experiment(tmp_path).run()
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    with pytest.raises(ValueError, match=f"different configuration: {difference}"):
        experiment(tmp_path, **changes).run()
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before


def test_another_version_may_compute_otherwise(tmp_path, monkeypatch):
    from dynal_fast.experiment import state

    experiment(tmp_path).run()
    monkeypatch.setattr(state, "__version__", "99.0")
    with pytest.raises(ValueError, match=r"dynal_fast is '.*' there and '99.0' here"):
        experiment(tmp_path).run()


def test_other_labels_are_another_configuration(tmp_path):
    experiment(tmp_path).run()
    other = ActiveLearningExperiment(
        blobs(seed=1), "mlp", "cod", protocol=PROTOCOL, training=TRAINING, directory=tmp_path
    )
    other.data.oracle._labels[:] = 0
    with pytest.raises(ValueError, match="different configuration: labels is "):
        other.run()


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_a_damaged_checkpoint_is_an_error_that_names_it(tmp_path, content):
    experiment(tmp_path).run()
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-100] if content is None else content)
    with pytest.raises(ValueError, match=r"checkpoint.safetensors is not a readable checkpoint"):
        experiment(tmp_path).run()


class FullDisk:
    """A file that takes half of what it is given and then fails as a full disk does."""

    def __init__(self, path, mode):
        self.file = open(path, mode)  # noqa: SIM115 - it is a context manager itself

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def write(self, content):
        self.file.write(content[: len(content) // 2])
        self.file.flush()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    whole = experiment(tmp_path / "whole").run()
    folder = tmp_path / "full"
    kept = []

    def fill_disk(cycle, epoch):
        if (cycle, epoch) == (2, 1):
            kept.append((folder / "checkpoint.safetensors").read_bytes())
            monkeypatch.setattr(files, "open", FullDisk, raising=False)

    with pytest.raises(OSError, match=r"cannot write .*checkpoint.safetensors: No space left") as e:
        experiment(folder, on_epoch=fill_disk).run()
    assert e.value.errno == errno.ENOSPC
    assert [path.name for path in folder.iterdir()] == ["checkpoint.safetensors"]
    assert (folder / "checkpoint.safetensors").read_bytes() == kept[0]
    monkeypatch.undo()
    assert experiment(folder).run() == whole


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    monkeypatch.setattr(files.os, "replace", lambda *paths: (_ for _ in ()).throw(OSError(5)))
    with pytest.raises(OSError, match="cannot write"):
        write_atomically(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_checkpoint_gives_back_what_it_was_given(tmp_path):
    tensors = {"a.b": torch.arange(3), "a.c": torch.tensor(2.5), "d": torch.zeros(0, 4)}
    tensors["tied"] = tensors["d"]
    facts = {"cycles": [{"accuracy": 0.1 + 0.2}], "none": None}
    Checkpoint(tensors, facts).save(tmp_path / "x")
    loaded = Checkpoint.load(tmp_path / "x")
    assert loaded.facts == facts
    assert loaded.tensors.keys() == tensors.keys()
    assert all(torch.equal(loaded.tensors[name], tensors[name]) for name in tensors)
    assert loaded.part("a").keys() == {"b", "c"}


def test_every_generator_goes_on_where_it_was_saved(tmp_path):
    def draw(streams):
        return [
            torch.rand(3).tolist(),
            torch.rand(3, generator=streams.order).tolist(),
            torch.rand(3, generator=streams.selection).tolist(),
            np.random.normal(size=3).tolist(),  # noqa: NPY002 - the global generator
            [random.gauss(0, 1), random.random()],
        ]

    with own_random_state():
        streams = RandomStreams(7)
        draw(streams)
        np.random.normal()  # noqa: NPY002 - an odd number leaves half a pair in the state
        random.gauss(0, 1)
        tensors, facts = streams.state()
        Checkpoint(tensors, {"random": facts}).save(tmp_path / "x")
        expected = draw(streams)
        other = RandomStreams(8)
        loaded = Checkpoint.load(tmp_path / "x")
        other.restore(loaded.tensors, loaded.facts["random"])
        assert draw(other) == expected
        assert draw(other) != expected


def test_only_its_own_leftovers_are_deleted(tmp_path):
    (tmp_path / ".somebody-elses.tmp").write_text("keep")
    (tmp_path / f".results.json.1{files.TEMPORARY}").write_text("half")
    files.remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".somebody-elses.tmp"]


# Holds the folder, says so, and is killed by the test.
HOLDER = """
import sys, time
from pathlib import Path
from dynal_fast.experiment.checkpoint import sole_run

with sole_run(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(300)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows locks no folders")
@pytest.mark.parametrize("held", [".", "cod/seed-5"])
def test_two_runs_do_not_write_to_one_folder(tmp_path, held):
    config = grid_config(strategies=["cod"], seeds=[5])
    command = [sys.executable, "-c", HOLDER, str(tmp_path / held)]
    root = Path(__file__).parents[1]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            unfinished = tmp_path / held / f".results.json.1{files.TEMPORARY}"
            unfinished.write_text("half")
            with pytest.raises(BlockingIOError, match="another run is writing to ") as error:
                run_grid(config, tmp_path, data=blobs())
            assert error.value.strerror.endswith(str(tmp_path / held))
            assert unfinished.read_text() == "half"
            assert not list(tmp_path.rglob("*.safetensors"))
        finally:
            holder.kill()
    run_grid(config, tmp_path, data=blobs())
    assert (tmp_path / "results.json").exists()
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_file_system_without_locks_is_written_to(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def refuse(descriptor, operation):
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr(fcntl, "flock", refuse)
    experiment(tmp_path).run()
    assert (tmp_path / "checkpoint.safetensors").exists()


def rewritten(path, change):
    """Change the tensors and facts of a checkpoint and write it with a checksum that fits."""
    checkpoint = Checkpoint.load(path)
    change(checkpoint.tensors, checkpoint.facts)
    checkpoint.save(path)


def spoil_ids(spoil):
    return lambda tensors, facts: tensors.update(labeled=spoil(tensors["labeled"].clone()))


def first_is(value):
    def spoil(ids):
        ids[0] = value
        return ids

    return spoil_ids(spoil)


def fact(*path, value):
    def change(tensors, facts):
        inside = facts
        for key in path[:-1]:
            inside = inside[key]
        inside[path[-1]] = value

    return change


@pytest.fixture(scope="module")
def half_finished(tmp_path_factory):
    """A run that stopped after two of its four trainings."""
    folder = tmp_path_factory.mktemp("half")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def stop(cycle, epoch):
        if cycle == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        experiment(folder, on_epoch=stop).run()
    torch.set_num_threads(threads)
    return folder


@pytest.fixture
def half(half_finished, tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes((half_finished / "checkpoint.safetensors").read_bytes())
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (first_is(-1), r"labeled must be in 0 .. 149, got -1"),
        (first_is(150), r"labeled must be in 0 .. 149, got 150"),
        (spoil_ids(lambda ids: torch.cat([ids[1:], ids[1:2]])), "one sample is there twice"),
        (spoil_ids(lambda ids: ids[:-1]), "labeled must be 24 samples, got 23"),
        (spoil_ids(lambda ids: ids[:0]), "at least one sample, got none"),
        (spoil_ids(lambda ids: ids.flip(0)), "the initial samples and those that the cycles"),
        (spoil_ids(lambda ids: ids.float()), r"labeled must be int64 \(samples,\)"),
        (lambda tensors, facts: tensors.pop("labeled"), r"labeled must be int64"),
        (lambda tensors, facts: tensors.pop("model.4.bias"), "model.4.bias is missing"),
        (lambda tensors, facts: tensors.pop("stats.stamp"), "stamp"),
        (lambda t, f: t.update({"random.order": t["random.order"][:9]}), "random.order must be "),
        (lambda t, f: t.update({"random.order": t["random.order"] * 0 + 9}), "random.order must"),
        (lambda t, f: t["random.python"].fill_(-1), "random.python must be words of 32 bits"),
        (fact("random", "numpy", value=[625, 0, 0.0]), r"random.numpy\[0\] must be at most 624"),
        (fact("random", "python", value=[2, None]), r"random.python\[0\] must be at least 3"),
        (fact("cycles", 0, "accuracy", value=1.5), r"cycles\[0\].accuracy must be at most 1"),
        (fact("cycles", 1, "labeled", value=12), r"cycles\[1\].labeled must be more than the 12"),
        (fact("cycles", 1, "labeled", value=19), r"cycles\[1\].labeled must be 18, got 19"),
        (fact("cycles", 1, "cycle", value=0), r"cycles\[1\].cycle must be 1"),
        (fact("cycles", 1, "selected", value=[150]), r"selected must be of the 150 samples"),
        (fact("cycles", value=[]), "cycles must be a list of at least one"),
        (fact("timings", value=[]), "timings must be those of the cycles"),
        (fact("timings", 0, "train_seconds", value=-1.0), "train_seconds must be at least 0"),
        (fact("configuration", value="mine"), "configuration must be a table, got 'mine'"),
        (lambda tensors, facts: facts.pop("random"), "random is missing"),
        (fact("more", value=1), "unknown key 'more'"),
    ],
)
def test_an_edited_checkpoint_is_refused_by_the_key(half, change, message):
    rewritten(half, change)
    trained = []
    with pytest.raises(ValueError, match=rf"checkpoint.safetensors .*{message}"):
        experiment(half.parent, on_epoch=lambda cycle, epoch: trained.append(epoch)).run()
    assert trained == []


def test_no_bit_of_a_checkpoint_changes_unnoticed(half, half_finished):
    content = half.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    places = [*range(0, 8 * header, 37), *range(8 * header, 8 * len(content), 8 * 997)]
    digest = content.index(b'checksum\\":\\"')
    places += range(8 * digest, 8 * (digest + 80))
    for place in places:
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        half.write_bytes(flipped)
        with pytest.raises(ValueError, match="is not a readable checkpoint: "):
            Checkpoint.load(half)
    half.write_bytes(content)
    assert (
        Checkpoint.load(half).facts
        == Checkpoint.load(half_finished / "checkpoint.safetensors").facts
    )


def as_format_1(path):
    """Write a checkpoint as the earlier version did: no checksum, fewer facts."""
    import json

    from safetensors.torch import save

    checkpoint = Checkpoint.load(path)
    facts = checkpoint.facts | {"format": 1}
    facts.pop("machines")
    for key in ("sha256", "torch", "threads", "default_dtype", "float32_matmul_precision"):
        facts["configuration"].pop(key)
    for cycle in facts["cycles"]:
        cycle.pop("steps")
    metadata = {name: json.dumps(value) for name, value in facts.items()}
    path.write_bytes(save(checkpoint.tensors, metadata))


def test_a_checkpoint_of_the_earlier_format_goes_on(half, tmp_path):
    whole = experiment(tmp_path / "whole").run()
    as_format_1(half)
    again = experiment(half.parent).run()
    assert again.accuracies == whole.accuracies
    assert [cycle.steps for cycle in again.cycles] == [None, None, 8, 8]
    as_format_1(half)
    with pytest.raises(ValueError, match=r"training.epochs is 4 there and 5 here"):
        experiment(half.parent, training=Training(epochs=5, batch_size=16)).run()


def test_another_number_of_threads_is_refused_with_the_one_to_give(half):
    torch.set_num_threads(2)
    with pytest.raises(ValueError, match=r"threads is 1 there and 2 here. Go on with --threads 1"):
        experiment(half.parent).run()
    torch.set_num_threads(1)
    assert len(experiment(half.parent).run().cycles) == 4


def test_another_torch_and_another_precision_are_refused(half, monkeypatch):
    monkeypatch.setattr(torch, "__version__", "1.0")
    with pytest.raises(ValueError, match=r"torch is '.*' there and '1.0' here"):
        experiment(half.parent).run()
    monkeypatch.undo()
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "medium")
    with pytest.raises(ValueError, match="precision is 'highest' there and 'medium' here"):
        experiment(half.parent).run()


def test_another_machine_is_said(half, monkeypatch):
    from dynal_fast.experiment import resume

    monkeypatch.setattr(resume, "machine", lambda device: "an abacus")
    with pytest.warns(UserWarning, match="is resumed on an abacus after .*: results may differ"):
        experiment(half.parent).run()
    assert Checkpoint.load(half).facts["machines"][1:] == ["an abacus"]
    monkeypatch.undo()
    experiment(half.parent).run()  # finished: nothing is computed, nothing to say


@pytest.mark.parametrize("what", ["samples", "test_samples", "test_labels"])
def test_other_data_are_another_configuration(half, what):
    data = blobs()
    if what == "test_labels":
        data.test_labels[3] = (data.test_labels[3] + 1) % 3
    else:
        getattr(data, what).source[3, 2] += 1
    running = ActiveLearningExperiment(
        data, "mlp", "cod", protocol=PROTOCOL, training=TRAINING, directory=half.parent
    )
    with pytest.raises(ValueError, match=f"sha256.{what} is '.*' there and"):
        running.run()


def test_analysis_cannot_be_added_to_a_run(half):
    with pytest.raises(ValueError, match=r"analysis cannot be added to .*: cycle 0 was trained"):
        experiment(half.parent, analysis=True).run()
    experiment(half.parent).run()
    with pytest.raises(ValueError, match="analysis cannot be added"):
        experiment(half.parent, analysis=True).run()


def test_analysis_goes_on_where_every_cycle_was_recorded(tmp_path):
    first = experiment(tmp_path, analysis=True).run()
    assert experiment(tmp_path, analysis=True).run() == first
    (tmp_path / "analysis-1.safetensors").unlink()
    with pytest.raises(ValueError, match="cycle 1 was trained without it"):
        experiment(tmp_path, analysis=True).run()


def test_a_grid_refuses_what_cannot_go_on_before_it_trains(tmp_path):
    run_grid(grid_config(strategies=["cod"], seeds=[1], reference=False), tmp_path, data=blobs())
    more = grid_config(strategies=["random", "cod"], seeds=[1], reference=False, analysis=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=r"analysis cannot be added to .*cod/seed-1"):
        run_grid(more, tmp_path, data=blobs())
    assert sorted(tmp_path.rglob("*")) == before
