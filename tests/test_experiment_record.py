"""Records of finished experiments, and the tables that are made from them."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from benchmarks.pages import claims
from benchmarks.pages import experiments as page
from benchmarks.pages.experiment_record import (
    PORTIONS,
    ExperimentRecord,
    RunRecord,
    command_of,
    make_record,
)
from dynal_fast.cli import build_parser
from dynal_fast.experiment import RunConfig
from dynal_fast.experiment.analysis import recorded
from dynal_fast.experiment.grid import run_grid
from dynal_fast.experiment.tables import merge_tables
from tests.cases.experiment import blobs, grid_config

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    config = grid_config(strategies=["random", "entropy"], analysis=True)
    return folder, run_grid(config, folder, data=blobs())


def test_a_record_holds_what_the_run_gave(finished, tmp_path):
    folder, grid = finished
    record = make_record(folder, "blobs", blobs().oracle)
    path = tmp_path / "blobs.json"
    record.save(path)
    assert ExperimentRecord.load(path) == record
    assert [run.accuracies for run in record.runs] == [run.accuracies for run in grid.runs]
    labels = blobs().oracle.label(torch.arange(150))
    for run, kept in zip(grid.runs, record.runs, strict=True):
        arrays = recorded(folder / run.strategy / f"seed-{run.seed}")
        for cycle, found in arrays.items():
            picked = np.isin(found["ids"], found["picks"])
            assert kept.picked_correct[cycle] == pytest.approx(
                float(found["correct"][torch.from_numpy(picked)].float().mean()), abs=1e-4
            )
            shares = labels[found["picks"]].bincount().double() / len(found["picks"])
            entropy = -sum(share * math.log(share) for share in shares.tolist() if share)
            assert kept.picked_classes[cycle] == pytest.approx(math.exp(entropy), abs=0.01)
        assert len(kept.picked_classes) == len(arrays)
        relative = []
        for found in arrays.values() if run.strategy == "entropy" else ():
            highest = found["score.entropy"].argsort(descending=True)
            part = np.array_split(found["loss"][highest].numpy(), 20)[0]
            relative.append(part.mean() / float(found["loss"].mean()))
        assert kept.relative_loss == pytest.approx(relative, abs=1e-4)
        assert len(kept.informativeness) == (len(PORTIONS) if run.strategy == "entropy" else 0)


def test_a_record_says_which_runs_are_missing(finished, tmp_path):
    folder, grid = finished
    kept = [run for run in grid.runs if (run.strategy, run.seed) != ("entropy", 1)]
    dataclasses.replace(grid, runs=kept).save(tmp_path)
    record = make_record(tmp_path, "mnist-small", blobs().oracle)
    assert record.missing == ["entropy, 1"]
    assert "Not finished (strategy, seed): entropy, 1.\n" in page.record_table(record, "", "")
    assert make_record(folder, "blobs", blobs().oracle).missing == []


def test_a_record_names_no_folder_of_the_machine(finished):
    folder, grid = finished
    config = grid.configuration | {"data_root": str(folder), "data_cache": str(folder)}
    command, _ = command_of(config, "blobs")
    assert str(folder) not in command
    assert "--data-root DIR" in command


def test_the_command_gives_the_configuration_back():
    config = RunConfig.from_mapping(
        {
            "data": "mnist",
            "data_root": "DIR",
            "seeds": [4, 5],
            "reference": False,
            "protocol": {"balanced": True, "budget": 7},
            "training": {"epochs": 3, "milestones": [1, 2]},
            "schedules": {"prediction_stability": {"last": 5, "interval": 8}},
            "options": {"coreset": {"outliers": 0.25, "max_pairs": 1_000_000}},
        }
    )
    command, config_file = command_of(config.to_mapping(), "x")
    words = command.split()[1:]
    assert words[1] == "x.toml"
    values: dict = {}
    for name, value in vars(build_parser().parse_args(words)).items():
        table, dot, key = name.partition(".")
        if dot:
            values = merge_tables(values, {table: {key: value}} if table else {key: value})
    values["schedules"] = {"prediction_stability": {"last": 5, "interval": 8}}
    for given in build_parser().parse_args(words).option:
        values = merge_tables(values, {"options": given})
    assert RunConfig.from_mapping(values) == config
    assert config_file == "[schedules]\nprediction_stability = { last = 5, interval = 8 }"


def test_the_command_of_a_preset_names_it_and_what_departs_from_it():
    files = {"data_root": "a/texts.csv", "embeddings": "a/b.npy"}
    given = {"preset": "from-1000/texts-linear", "reference": False, "threads": 1, **files}
    command, config_file = command_of(RunConfig.from_mapping(given).to_mapping(), "x")
    assert command == (
        "dynal-fast run -o runs/x --preset from-1000/texts-linear --data-root texts.csv "
        "--embeddings b.npy --no-reference --threads 1"
    )
    assert config_file == ""
    given |= {"seeds": [3], "schedules": {"prediction_stability": {"last": 3, "interval": 2}}}
    command, config_file = command_of(RunConfig.from_mapping(given).to_mapping(), "x")
    assert "x.toml" in command
    assert "--seeds 3" in command
    assert config_file == "[schedules]\nprediction_stability = { last = 3, interval = 2 }"


def test_another_file_is_no_record(tmp_path):
    path = tmp_path / "other.json"
    path.write_text(json.dumps({"schema": "other"}))
    with pytest.raises(ValueError, match=r"other.json is not an experiment record: schema must be"):
        ExperimentRecord.load(path)


def records_of(**accuracies):
    """Strategy → accuracies of each seed, as the record that the claims about MNIST look at."""
    runs = [
        RunRecord(name, seed, [10, 20, 30], values, [2.0, 3.0], [0.5, 0.25], [], [])
        for name, seeds in accuracies.items()
        for seed, values in enumerate(seeds)
    ]
    environment = {"cpu": "x", "threads": 1, "torch": "2"}
    command = "dynal-fast run --model mlp --initial 100 --epochs 7"
    return {page.SMALL: ExperimentRecord(page.SMALL, command, "", "abc", environment, runs)}


def test_differences_are_taken_seed_by_seed():
    records = records_of(
        cod=[[0.1, 0.2, 0.4], [0.9, 0.5, 0.7], [1, 1, 1]], random=[[0, 0.1, 0.1], [0, 0.4, 0.9]]
    )
    pair = (page.SMALL, "cod"), (page.SMALL, "random")
    over_the_curve = claims.difference(records, *pair, claims.after_the_first)
    assert over_the_curve.values == pytest.approx([20, -5])
    assert claims.difference(records, *pair, claims.at_the_end).values == pytest.approx([30, -20])
    assert claims.difference(records, pair[0], ("other", "random"), claims.at_the_end) is None
    low, high = over_the_curve.interval
    table = claims.claims_table(records)
    assert f"| +7.50 ({low:+.2f} to {high:+.2f}) | +5.00 (" in table
    assert table.endswith("| undecided |")
    lines = claims.differences_table(records, page.SMALL).splitlines()
    assert len(lines) == 3
    assert lines[2].startswith("| `cod` | 1 of 2 | +7.50 (")


def test_a_statement_without_records_is_left_out():
    table = claims.claims_table(
        records_of(
            margin=[[0.1, 0.5, 0.5], [0.1, 0.6, 0.51]], random=[[0.1, 0.2, 0.6], [0.1, 0.3, 0.6]]
        )
    )
    assert table.count("\n") == 2
    assert "| over the curve yes; at the end no: the reverse |" in table


def test_one_seed_decides_nothing():
    table = claims.claims_table(records_of(cod=[[0.1, 0.5, 0.5]], random=[[0.1, 0.2, 0.4]]))
    assert "| undecided: one seed |" in table


def test_statements_are_tried_in_every_setting_that_is_recorded():
    seeds = [[0.5, 0.5 + seed / 1000, 0.6 + seed / 500] for seed in range(5)]
    better = [[first, second + 0.1, last + 0.2] for first, second, last in seeds]
    some = records_of(random=seeds, cod=better)[page.SMALL]
    name, variant = "from-1000-texts-linear", "from-1000-texts-linear-continue"
    table = claims.protocol_table({name: some, variant: records_of(random=seeds)[page.SMALL]})
    header, _, *lines = table.splitlines()
    assert header == "| statement | where | texts, linear head |"
    assert len(lines) == 1
    assert lines[0].startswith("| `cod` is better than random | ")
    for seed, run in some.of("cod").items():
        run.accuracies = [0.5, 0.6 + seed / 500, 0.8]
    (line,) = claims.protocol_table({name: some}).splitlines()[2:]
    assert line.endswith("): yes |")


def test_tables_of_scores_give_the_spread_over_seeds():
    record = records_of(cod=[[0.1]] * 3, random=[[0.1]])[page.SMALL]
    right, classes, first, last = ([0.5, 0.7, 0.9], [2.0, 3.0, 4.0], [2.0, 3.0, 4.0], [1, 1, 1])
    for run, *values in zip(record.runs, right, classes, first, last, strict=False):
        run.picked_correct = [values[0], 0.25]
        run.picked_classes = [values[1], 3.0]
        run.informativeness = [values[0]] * len(PORTIONS)
        run.relative_loss = [values[2], values[3]]
        run.picked_by_chance = [0.25, 0.75] if run.strategy == "cod" else []
    informativeness = page.informativeness_table(record).splitlines()
    assert informativeness[0].startswith("| score | 1% | 2% | 5% |")
    assert informativeness[2:] == ["| `cod` | " + " | ".join(["70.0 ± 20.0"] * 7) + " |"]
    assert page.losses_table(record).splitlines() == [
        "| score | selection 1 | selection 2 |",
        "| --- | --- | --- |",
        "| `cod` | 3.00 ± 1.00 | 1.00 ± 0.00 |",
    ]
    picks = page.picks_table({page.SMALL: record}, [page.SMALL]).splitlines()
    assert picks[2:] == [
        "| `cod` | 70 ± 20 | 25 ± 0 | 3.0 ± 1.0 | 3.0 ± 0.0 | 50 |",
        "| `random` | 50 | 25 | 2.0 | 3.0 |  |",
    ]


def test_the_share_that_chance_picked_is_that_of_the_ties_at_the_lowest_pick(tmp_path):
    config = grid_config(strategies=["label_dispersion", "random"], seeds=[0], analysis=True)
    run_grid(config, tmp_path, data=blobs())
    record = make_record(tmp_path, "blobs", blobs().oracle)
    (kept,) = record.of("label_dispersion").values()
    expected = []
    for arrays in recorded(tmp_path / "label_dispersion" / "seed-0").values():
        scores = dict(
            zip(arrays["ids"].tolist(), arrays["score.label_dispersion"].tolist(), strict=True)
        )
        chosen = [scores[i] for i in arrays["picks"].tolist()]
        at_the_cut = chosen.count(min(chosen))
        tied = list(scores.values()).count(min(chosen))
        expected.append(at_the_cut / len(chosen) if tied > at_the_cut else 0.0)
    assert kept.picked_by_chance == pytest.approx(expected, abs=1e-4)
    assert max(expected) > 0
    assert page.picked_by_chance([kept]) == pytest.approx(100 * np.mean(expected), abs=0.01)
    (random,) = record.of("random").values()
    assert random.picked_by_chance == []


def test_samples_without_a_score_are_left_out(tmp_path):
    protocol = {"initial": 12, "budget": 6, "cycles": 1, "subset": 40}
    config = grid_config(
        strategies=["query_by_committee"], seeds=[0], analysis=True, reference=False,
        protocol=protocol,
    )  # fmt: skip
    run_grid(config, tmp_path, data=blobs())
    (kept,) = make_record(tmp_path, "blobs", blobs().oracle).runs
    (arrays,) = recorded(tmp_path / "query_by_committee" / "seed-0").values()
    seen = arrays["score.vote_entropy"].isfinite()
    assert int(seen.sum()) == 40
    right = float(arrays["correct"][seen].float().mean())
    assert kept.informativeness[-1] == pytest.approx(right, abs=1e-4)
    assert len(kept.relative_loss) == 1
    assert math.isfinite(kept.relative_loss[0])
