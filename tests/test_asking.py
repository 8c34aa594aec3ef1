"""A person as the oracle: cycles that end with a request and go on when it is answered."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dynal_fast import PoolStats
from dynal_fast.cli import main
from dynal_fast.experiment import (
    ActiveLearningExperiment,
    AskingOracle,
    ExperimentData,
    Protocol,
    RunConfig,
    SampleSet,
    Training,
    run_grid,
)
from dynal_fast.report.write import write_report
from tests.cases.asking import (
    CLASSES,
    asked,
    asking_config,
    exported,
    files_of,
    fill_in,
    truth,
    write_texts,
)
from tests.cases.experiment import blobs

pytestmark = pytest.mark.usefixtures("one_thread")


def command(options, run, *more):
    """Return the arguments of the command line for the options of a run."""
    words = ["run", "-q", "-o", str(run), "--oracle", "ask", "--threads", "1"]
    for name, value in options.items():
        values = value if isinstance(value, list) else [value]
        words += [f"--{name.replace('_', '-')}", *values]
    words += ["--initial", "6", "--budget", "4", "--cycles", "2", "--epochs", "3"]
    return [*words, *more]


def test_two_cycles_from_nothing_by_the_command_line(tmp_path, capsys):
    """The first request is random, the others are the strategy's; the same command goes on."""
    run = tmp_path / "run"
    same = command(write_texts(tmp_path, tested=9), run)

    assert main(same) == 0
    said = capsys.readouterr().out
    assert said.startswith("Labels of 6 samples are needed for the first training.\n")
    assert str(run / "to_label.csv") in said
    assert said.endswith("Then run the same command again.\n")
    assert {row["predicted"] for row in asked(run)} == {""}
    assert not (run / "results.json").exists()

    before = files_of(run)
    assert main(same) == 3
    said = capsys.readouterr().out
    assert said.startswith("Waiting for 6 of 6 labels for the first training, of 't")
    assert "Nothing was changed." in said
    assert files_of(run) == before

    picked = []
    for cycle in range(3):
        rows = asked(run)
        assert all(row["label"] == "" for row in rows)
        assert [row["rank"] for row in rows] == [str(i + 1) for i in range(len(rows))]
        picked += fill_in(run, ends="\r\n" if cycle else "\n")
        assert main(same) == 0
        said = capsys.readouterr().out
        if cycle < 2:
            assert f"Labels of 4 samples are needed for the training of cycle {cycle + 1}" in said
            assert "Test accuracy (%)" in said
            rows = asked(run)
            assert {row["predicted"] for row in rows} <= set(CLASSES)
            assert all(0 < float(row["probability"]) <= 1 for row in rows)
            scores = [float(row["score"]) for row in rows]
            assert scores == sorted(scores, reverse=True)
            assert rows[0]["text"].startswith('Text "')
    assert "are needed" not in said
    assert len(set(picked)) == 14

    results = json.loads((run / "results.json").read_text())
    (result,) = results["runs"]
    assert [cycle["labeled"] for cycle in result["cycles"]] == [6, 10, 14]
    assert all(0 <= cycle["accuracy"] <= 1 for cycle in result["cycles"])
    names = [line.split(",")[1] for line in (run / "samples.csv").read_text().splitlines()[1:]]
    ids = result["initial"] + [i for cycle in result["cycles"] for i in cycle["selected"]]
    assert [names[i] for i in ids] == picked
    record = (run / "labels.csv").read_text(encoding="utf-8-sig")
    assert [line.rsplit(",", 1)[1] for line in record.splitlines()[1:]] == list("00000011112222")

    after = files_of(run)
    assert main(same) == 0  # finished: nothing is trained again
    assert {n: c for n, c in files_of(run).items() if not n.startswith("learning")} == {
        n: c for n, c in after.items() if not n.startswith("learning")
    }
    page = write_report([run], tmp_path / "report").read_text()
    assert "14" in page
    assert "--reference" not in page


def test_labels_that_are_there_are_the_initial_set_and_there_need_be_no_hold_out(tmp_path, capsys):
    run = tmp_path / "run"
    same = command(write_texts(tmp_path, labeled=9), run)
    assert main(same) == 0
    said = capsys.readouterr().out
    assert "Training loss by number of labeled samples; there is no hold-out" in said
    assert "Labels of 4 samples are needed for the training of cycle 1" in said
    (result,) = json.loads((run / "results.json").read_text())["runs"]
    assert result["initial"] == list(range(9))
    assert result["cycles"][0]["accuracy"] is None
    assert ",,".join(["margin,0,0,9", ""])[:13] in (run / "results.csv").read_text()
    page = write_report([run], tmp_path / "report").read_text()
    assert "There was no labeled hold-out" in page
    assert main(["plot", str(run)]) == 0


def test_a_request_that_is_partly_answered_is_refused_with_the_missing_ones(tmp_path):
    config = asking_config(write_texts(tmp_path, labeled=9))
    grid = run_grid(config, tmp_path / "run")
    assert grid.awaited.new
    assert (
        grid.awaited.missing
        == grid.awaited.asked
        == tuple(row["text_id"] for row in asked(tmp_path / "run"))
    )
    filled = fill_in(tmp_path / "run", count=3)
    before = files_of(tmp_path / "run")
    grid = run_grid(config, tmp_path / "run")
    (last,) = grid.awaited.missing
    assert last not in filled
    assert not grid.awaited.new
    assert f"Waiting for 1 of 4 labels for the training of cycle 1, of '{last}'." in (
        grid.awaited.message()
    )
    assert files_of(tmp_path / "run") == before


@pytest.mark.parametrize("form", ["JSON", "JSON-MIN", "CSV"])
def test_what_label_studio_exports_is_an_answer(tmp_path, form):
    """By hand and by each export, the runs are the same."""
    config = asking_config(write_texts(tmp_path, labeled=9, tested=6))
    runs = {}
    for way in ("hand", "export"):
        run = tmp_path / way
        for _ in range(2):
            run_grid(config, run)
            tasks = exported(run)
            if way == "hand":
                fill_in(run)
                continue
            answers = run / "answers"
            for old in answers.iterdir():
                old.unlink()
            least = [
                task["data"] | {"id": task["id"], "label": truth(task["data"]["text_id"])}
                for task in tasks
            ]
            if form == "JSON":
                (answers / "project-1.json").write_text(json.dumps(tasks))
            elif form == "JSON-MIN":
                (answers / "project-1-min.json").write_text(json.dumps(least, ensure_ascii=False))
            else:
                import pandas

                pandas.DataFrame.from_records(least).to_csv(answers / "project.csv", index=False)
        runs[way] = run_grid(config, run)
        assert runs[way].awaited is None
    assert runs["hand"].results_json() == runs["export"].results_json()


def test_tasks_show_predictions_and_the_interface_fits_them(tmp_path):
    from xml.etree import ElementTree

    config = asking_config(write_texts(tmp_path, labeled=9))
    run_grid(config, tmp_path / "run")
    rows = asked(tmp_path / "run")
    tasks = json.loads((tmp_path / "run" / "label_studio_tasks.json").read_text())
    assert [task["data"]["text_id"] for task in tasks] == [row["text_id"] for row in rows]
    interface = ElementTree.parse(tmp_path / "run" / "label_studio_config.xml").getroot()
    choices = interface.find("Choices")
    assert [choice.get("value") for choice in choices] == list(CLASSES)
    text = interface.find("Text")
    for task, row in zip(tasks, rows, strict=True):
        (prediction,) = task["predictions"]
        assert f"{prediction['score']:.4f}" == row["probability"]
        (result,) = prediction["result"]
        assert result["from_name"] == choices.get("name")
        assert result["to_name"] == choices.get("toName") == text.get("name")
        assert result["value"]["choices"] == [row["predicted"]]
        assert text.get("value").removeprefix("$") in task["data"]


def test_a_request_answered_beforehand_is_not_asked_for(tmp_path):
    """With all labels in the answers, which only those asked for are taken from, one call does."""
    options = write_texts(tmp_path, labeled=9)
    run_grid(asking_config(options), tmp_path / "run")
    lines = [f't{i},"{truth(f"t{i}")}"'.replace('go"od', 'go""od') for i in range(40)]
    (tmp_path / "run" / "answers" / "all.csv").write_text("\n".join(["text_id,label", *lines]))
    grid = run_grid(asking_config(options), tmp_path / "run")
    assert grid.awaited is None
    assert grid.runs[0].labeled == [9, 13, 17]
    record = (tmp_path / "run" / "labels.csv").read_text(encoding="utf-8-sig")
    assert len(record.splitlines()) == 18


def test_a_new_run_begins_with_the_labels_of_another(tmp_path):
    options = write_texts(tmp_path, labeled=9)
    run_grid(asking_config(options), tmp_path / "run")
    fill_in(tmp_path / "run")
    run_grid(asking_config(options), tmp_path / "run")
    given = {"labels": [str(tmp_path / "run" / "labels.csv")]}
    grid = run_grid(asking_config(options, **given), tmp_path / "other")
    assert grid.runs[0].labeled == [13]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text_id,label\nt99,só-so\n", r"line 2: no text is called 't99'"),
        ("text_id,label\nt30,Só-so\n", r"no class is called 'Só-so'; did you mean 'só-so'\?"),
        ("text_id,label\nt30,x\n", "no class is called 'x'; the classes: "),
        ('text_id,label\nt30,só-so\nt30,"bad, very"\n', "t30 is labeled twice: 'só-so' in .*2"),
        ("text_id,label\nt0,só-so\n", "t0 is labeled twice: 'bad, very' in the data, .*, and"),
        ("name,label\nt30,só-so\n", "has no column of samples: it should be called 'text_id'"),
        ("text_id,name\nt30,só-so\n", "has no column of labels: it should be called 'label'"),
        ("text_id,label\nt30,só-so,x\n", "line 2: 3 fields, the header has 2"),
        ('text_id,label\nt30,"só-so\n', "unexpected end of data"),
        ("", "holds no table"),
    ],
)
def test_wrong_answers_are_refused_and_change_nothing(tmp_path, capsys, content, message):
    options = write_texts(tmp_path, labeled=9)
    run = tmp_path / "run"
    run_grid(asking_config(options), run)
    fill_in(run)
    (run / "answers" / "wrong.csv").write_text(content, encoding="utf-8")
    before = files_of(run)
    with pytest.raises(ValueError, match=message):
        run_grid(asking_config(options), run)
    assert files_of(run) == before


def test_a_label_that_contradicts_an_earlier_one_is_refused_until_both_agree(tmp_path):
    options, run = write_texts(tmp_path, labeled=9), tmp_path / "run"
    run_grid(asking_config(options), run)
    name, *_ = fill_in(run)
    run_grid(asking_config(options), run)
    fill_in(run)
    other = next(each for each in CLASSES if each != truth(name))
    (run / "answers" / "later.json").write_text(json.dumps([{"text_id": name, "label": other}]))
    with pytest.raises(ValueError, match=rf"{name} is labeled twice: .* in .*labels\.csv, line"):
        run_grid(asking_config(options), run)
    import csv
    import io

    text = (run / "labels.csv").read_text(encoding="utf-8-sig")
    rows = list(csv.reader(io.StringIO(text, newline="")))
    corrected = io.StringIO()
    csv.writer(corrected).writerows(
        [[row[0], other, row[2]] if row[0] == name else row for row in rows]
    )
    (run / "labels.csv").write_text(corrected.getvalue(), encoding="utf-8-sig")
    assert run_grid(asking_config(options), run).awaited is None


def test_labels_for_others_than_those_asked_for_are_not_lost(tmp_path):
    """Somebody writes more rows into the request: the next request keeps them."""
    options, run = write_texts(tmp_path, labeled=9), tmp_path / "run"
    run_grid(asking_config(options), run)
    fill_in(run)
    names = {row["text_id"] for row in asked(run)}
    more = next(f"t{i}" for i in range(39, 8, -1) if f"t{i}" not in names)
    with open(run / "to_label.csv", "a", encoding="utf-8") as file:
        file.write(f"{more},só-so,,,,,\n")
    run_grid(asking_config(options), run)
    rows = {row["text_id"]: row["label"] for row in asked(run)}
    assert rows[more] == "só-so"
    assert not names & rows.keys()


def test_data_that_changed_are_refused_by_name(tmp_path):
    options, run = write_texts(tmp_path, labeled=9), tmp_path / "run"
    run_grid(asking_config(options), run)
    table = Path(options["data_root"])
    table.write_text(table.read_text().replace('""5""', '""five""').replace("t7,", "t77,"))
    before = files_of(run)
    with pytest.raises(ValueError, match=r"1 new \('t77'\), 1 missing \('t7'\), 1 changed \('t5'"):
        run_grid(asking_config(options), run)
    assert files_of(run) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strategies": ["margin", "random"]}, "strategies must be one with oracle 'ask'"),
        ({"seeds": [0, 1]}, "seeds must be one with oracle 'ask'"),
        ({"reference": True}, "reference must be off with oracle 'ask', got True"),
        ({"analysis": True}, "analysis needs the labels of all samples"),
        ({"strategies": ["oracle"]}, "strategy 'oracle' needs the labels of all samples"),
        ({"protocol": {"balanced": True}}, "balanced needs the labels of all samples"),
        ({"protocol": {"pool_factor": 2.0}}, "pool_flips and pool_factor needs the labels"),
        ({"protocol": {"error_reduction": 0.1}}, "error_reduction needs a test set"),
        ({"data": "digits", "embeddings": ""}, "data must be image-folder or texts to ask about"),
        ({"embeddings": ""}, "embeddings must be given with texts"),
        ({"classes": []}, "classes must name at least two classes: .* has no label for its 40"),
        ({"classes": ["a"]}, "classes must name at least two classes: .* has only the class 'a'"),
        ({"classes": ["a", "b", "a"]}, "classes must be distinct, and 'a' is there twice"),
        ({"classes": ["a", " b"]}, "names without blanks around them, got ' b'"),
        ({"labels": ["/nowhere.csv"]}, "labels must be files, /nowhere.csv is none"),
        ({"holdout": "x"}, "holdout must be the column split of texts"),
        ({"oracle": "data", "classes": ["a", "b"]}, "classes must be left out without oracle"),
        ({"oracle": "data", "classes": []}, "classes must name at least two classes"),
        ({"model": "cnn"}, "cnn takes images"),
        ({"protocol": {"initial": 6, "budget": 20, "cycles": 2}}, "at most the 40 samples, got 46"),
    ],
)
def test_settings_that_nobody_can_ask_with_are_refused(tmp_path, changes, message):
    options = write_texts(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run_grid(asking_config(options, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_another_class_list_is_another_run(tmp_path):
    options = write_texts(tmp_path, labeled=9)
    run_grid(asking_config(options), tmp_path / "run")
    with pytest.raises(ValueError, match="different configuration: classes is"):
        run_grid(asking_config(options | {"classes": [*CLASSES, "new"]}), tmp_path / "run")


KILLING = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, "")
import torch
import torch._dynamo  # as the optimizers do: once, and not in every child
from dynal_fast import files
from dynal_fast.experiment.grid import run_grid
from tests.cases.asking import asking_config, fill_in, write_texts

torch.set_num_threads(1)
torch.use_deterministic_algorithms(False)  # imports much, as well
folder = Path(sys.argv[1])
config = asking_config(write_texts(folder, labeled=9, tested=6))

def call(run, at):
    count = 0

    class Killing:
        def __getattr__(self, name):
            return getattr(os, name)
        def replace(self, source, target):
            nonlocal count
            count += 1
            if count == at:
                os.kill(os.getpid(), signal.SIGKILL)
            os.replace(source, target)

    files.os = Killing()
    grid = run_grid(config, run)
    os._exit(7 if grid.awaited is None else 0)

def forked(run, at):
    child = os.fork()
    if child == 0:
        call(run, at)
    return os.waitpid(child, 0)[1]

for run, kills in ((folder / "whole", False), (folder / "killed", True)):
    killed = 0
    for cycle in range(3):
        for at in range(1, 20) if kills else ():
            if (status := forked(run, at)) == 0 or os.WIFEXITED(status):
                break
            assert os.WTERMSIG(status) == signal.SIGKILL
            killed += 1
        else:
            status = forked(run, 0)
        assert os.WIFEXITED(status) and os.WEXITSTATUS(status) == (7 if cycle == 2 else 0), status
        if cycle < 2:
            fill_in(run)
    if kills:
        print(killed)
"""


def test_a_run_that_is_killed_before_any_of_its_files_ends_with_the_same_bytes(tmp_path):
    root = Path(__file__).parents[1]
    driven = subprocess.run(
        [sys.executable, "-c", KILLING, str(tmp_path)],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert driven.returncode == 0, driven.stderr
    assert int(driven.stdout) >= 6
    whole, killed = (files_of(tmp_path / run) for run in ("whole", "killed"))
    assert whole.keys() == killed.keys()
    differ = {name for name in whole if whole[name] != killed[name]}
    assert differ <= {"timings.json", "margin/seed-0/checkpoint.safetensors"}  # they hold times


def test_two_runs_at_once_do_not_lose_labels(tmp_path, monkeypatch):
    from dynal_fast.experiment.asking.desk import Desk

    options, run = write_texts(tmp_path, labeled=9), tmp_path / "run"
    run_grid(asking_config(options), run)
    fill_in(run)
    begin = Desk.begin

    def after_another(self, initial):
        monkeypatch.setattr(Desk, "begin", begin)
        record = run / "labels.csv"
        record.write_bytes(record.read_bytes() + b"t39,s\xc3\xb3-so,1\n")
        begin(self, initial)

    monkeypatch.setattr(Desk, "begin", after_another)
    with pytest.raises(OSError, match=r"another run wrote to .* just now; run the command again"):
        run_grid(asking_config(options), run)


def test_the_linear_head_is_observed_on_its_features(tmp_path, monkeypatch):
    """The same statistics as from its logits, without a forward pass over the pool."""
    from dynal_fast.experiment import observation

    options = write_texts(tmp_path, labeled=9, tested=6)
    calls, gathered = [], []
    update = PoolStats.update_from_features

    def watched(self, ids, features, *head, by_id=False):
        gathered.append(not by_id or len(features) < len(ids))
        update(self, ids, features, *head, by_id=by_id)

    monkeypatch.setattr(observation, "observe_pool", lambda *a, **k: calls.append(1))
    monkeypatch.setattr(PoolStats, "update_from_features", watched)
    config = asking_config(options, strategies=["label_dispersion"])
    first = run_grid(config, tmp_path / "features")
    assert calls == []
    assert gathered
    assert not any(gathered)  # rows are read where they are
    monkeypatch.undo()
    monkeypatch.setattr(observation, "linear_head", lambda model: None)
    second = run_grid(config, tmp_path / "logits")
    assert first.results_json() == second.results_json()


@pytest.mark.parametrize(
    "strategy", ["random", "label_dispersion", "margin+farthest_first", "farthest_first", "badge"]
)
def test_every_kind_of_strategy_asks(tmp_path, strategy):
    from dynal_fast.strategies.registry import get_strategy

    try:
        get_strategy(strategy)
    except ValueError:
        pytest.skip(f"there is no strategy {strategy}")
    grid = run_grid(
        asking_config(write_texts(tmp_path, labeled=9), strategies=[strategy]), tmp_path / "r"
    )
    rows = asked(tmp_path / "r")
    assert len(grid.awaited.missing) == len(rows) == 4
    assert all(row["predicted"] for row in rows)
    ranked = strategy not in ("random", "farthest_first", "badge")
    assert all(bool(row["score"]) == ranked for row in rows)


def test_texts_that_are_all_labeled_are_an_ordinary_experiment(tmp_path):
    options = write_texts(tmp_path, texts=60, labeled=60)
    config = RunConfig.from_mapping(
        {k: v for k, v in options.items() if k != "classes"}
        | {"strategies": ["random", "margin"], "seeds": [0], "reference": False}
        | {"protocol": {"initial": 9, "budget": 6, "cycles": 1}, "training": {"epochs": 5}}
    )
    grid = run_grid(config, tmp_path / "run")
    assert grid.samples == 54
    assert grid.test_samples == 6
    assert [run.labeled for run in grid.runs] == [[9, 15], [9, 15]]
    assert config.model == "linear"


def test_a_scaled_preset_keeps_a_share_of_the_texts(tmp_path):
    options = write_texts(tmp_path, texts=60, labeled=60)
    config = RunConfig.from_mapping(
        {k: v for k, v in options.items() if k in ("data", "data_root", "embeddings")}
        | {"preset": "from-1000/texts-linear", "scale": 0.5, "strategies": ["random"]}
        | {"seeds": [0], "reference": False, "training": {"epochs": 2}}
        | {"protocol": {"initial": 6, "budget": 3, "cycles": 1}}
    )
    grid = run_grid(config, tmp_path / "run")
    assert (grid.samples, grid.test_samples) == (27, 6)
    assert "27 training samples, 0.5 of all" in grid.protocol_note


def test_an_oracle_of_ones_own_asks_in_python(tmp_path):
    data = blobs()
    labels = torch.full((150,), -1)
    labels[:12] = data.oracle.label(torch.arange(12))
    oracle = AskingOracle(labels, ["a", "b", "c"])
    mine = ExperimentData(
        "mine", data.samples, oracle, SampleSet(torch.empty(0, 8)), torch.empty(0).long(), 3
    )
    experiment = ActiveLearningExperiment(
        mine,
        "mlp",
        "entropy",
        protocol=Protocol(initial=12, budget=6, cycles=1),
        training=Training(epochs=2),
        directory=tmp_path,
    )
    run = experiment.run()
    assert run.request.missing == run.request.ids
    assert run.request.cycle == 1
    assert run.accuracies == []
    assert experiment.run().cycles == run.cycles
    truths = data.oracle.label(torch.tensor(run.request.ids))
    oracle.give(run.request.ids, ["abc"[int(label)] for label in truths])
    run = experiment.run()
    assert run.request is None
    assert run.labeled == [12, 18]
    with pytest.raises(ValueError, match="directory must be given where the oracle is asked"):
        ActiveLearningExperiment(mine, "mlp", "entropy", protocol=Protocol(12, budget=6, cycles=1))


def test_the_oracle_refuses_what_makes_no_sense():
    oracle = AskingOracle(torch.tensor([0, -1]), ["a", "b"])
    with pytest.raises(LookupError, match="label of sample 1 is not known"):
        oracle.label(torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="sample 0 has the label 'a' already, got 'b'"):
        oracle.give([1, 0], ["b", "b"])
    assert oracle.missing(torch.tensor([1])).tolist() == [1], "no label of a refused call is taken"
    with pytest.raises(ValueError, match="labels must be among"):
        oracle.give([1], ["c"])
    with pytest.raises(ValueError, match=r"labels must be in -1 \.\. 1, got -2 to 0"):
        AskingOracle(torch.tensor([0, -2]), ["a", "b"])
    with pytest.raises(ValueError, match="at least two distinct names"):
        AskingOracle(torch.tensor([0]), ["a", "a"])
    with pytest.raises(ValueError, match="initial must be the 1 labeled samples, got 2"):
        oracle.initial_set(2, False, torch.Generator())


def test_the_output_must_not_lie_among_the_images(tmp_path):
    (tmp_path / "photos" / "unlabeled").mkdir(parents=True)
    options = {"data": "image-folder", "data_root": str(tmp_path / "photos"), "classes": ["a", "b"]}
    with pytest.raises(ValueError, match=r"the output must not be in data_root, .*photos, whose"):
        run_grid(asking_config(options), tmp_path / "photos" / "run")
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["unlabeled"]


@pytest.mark.parametrize("outside", [-1, 2])
def test_an_id_of_no_sample_is_given_no_label(outside):
    oracle = AskingOracle(torch.tensor([0, -1]), ["a", "b"])
    with pytest.raises(ValueError, match=rf"ids must be in 0 \.\. 1, got {outside}"):
        oracle.give([outside], ["b"])
    assert oracle.missing(torch.arange(2)).tolist() == [1]
