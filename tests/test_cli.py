"""The command line in a subprocess: what it does, what it says when the input is wrong."""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dynal_fast.cli import build_parser, main

ROOT = Path(__file__).parents[1]
SMALL = ["--model", "mlp", "--threads", "1", "--seeds", "0", "--strategies", "random", "margin"]
SMALL += ["--initial", "30", "--budget", "10", "--cycles", "2", "--epochs", "3"]


def dynal_fast(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "dynal_fast", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        **options,
    )


def refused(capsys, *arguments):
    """Run in this process; return the one line on stderr of a refusal."""
    try:
        code = main([*map(str, arguments)])
    except SystemExit as exit:
        code = exit.code
    out, err = capsys.readouterr()
    assert code == 2, (code, err)
    assert out == ""
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    return err


def test_help_answers_without_torch():
    helps = ["--help"], ["run", "--help"], ["select", "--help"], ["report", "-h"], ["demo-2d", "-h"]
    for arguments in helps:
        code = f"import sys; from dynal_fast.cli import main\ntry: main({arguments})\n"
        code += "except SystemExit: pass\nassert 'torch' not in sys.modules, 'torch was imported'"
        result = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
        )
        assert result.returncode == 0, result.stderr
        assert "dynal-fast" in result.stdout


def test_the_examples_in_the_help_are_commands_that_parse():
    import shlex

    from dynal_fast import cli
    from dynal_fast.embeddings.command import EXAMPLES as SELECT_EXAMPLES
    from dynal_fast.report.command import DEMO_2D_EXAMPLES, EXAMPLES

    text = cli.RUN_EXAMPLES + SELECT_EXAMPLES + EXAMPLES + DEMO_2D_EXAMPLES
    text = text.replace("\\\n", " ")
    commands = re.findall(r"^ +dynal-fast (.+)$", text, re.MULTILINE)
    assert len(commands) == 23
    for command in commands:
        build_parser().parse_args(shlex.split(command))


def test_the_config_file_in_the_help_is_valid(tmp_path):
    from dynal_fast import cli
    from dynal_fast.experiment import RunConfig, read_config
    from dynal_fast.experiment.observation import parsed_schedules

    block = re.search(r'^  data = "digits".*?\n\n', cli.RUN_EXAMPLES, re.MULTILINE | re.DOTALL)
    (tmp_path / "run.toml").write_text(block.group())
    config = RunConfig.from_mapping(read_config(tmp_path / "run.toml"))
    assert parsed_schedules(config.schedules)


def test_run_is_killed_and_run_again_to_the_same_results(tmp_path):
    whole = dynal_fast("run", "-o", tmp_path / "whole", *SMALL)
    assert whole.returncode == 0, whole.stderr
    assert whole.stderr == ""
    assert "random" in whole.stdout
    assert "peak extra memory" in whole.stdout
    for name in ("results.json", "results.csv", "timings.json", "learning_curves.svg"):
        assert (tmp_path / "whole" / name).stat().st_size > 0

    command = [sys.executable, "-m", "dynal_fast.cli", "run", "-o", tmp_path / "killed", *SMALL]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    checkpoints = tmp_path / "killed"
    for _ in range(6000):
        if list(checkpoints.rglob("*.safetensors")) or process.poll() is not None:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (checkpoints / "results.json").exists()
    again = dynal_fast("run", "-o", tmp_path / "killed", *SMALL)
    assert again.returncode == 0, again.stderr
    for name in ("results.json", "results.csv"):
        assert (tmp_path / "whole" / name).read_bytes() == (checkpoints / name).read_bytes()

    picture = dynal_fast("plot", tmp_path / "killed", "-o", tmp_path / "pictures")
    assert picture.returncode == 0, picture.stderr
    assert (tmp_path / "pictures" / "learning_curves.svg").exists()
    assert picture.stdout.splitlines()[:5] == again.stdout.splitlines()[:5]


def test_an_interruption_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    from dynal_fast.experiment import grid

    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(grid, "run_grid", interrupt)
    assert main(["run", "-o", str(tmp_path), *SMALL]) == 130
    assert "run the same command again" in capsys.readouterr().err


def test_a_missing_package_says_how_to_get_it(monkeypatch, capsys, tmp_path):
    from dynal_fast.experiment import grid

    def fail(*arguments, **options):
        raise ModuleNotFoundError("No module named 'safetensors'")

    monkeypatch.setattr(grid, "run_grid", fail)
    assert main(["run", "-o", str(tmp_path), *SMALL]) == 1
    assert "'safetensors' (pip install 'dynal_fast[experiment]'" in capsys.readouterr().err


def test_a_full_disk_is_one_line_and_exit_code_1(tmp_path, monkeypatch, capsys):
    from dynal_fast.experiment import grid

    def fail(*arguments, **options):
        raise OSError(28, "cannot write x: No space left on device")

    monkeypatch.setattr(grid, "run_grid", fail)
    assert main(["run", "-o", str(tmp_path), *SMALL]) == 1
    err = capsys.readouterr().err
    assert "No space left on device" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "arguments are required: -o/--output"),
        (["run", "-o", "x", "--epochs", "many"], "--epochs: invalid int value: 'many'"),
        (["run", "-o", "x", "--epochs", "0"], "epochs must be at least 1, got 0"),
        (["run", "-o", "x", "--optimizer", "lbfgs"], "invalid choice: 'lbfgs'"),
        (["run", "-o", "x", "--strategies", "rnd"], "unknown strategy 'rnd'; known: random"),
        (["run", "-o", "x", "--strategies"], "strategies must be a list of at least one name"),
        (["run", "-o", "x", "--data", "imagenet"], "got 'imagenet'"),
        (["run", "-o", "x", "--data", "mnist"], "mnist needs"),
        (["run", "-o", "x", "--data", "mnist", "--data-root", "/nowhere"], "/nowhere"),
        (["run", "-o", "x", "--model", "transformer"], "got 'transformer'"),
        (["run", "-o", "x", "--device", "abacus"], "abacus"),
        (["run", "-o", "x", "--device", "meta"], "device 'meta' cannot be used"),
        (["run", "-o", "x", "--data-root", "y"], "digits does not take root"),
        (["run", "-o", "x", "--initial", "2000"], "at most the 1297 samples, got 2100"),
        (["run", "-o", "x", "missing.toml"], "config file missing.toml: No such file"),
        (["plot", "/nowhere"], "/nowhere holds no finished results"),
        (["fly"], "invalid choice: 'fly'"),
        ([], "required: COMMAND"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, *arguments)
    assert os.listdir(tmp_path) == []


def test_an_unknown_key_of_a_config_file_is_named(tmp_path, capsys):
    (tmp_path / "run.toml").write_text("[training]\nepoch = 3\n")
    line = refused(capsys, "run", tmp_path / "run.toml", "-o", tmp_path / "x")
    assert "unknown key 'training.epoch'; did you mean 'training.epochs'?" in line


def test_options_win_over_the_file(tmp_path, monkeypatch):
    from dynal_fast import cli

    (tmp_path / "run.yaml").write_text("seeds: [7]\ntraining: {epochs: 3, gamma: 0.5}\n")
    given = []
    monkeypatch.setattr(cli, "_run_config", lambda config, folder, quiet: given.append(config))
    options = ["--epochs", "4", "--no-reference", "--milestones", "2", "3", "--retrain", "continue"]
    assert main(["run", str(tmp_path / "run.yaml"), "-o", str(tmp_path), *options]) == 0
    (config,) = given
    assert config.seeds == [7]
    assert (config.training.epochs, config.training.gamma) == (4, 0.5)
    assert config.training.milestones == [2, 3]
    assert config.reference is False
    assert config.protocol.retrain == "continue"


def test_a_run_of_another_configuration_is_refused(tmp_path, capsys):
    assert main(["run", "-o", str(tmp_path), *SMALL, "--quiet"]) == 0
    capsys.readouterr()
    line = refused(capsys, "run", "-o", tmp_path, *SMALL, "--epochs", "4")
    assert "belongs to a different configuration: training.epochs is 3 there and 4 here" in line


def test_strategies_lists_every_one_with_what_it_does(capsys):
    assert main(["strategies"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line.split()[0] for line in lines]
    assert {"random", "cod", "label_dispersion", "farthest_first", "bald"} <= set(names)
    assert "least_confidence" in names
    assert names[-1] == "NAME+farthest_first"
    assert "options: shortlist=10" in lines[-1]
    assert "options: outliers=0.0001, max_pairs=200000" in lines[names.index("coreset")]
    assert all(len(line.split()) > 3 for line in lines)
    assert all(a != b for a, b in itertools.combinations(names, 2))


def test_options_of_a_strategy_reach_it(tmp_path):
    (tmp_path / "run.toml").write_text("[options]\ncoreset = { max_pairs = 0, node_limit = 7 }\n")
    command = ["run", str(tmp_path / "run.toml"), "-q", *SMALL, "--no-reference"]
    command[command.index("random")] = "coreset"
    assert main([*command, "-o", str(tmp_path / "a")]) == 0
    assert main([*command, "-o", str(tmp_path / "b"), "--option", "coreset.max_pairs=1e6"]) == 0
    for name, pairs, stopped in (("a", 0, "max_pairs"), ("b", 1e6, "optimal")):
        results = json.loads((tmp_path / name / "results.json").read_text())
        chosen = {"coreset": {"max_pairs": pairs, "node_limit": 7}}
        assert results["configuration"]["options"] == chosen
        report = results["runs"][0]["cycles"][0]["report"]
        assert report["stopped"] == stopped
        assert 0 < report["lower_bound"] <= report["radius"] <= report["greedy_radius"]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("coreset", "expected STRATEGY.NAME=NUMBER, such as coreset.time_limit=60, got 'coreset'"),
        ("coreset.pairs=3", "coreset has no option 'pairs'; it has: outliers, max_pairs, node_l"),
        ("coreset.max_pairs=0.5", "coreset.max_pairs must be an integer, got 0.5"),
        ("margin.factor=1", "margin has no option 'factor'; it has: none"),
        ("cod.factor=1", "options names 'cod', which is not among strategies"),
    ],
)
def test_wrong_options_of_a_strategy_are_refused(tmp_path, capsys, option, message):
    strategies = ["--strategies", "coreset", "margin"]
    err = refused(capsys, "run", "-q", "-o", tmp_path / "x", *strategies, "--option", option)
    assert message in err
    assert not (tmp_path / "x").exists()


def test_info_and_version_answer():
    for arguments in (["info"], ["--version"]):
        result = dynal_fast(*arguments)
        assert result.returncode == 0, result.stderr
        assert "dynal" in result.stdout


def test_debug_shows_the_traceback():
    result = dynal_fast("--debug", "plot", "/nowhere")
    assert result.returncode == 1
    assert "Traceback" in result.stderr


def test_a_reader_that_stops_early_is_no_error():
    command = f"{sys.executable} -m dynal_fast.cli strategies | head -n 1"
    run = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert run.stdout.startswith("random")
    assert run.stderr == ""
