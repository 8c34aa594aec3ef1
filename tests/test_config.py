"""Configurations: what files may hold, and what they are told when they are wrong."""

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


def test_every_option_says_what_it_is_for():
    import dataclasses

    for cls in (RunConfig, Protocol, Training):
        for field in dataclasses.fields(cls):
            nested = field.name in ("protocol", "training")
            assert nested or field.metadata["help"], field.name
    assert "training.learning_rate" in known_keys()
