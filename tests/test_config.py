"""Configurations: what files may hold, and what they are told when they are wrong."""

import math

import numpy as np
import pytest

from dynal_fast.experiment import Protocol, RunConfig, Training, read_config
from dynal_fast.experiment.config import known_keys

TOML = """
data = "digits"
strategies = ["random", "cod"]
[protocol]
initial = 50
retrain = "continue"
[training]
learning_rate = 1
[schedules]
prediction_stability = { last = 5, interval = 2 }
label_dispersion = "every"
"""
YAML = """
data: digits
strategies: [random, cod]
protocol: {initial: 50, retrain: continue}
training: {learning_rate: 1}
schedules:
  prediction_stability: {last: 5, interval: 2}
  label_dispersion: every
"""


@pytest.mark.parametrize(("ending", "text"), [("toml", TOML), ("yaml", YAML), ("yml", YAML)])
def test_files_of_both_formats_mean_the_same(tmp_path, ending, text):
    path = tmp_path / f"run.{ending}"
    path.write_text(text)
    config = RunConfig.from_mapping(read_config(path))
    assert config.strategies == ["random", "cod"]
    assert config.protocol == Protocol(initial=50, retrain="continue")
    assert config.training == Training(learning_rate=1.0)
    assert config.schedules["prediction_stability"] == {"last": 5, "interval": 2}
    assert config.schedules["label_dispersion"] == "every"


def test_a_configuration_survives_the_round_trip():
    config = RunConfig.from_mapping({"seeds": [4], "training": {"milestones": [2, 3]}})
    assert RunConfig.from_mapping(config.to_mapping()) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"strategy": ["random"]}, "unknown key 'strategy'; did you mean 'strategies'"),
        ({"training": {"lerning_rate": 0.1}}, "did you mean 'training.learning_rate'"),
        ({"qqqqqqqq": 1}, "unknown key 'qqqqqqqq'; known keys: data"),
        ({"training": {"epochs": "3"}}, "training.epochs must be an integer, got '3'"),
        ({"training": {"epochs": True}}, "training.epochs must be an integer, got True"),
        ({"training": {"epochs": 0}}, "epochs must be at least 1, got 0"),
        ({"training": {"optimizer": "rmsprop"}}, "training.optimizer must be 'sgd' or 'adam'"),
        ({"training": {"learning_rate": -1}}, "learning_rate must be positive, got -1.0"),
        ({"training": {"milestones": [0]}}, "milestones must be epochs"),
        ({"training": 3}, "training must be a table, got 3"),
        ({"strategies": "random"}, "strategies must be a list of str, got 'random'"),
        ({"strategies": []}, "strategies must be a list of at least one name"),
        ({"strategies": ["random", "random"]}, "strategies must be distinct names"),
        ({"seeds": [0, 0]}, "seeds must be distinct"),
        ({"seeds": [-1]}, "seeds must be distinct numbers of at least 0"),
        ({"seeds": [0, "1"]}, r"seeds\[1\] must be an integer, got '1'"),
        ({"protocol": {"initial": 0}}, "initial must be at least 1, got 0"),
        ({"protocol": {"retrain": "warm"}}, "protocol.retrain must be 'scratch' or 'continue'"),
        (
            {"protocol": {"cycles": 10**9}},
            "protocol.cycles must be at most 100,000, got",
        ),
        ({"protocol": {"pool_factor": math.inf}}, "pool_factor must be a finite number, got inf"),
        ({"protocol": {"error_reduction": math.nan}}, "error_reduction must be a finite number"),
        ({"protocol": {"compress": [math.nan]}}, r"compress\[0\] must be a finite number"),
        ({"protocol": {"balanced": 1}}, "protocol.balanced must be true or false, got 1"),
        ({"training": {"learning_rate": math.nan}}, "learning_rate must be a finite number"),
        ({"training": {"learning_rate": "1e-3"}}, "learning_rate must be a number, got '1e-3'"),
        ({"training": {"learning_rate": 10**400}}, "learning_rate must be a finite number"),
        ({"training": {"epochs": 1e3}}, r"training.epochs must be an integer, got 1000.0"),
        ({"training": {"epochs": 10**30}}, "training.epochs must be an integer of 64 bits"),
        ({"training": {"epochs": 10**15}}, "training.epochs must be at most 1,000,000,000,000"),
        ({"training": {"crop_padding": 10**6}}, "training.crop_padding must be at most 10,000"),
        ({"threads": 1_000_000}, "threads must be at most "),
        ({"threads": -1}, "threads must be at least 0, got -1"),
        ({"seeds": [2**64]}, r"seeds\[0\] must be an integer of 64 bits"),
        ({"options": {"coreset": {"max_pairs": math.nan}}}, "max_pairs must be a finite number"),
        ({"schedules": {"cod": {"last": math.inf}}}, "schedules.cod.last must be a finite number"),
        ({"image_size": [0, 3]}, r"image_size\[0\] must be at least 1, got 0"),
        ({"preset": ["a"]}, r"preset must be text, got \['a'\]"),
        ({"preset": "long-tail/mnist", "scale": math.nan}, "scale must be a finite number"),
        ({"preset": "long-tail/mnist", "scale": "a"}, "scale must be a number, got 'a'"),
        ({"data": "a\0b"}, "data must be text without control characters"),
        ({"data": "\ud800"}, "data must be text that UTF-8 has"),
        ({1: 2}, "1 must be text, as every key"),
        ({"schedules": {"cod": 3}}, "schedules.cod must be a name or a table, got 3"),
    ],
)
def test_what_is_wrong_is_named(values, message):
    with pytest.raises(ValueError, match=message):
        RunConfig.from_mapping(values)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.toml", "data = ", "a.toml: Invalid value"),
        ("a.yaml", "data: [", "a.yaml: while parsing"),
        ("a.yaml", "- data", "expected a table of options"),
        ("a.json", "{}", "expected a .toml, .yaml or .yml file"),
        ("a.toml", None, "No such file"),
    ],
)
def test_an_unreadable_file_is_named(tmp_path, name, text, message):
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_config(path)


def test_the_api_checks_as_the_files_do():
    for make, message in (
        (lambda: Protocol(initial=True), "initial must be an integer, got True"),
        (lambda: Protocol(initial=3.5), r"initial must be an integer, got 3.5"),
        (lambda: Protocol(pool_factor=math.inf), "pool_factor must be a finite number, got inf"),
        (lambda: Training(learning_rate=math.nan), "learning_rate must be a finite number"),
        (lambda: Training(optimizer="rmsprop"), "optimizer must be 'sgd' or 'adam', got 'rmsprop'"),
        (lambda: Training(horizontal_flip="no"), "horizontal_flip must be true or false"),
        (lambda: RunConfig(strategies="cod"), "strategies must be a list of str, got 'cod'"),
        (lambda: RunConfig(seeds=[0.0]), r"seeds\[0\] must be an integer, got 0.0"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    given = Protocol(initial=np.int64(7), pool_factor=np.float32(1.5), compress=())
    assert (given.initial, given.pool_factor, given.compress) == (7, 1.5, [])
    assert type(given.initial) is int


def test_a_long_value_is_cut_short_in_its_message():
    with pytest.raises(ValueError, match="data must be text") as error:
        RunConfig.from_mapping({"data": [["x" * 10_000] * 1000] * 1000})
    assert len(str(error.value)) < 2000


@pytest.mark.parametrize(
    "option",
    [
        "--learning-rate nan", "--pool-factor inf", "--threads 1000000", "--epochs 1e3",
        "--epochs 0", "--budget -1", "--cycles 1000000000", "--option coreset.max_pairs=nan",
        "--gamma=-inf",
    ],
)  # fmt: skip
def test_numbers_of_the_command_line_are_refused_in_one_line(tmp_path, capsys, option):
    from dynal_fast.cli import main

    try:
        code = main(["run", "-o", str(tmp_path / "x"), *option.split()])
    except SystemExit as exit:
        code = exit.code
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert option.replace("=", " ").split()[0].removeprefix("--").replace("-", "_") in err.replace(
        "-", "_"
    )
    assert not (tmp_path / "x").exists()


def test_every_option_says_what_it_is_for():
    import dataclasses

    for cls in (RunConfig, Protocol, Training):
        for field in dataclasses.fields(cls):
            nested = field.name in ("protocol", "training")
            assert nested or field.metadata["help"], field.name
    assert "training.learning_rate" in known_keys()
