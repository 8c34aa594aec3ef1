"""Malformed configurations, results, recordings and checkpoints: one line, and never a traceback.

Seeded. DYNAL_FAST_FUZZ=5000 makes it as many cases (`make fuzz`).
"""

import copy
import json
import math
import os
import random
import shutil
from pathlib import Path

import pytest
import torch

from dynal_fast.cli import main
from dynal_fast.experiment import ActiveLearningExperiment, RunConfig, read_config
from dynal_fast.experiment.checkpoint import Checkpoint
from dynal_fast.experiment.grid import run_grid
from dynal_fast.experiment.results import GridResult
from dynal_fast.report.table import accuracy_table, cost_table, timings_of
from dynal_fast.table import as_text
from tests.cases.experiment import blobs, grid_config

pytestmark = pytest.mark.usefixtures("one_thread")
CASES = int(os.environ.get("DYNAL_FAST_FUZZ", "24"))

DEEP: list = []
for _ in range(60):
    DEEP = [DEEP]
WEIRD = [
    None, True, False, 0, -1, 1, 2, 7, 10**30, -(10**30), 2**63, 10**12, 0.5, -0.0, 1.5, 1e308,
    -1e308, 5e-324, math.nan, math.inf, -math.inf, "", "a", " ", "NaN", "1e3", "-1", "\x00",
    "\x1b[2J", "\ud800", "x" * 5000, "../../etc", "/", ".", "<script>alert(1)</script>",
    "$\\frac$", "%s{0}", [], [[]], {}, {"a": 1}, [1, "a", None], DEEP, {"": ""}, "mean IoU",
    "all_data", "random", "cityscapes", "long-tail/mnist",
]  # fmt: skip


def places(values, path=()):
    """Yield the path of every value inside ``values``."""
    inside = values.items() if isinstance(values, dict) else enumerate(values)
    for key, value in inside:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def parent(values, path):
    for key in path[:-1]:
        values = values[key]
    return values


def mutated(values, draw):
    """Return a copy with a few values replaced, removed, doubled, added or swapped."""
    values = copy.deepcopy(values)
    for _ in range(draw.choice([1, 1, 1, 2, 4])):
        every = list(places(values))
        if not every:
            break
        path = draw.choice(every)
        inside, key = parent(values, path), path[-1]
        kind = draw.randrange(8)
        if kind < 4:
            inside[key] = copy.deepcopy(draw.choice(WEIRD))
        elif kind == 4:
            del inside[key]
        elif kind == 5:
            other = draw.choice(every)
            inside[key] = copy.deepcopy(parent(values, other)[other[-1]])
        elif isinstance(inside, list):
            inside.insert(draw.randrange(len(inside) + 1), copy.deepcopy(inside[key]))
        else:
            inside[draw.choice(["", "more", "\ud800", "<b>", "x" * 300, key])] = draw.choice(WEIRD)
    return values


def damaged(content, draw):
    """Return bytes cut short, flipped, in another encoding, or with words that are no JSON."""
    kind = draw.randrange(6)
    if kind == 0:
        return content[: draw.randrange(len(content))]
    if kind == 1:
        flipped = bytearray(content)
        for _ in range(draw.choice([1, 1, 8])):
            flipped[draw.randrange(len(flipped))] ^= 1 << draw.randrange(8)
        return bytes(flipped)
    if kind == 2:
        return content.decode("utf-8", "replace").encode(draw.choice(["utf-16", "utf-8-sig"]))
    if kind == 3:
        return b"[" * 100_000 + content
    if kind == 4:
        return content.replace(b"0", draw.choice([b"NaN", b"1e999", b"\xff", b"9" * 5000]), 3)
    return content + content


def written(path, values, draw):
    content = json.dumps(values).encode()
    path.write_bytes(damaged(content, draw) if draw.random() < 0.15 else content)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "blobs"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    config = grid_config(
        strategies=["cod", "random"], analysis=True, schedules={"cod": {"last": 1, "interval": 1}},
        protocol={"initial": 12, "budget": 6, "cycles": 1}, preset="", options={},
        training={"epochs": 2, "batch_size": 16},
    )  # fmt: skip
    run_grid(config, folder, data=blobs())
    torch.set_num_threads(threads)
    return folder


@pytest.fixture
def run(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "run")
    return tmp_path / "run"


def one_line_or_nothing(capsys, *arguments):
    """Run a command, which must succeed or say in one line why it does not; return its code."""
    code = main([*map(str, arguments)])
    _, err = capsys.readouterr()
    assert (code, err.count("\n")) in ((0, 0), (2, 1)), (code, err)
    assert len(err) < 2000, err
    return code


@pytest.mark.parametrize("what", ["results", "timings"])
def test_fuzzed_results_are_reported_or_refused(run, capsys, what):
    draw = random.Random(what)
    path = run / f"{what}.json"
    values = json.loads(path.read_text())
    codes = set()
    for _ in range(CASES):
        written(path, mutated(values, draw), draw)
        code = one_line_or_nothing(capsys, "report", run, "-o", run.parent / "report")
        try:
            grid = GridResult.load(run)
        except ValueError:
            assert code == 2
        else:  # what cannot be compared with its recordings may be refused by the report alone
            assert as_text(accuracy_table(grid))
            assert as_text(cost_table(timings_of(grid)))
            json.loads(grid.results_json(), parse_constant=lambda name: pytest.fail(name))
        codes.add(code)
    assert codes == {0, 2}


def test_fuzzed_results_are_plotted_or_refused(run, capsys):
    draw = random.Random("plotted")
    values = json.loads((run / "results.json").read_text())
    codes = set()
    for _ in range(max(6, CASES // 100)):
        written(run / "results.json", mutated(values, draw), draw)
        codes.add(one_line_or_nothing(capsys, "plot", run, "-o", run.parent / "pictures"))
    assert codes == {0, 2}


TOML = """
data = "digits"
strategies = ["random", "cod"]
seeds = [0, 1]
preset = "long-tail/mnist"
scale = 0.5
[protocol]
initial = 50
compress = []
retrain = "continue"
[training]
learning_rate = 0.001
milestones = [2, 3]
[schedules]
prediction_stability = { last = 5, interval = 2 }
label_dispersion = "every"
[options]
coreset = { max_pairs = 1000 }
"""


def test_fuzzed_configurations_are_read_or_refused(tmp_path):
    draw = random.Random("configurations")
    (tmp_path / "a.toml").write_text(TOML)
    values = read_config(tmp_path / "a.toml")
    accepted = 0
    for _ in range(CASES):
        path = tmp_path / draw.choice(["a.toml", "a.yaml"])
        if path.suffix == ".yaml":  # JSON is YAML
            written(path, mutated(values, draw), draw)
        else:
            path.write_bytes(damaged(TOML.encode(), draw))
        try:
            config = RunConfig.from_mapping(read_config(path))
        except ValueError as error:
            assert 0 < len(str(error)) < 2000  # noqa: PT017
        else:
            accepted += 1
            assert RunConfig.from_mapping(config.to_mapping()) == config
            json.dumps(config.to_mapping(), allow_nan=False)
    assert accepted


YAML_TRAPS = [
    "preset: [a]", "preset: {a: b}", "preset: 3", "scale: x", "scale: .nan",
    "scale: .nan\npreset: long-tail/mnist", "training: {learning_rate: .nan}",
    "training: {learning_rate: .inf}", "threads: 1e6", "threads: 1000000", "threads: -1",
    "protocol: {cycles: 1000000000000}", "protocol: {pool_factor: .inf}", "seeds: [.nan]",
    "training: {epochs: 1e3}", "training: {epochs: '1e3'}", "protocol: {balanced: 1}",
    "protocol: {initial: true}", "data: 2020-99-99", "data: 2020-01-01", "? [a]\n: b", "1: 2",
    "null: 1", "strategies: &a [*a]", "options: &a {x: *a}", "a: *b", "data: !!binary '@'",
    "!!python/object:os.system {}", "[" * 600, "a: " * 3000, 'data: "\\0"',
    "seeds: [0x" + "f" * 40 + "]", "options: {coreset: {max_pairs: .nan}}", "- data", "\x00",
    "schedules: {cod: {last: .nan}}", "training: {crop_padding: 10e20}",
    "training: {crop_padding: 99999999}", "seeds: [" + "9" * 30 + "]",
]  # fmt: skip


@pytest.mark.parametrize("text", YAML_TRAPS, ids=lambda text: text[:30].replace("\x00", "null"))
def test_traps_of_configurations_are_one_line(tmp_path, capsys, text):
    (tmp_path / "run.yaml").write_text(text)
    assert one_line_or_nothing(capsys, "run", tmp_path / "run.yaml", "-o", tmp_path / "x") == 2
    assert os.listdir(tmp_path) == ["run.yaml"]


def test_an_exponent_is_a_number_in_yaml_as_in_toml(tmp_path):
    for name, text in (("a.yaml", "training: {learning_rate: 1e-3}"),
                       ("b.toml", "training = {learning_rate = 1e-3}")):  # fmt: skip
        (tmp_path / name).write_text(text)
        config = RunConfig.from_mapping(read_config(tmp_path / name))
        assert config.training.learning_rate == 0.001


def mangled(tensors, draw):
    """Return tensors of which one is replaced, reshaped, retyped or filled with other values."""
    tensors = dict(tensors)
    name = draw.choice(sorted(tensors))
    tensor = tensors[name].clone()
    kind = draw.randrange(7)
    if kind == 0:
        del tensors[name]
        return tensors
    if kind == 1:
        tensor = tensor.reshape(-1)[: tensor.numel() // 2]
    elif kind == 2:
        tensor = tensor.to(draw.choice([torch.float32, torch.int64, torch.uint8, torch.bool]))
    elif kind == 3:
        tensor = torch.full_like(tensor, draw.choice([0, 1, 3]))
    elif kind == 4 and tensor.is_floating_point():
        tensor = torch.full_like(tensor, draw.choice([math.nan, math.inf, -1e30, 1e30]))
    elif kind == 5:
        tensor = tensor[None]
    elif tensor.numel():
        tensor.reshape(-1)[draw.randrange(tensor.numel())] = draw.choice([0, 1, 200])
    tensors[name] = tensor
    return tensors


def spoiled(path, content, draw):
    """Write a changed copy of a sealed file: resealed, so that its checksum fits, or as it is."""
    if draw.random() < 0.2:
        path.write_bytes(damaged(content, draw))
        return
    path.write_bytes(content)
    checkpoint = Checkpoint.load(path)
    tensors, facts = checkpoint.tensors, checkpoint.facts
    if draw.random() < 0.5:
        tensors = mangled(tensors, draw)
    else:
        facts = mutated(facts, draw)
    try:
        Checkpoint(tensors, facts).save(path)
    except (ValueError, TypeError, UnicodeEncodeError):  # nobody could have written that
        path.write_bytes(damaged(content, draw))


def test_fuzzed_recordings_are_reported_or_refused(run, capsys):
    draw = random.Random("recordings")
    paths = sorted(run.rglob("analysis-0.safetensors"))
    codes = set()
    for _ in range(CASES // 2):
        path = draw.choice(paths)
        content = path.read_bytes()
        spoiled(path, content, draw)
        codes.add(one_line_or_nothing(capsys, "report", run, "-o", run.parent / "report"))
        path.write_bytes(content)
    assert codes == {0, 2}


def test_fuzzed_checkpoints_are_gone_on_from_or_refused(run):
    draw = random.Random("checkpoints")
    folder = Path(run) / "cod" / "seed-0"
    config = grid_config(training={"epochs": 2, "batch_size": 16})
    protocol = RunConfig.from_mapping({"protocol": {"initial": 12, "budget": 6, "cycles": 1}})
    running = ActiveLearningExperiment(
        blobs(), "mlp", "cod", protocol=protocol.protocol, training=config.training, seed=0,
        schedules={"cod": {"last": 1, "interval": 1}}, directory=folder,
    )  # fmt: skip
    whole = running.run()
    path = folder / "checkpoint.safetensors"
    content = path.read_bytes()
    refused = 0
    for _ in range(CASES // 4):
        spoiled(path, content, draw)
        try:
            running.check_resumes()
            result = running.run()
        except ValueError as error:
            assert "checkpoint.safetensors" in str(error)  # noqa: PT017
            refused += 1
        else:
            assert result.initial == whole.initial
    assert refused > CASES // 8
