"""The callback for Hugging Face's Trainer beside plain loops, and beside trainings without it."""

import copy
import os
import shutil
import socket
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.utils.data import IterableDataset

from dynal_fast import EMATeacher, PoolObservationError, PoolStats

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate", reason="the Trainer needs accelerate")
from transformers import (  # noqa: E402
    BertConfig,
    BertForSequenceClassification,
    EarlyStoppingCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from dynal_fast.integrations.transformers import FILE, PoolStatsCallback  # noqa: E402
from tests.integrations.pages import snippet  # noqa: E402

N, C, BATCH = 30, 3, 8
TRACK = ("prediction_stability", "label_dispersion", "margin", "bald")
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*num_epochs is None"),
    pytest.mark.filterwarnings("ignore:.*pin_memory"),
]


def texts(count, seed):
    """Samples of 3 to 9 tokens, which a batch must pad, with a column that the model ignores."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, 10, (count,), generator=generator).tolist()
    tokens = [torch.randint(1, 40, (length,), generator=generator).tolist() for length in lengths]
    return [{"input_ids": t, "text": str(t), "label": sum(t) % C} for t in tokens]


POOL, LABELED = texts(N, 0), texts(18, 1)


def pad(samples):
    """What a tokenizer's collator does."""
    longest = max(len(sample["input_ids"]) for sample in samples)
    rows = [sample["input_ids"] + [0] * (longest - len(sample["input_ids"])) for sample in samples]
    ids = torch.tensor(rows)
    batch = {"input_ids": ids, "attention_mask": (ids > 0).long()}
    if "label" in samples[0]:
        batch["labels"] = torch.tensor([sample["label"] for sample in samples])
    return batch


def bert():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=40,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
        num_labels=C,
    )
    return BertForSequenceClassification(config)


class Weights(TrainerCallback):
    def __init__(self):
        self.epochs = []

    def on_epoch_end(self, args, state, control, model=None, **parts):
        self.epochs.append(copy.deepcopy(model.state_dict()))


class KilledError(Exception):
    pass


class Kill(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_begin(self, args, state, control, **parts):
        if state.global_step == self.step:
            raise KilledError


def new_stats(track=TRACK, **options):
    return PoolStats(N, C, track=track, **options)


def trainer(folder, *callbacks, train=LABELED, model=None, evaluate=None, **options):
    arguments = TrainingArguments(
        **{
            "output_dir": str(folder),
            "num_train_epochs": 3,
            "per_device_train_batch_size": 6,
            "per_device_eval_batch_size": BATCH,
            "learning_rate": 1e-2,
            "save_strategy": "no",
            "report_to": [],
            "disable_tqdm": True,
            "use_cpu": True,
            "logging_steps": 1,
            **options,
        }
    )
    model = model or bert()
    return Trainer(
        model=model,
        args=arguments,
        train_dataset=train,
        eval_dataset=evaluate,
        data_collator=pad,
        callbacks=list(callbacks),
    )


def plain(stats, epochs, num_epochs, amp=None):
    model = bert()
    for epoch, weights in enumerate(epochs, 1):
        model.load_state_dict(weights)
        if not stats.observes(epoch, num_epochs):
            continue
        model.eval()
        with stats.observe(epoch, num_epochs), torch.no_grad():
            for ids in torch.arange(N).split(BATCH):
                batch = pad([POOL[i] for i in ids.tolist()])
                batch.pop("labels")
                with torch.autocast("cpu", dtype=amp, enabled=amp is not None):
                    stats.update(ids, model(**batch).logits.float())
    return stats


def assert_same(one, other):
    one, other = one.state_dict(), other.state_dict()
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.numpy().tobytes() == other[name].numpy().tobytes(), name


@pytest.mark.parametrize("bf16", [False, True])
def test_equals_a_plain_loop(tmp_path, bf16):
    stats, weights = new_stats(), Weights()
    trainer(tmp_path, weights, PoolStatsCallback(stats, POOL), bf16=bf16).train()
    assert_same(stats, plain(new_stats(), weights.epochs, 3, torch.bfloat16 if bf16 else None))
    assert len(stats.select("margin", 4)) == 4
    if bf16:
        assert not torch.equal(
            stats.score("bald"), plain(new_stats(), weights.epochs, 3).score("bald")
        )


def test_a_model_that_cannot_be_traced_runs_as_it_is(tmp_path):
    stats, weights = new_stats(), Weights()
    callback = PoolStatsCallback(stats, POOL, accelerate="auto")
    with pytest.warns(UserWarning, match="BertForSequenceClassification runs as it is: torch.fx"):
        trainer(tmp_path, weights, callback).train()
    assert (callback.accelerator.used, callback.accelerator.passes) == ("off", 3)
    assert_same(stats, plain(new_stats(), weights.epochs, 3))


def test_training_is_bit_equal_with_and_without(tmp_path):
    runs = []
    for observed in (False, True):
        weights, model = Weights(), bert()
        stats = new_stats((*TRACK, "emaod"))
        callback = PoolStatsCallback(stats, POOL, teacher=EMATeacher(model), mc_passes=2)
        own = trainer(
            tmp_path,
            weights,
            *([callback] if observed else []),
            model=model,
            gradient_accumulation_steps=2,
            dataloader_num_workers=1,
        )
        own.train()
        losses = [row["loss"] for row in own.state.log_history if "loss" in row]
        runs.append((weights.epochs, losses, torch.get_rng_state(), model.training))
    for one, other in zip(runs[0][0], runs[1][0], strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert runs[0][1] == runs[1][1]
    assert torch.equal(runs[0][2], runs[1][2])
    assert runs[0][3] == runs[1][3]
    assert not stats.score("bald").isnan().any()


class Stream(IterableDataset):
    def __iter__(self):
        yield from LABELED


@pytest.mark.parametrize(
    ("options", "epochs", "num_epochs"),
    [
        ({"max_steps": 4}, 2, 2),
        ({"num_train_epochs": 1.5}, 2, 2),
        ({"gradient_accumulation_steps": 2}, 3, 3),
        ({"max_steps": 7, "train": Stream()}, 3, None),
    ],
    ids=["max_steps", "one epoch and a half", "accumulated", "stream"],
)
def test_trainings_of_every_length(tmp_path, options, epochs, num_epochs):
    stats, weights = new_stats(), Weights()
    trainer(tmp_path, weights, PoolStatsCallback(stats, POOL), **options).train()
    assert len(weights.epochs) == epochs
    assert_same(stats, plain(new_stats(), weights.epochs, num_epochs))


def test_early_stopping_leaves_every_score(tmp_path):
    stats, weights = new_stats(), Weights()
    own = trainer(
        tmp_path,
        weights,
        EarlyStoppingCallback(1, early_stopping_threshold=1e9),
        PoolStatsCallback(stats, POOL),
        evaluate=LABELED,
        num_train_epochs=50,
        eval_strategy="epoch",
        metric_for_best_model="loss",
        save_strategy="epoch",
        load_best_model_at_end=True,
    )
    own.train()
    assert 1 <= len(weights.epochs) < 50
    assert_same(stats, plain(new_stats(), weights.epochs, None))
    assert len(stats.select("prediction_stability", 4)) == 4


class StopEarly(TrainerCallback):
    """A callback of one's own, which the Trainer does not know to stop it."""

    def __init__(self, event, step):
        self.step = step
        setattr(self, event, self.stop)

    def stop(self, args, state, control, **parts):
        control.should_training_stop |= state.global_step >= self.step


@pytest.mark.parametrize("first", [True, False], ids=["before ours", "after ours"])
@pytest.mark.parametrize("event", ["on_step_end", "on_epoch_end", "on_evaluate"])
def test_a_callback_of_ones_own_stops_the_training(tmp_path, event, first):
    """Scores of one output get the last one; others observe each epoch once and tell what lacks."""
    stats, weights, stop = new_stats(), Weights(), StopEarly(event, 5)
    callback = PoolStatsCallback(stats, POOL)
    both = [stop, callback] if first else [callback, stop]
    own = trainer(
        tmp_path, weights, *both, evaluate=LABELED, eval_strategy="epoch", num_train_epochs=50
    )
    own.train()
    assert len(weights.epochs) == 2
    last = plain(new_stats(("margin",)), weights.epochs, 2)
    assert torch.equal(stats.score("margin"), last.score("margin"))
    every = plain(new_stats(("label_dispersion",)), weights.epochs, 50)
    assert torch.equal(stats.score("label_dispersion"), every.score("label_dispersion"))
    with pytest.raises(ValueError, match="the last one was epoch 2 of 50"):
        stats.select("prediction_stability", 5)


@pytest.mark.parametrize("first", [True, False], ids=["before ours", "after ours"])
@pytest.mark.parametrize("event", ["on_step_end", "on_epoch_end"])
@pytest.mark.parametrize("step", [3, 6])
def test_every_n_steps_where_a_callback_stops_the_training(tmp_path, event, step, first):
    """The step that turns out to be the last is observed, once by each statistic."""

    class Steps(Weights):
        on_epoch_end = TrainerCallback.on_epoch_end

        def on_step_end(self, args, state, control, model=None, **parts):
            if state.global_step % 2 == 0 or state.global_step == step:
                self.epochs.append(copy.deepcopy(model.state_dict()))

    stats, weights, stop = new_stats(), Steps(), StopEarly(event, step)
    callback = PoolStatsCallback(stats, POOL, every_n_steps=2)
    both = [stop, callback] if first else [callback, stop]
    trainer(tmp_path, weights, *both, num_train_epochs=9).train()
    steps = -(-step // 2)
    assert len(weights.epochs) == steps
    last = plain(new_stats(("margin",)), weights.epochs, steps)
    assert torch.equal(stats.score("margin"), last.score("margin"))
    every = plain(new_stats(("label_dispersion",)), weights.epochs, 14)
    assert torch.equal(stats.score("label_dispersion"), every.score("label_dispersion"))


def test_the_best_model_is_not_taken_for_that_of_the_last_step(tmp_path):
    class Steps(Weights):
        on_epoch_end = TrainerCallback.on_epoch_end

        def on_step_end(self, args, state, control, model=None, **parts):
            if state.global_step == 2:
                self.epochs.append(copy.deepcopy(model.state_dict()))

    stats, weights = new_stats(), Steps()
    callback = PoolStatsCallback(stats, POOL, every_n_steps=2)
    own = trainer(
        tmp_path,
        weights,
        StopEarly("on_step_end", 3),
        callback,
        evaluate=LABELED,
        num_train_epochs=9,
        eval_strategy="steps",
        eval_steps=1,
        metric_for_best_model="loss",
        greater_is_better=True,
        save_strategy="steps",
        save_steps=1,
        load_best_model_at_end=True,
    )
    own.train()
    every = plain(new_stats(("label_dispersion",)), weights.epochs, 14)
    assert torch.equal(stats.score("label_dispersion"), every.score("label_dispersion"))
    best = plain(new_stats(("margin",)), [own.model.state_dict()] * 2, 2)
    assert torch.equal(stats.score("margin"), best.score("margin"))


def test_every_n_steps_of_a_stream(tmp_path):
    class Steps(Weights):
        on_epoch_end = TrainerCallback.on_epoch_end

        def on_step_end(self, args, state, control, model=None, **parts):
            if state.global_step % 2 == 0 or state.global_step == 7:
                self.epochs.append(copy.deepcopy(model.state_dict()))

    stats, weights = new_stats(), Steps()
    callback = PoolStatsCallback(stats, POOL, every_n_steps=2)
    trainer(tmp_path, weights, callback, train=Stream(), max_steps=7).train()
    assert_same(stats, plain(new_stats(), weights.epochs, 4))


@pytest.mark.parametrize(
    "options",
    [
        {"save_strategy": "epoch"},
        {"save_steps": 3},  # at the last step of an epoch, before it ends
        {"save_steps": 4},  # in the middle of an epoch
        {"save_steps": 2, "max_steps": 8},
    ],
    ids=str,
)
@pytest.mark.parametrize("track", [TRACK, ("cod", "emaod")], ids=["statistics", "teacher"])
def test_a_resumed_training_ends_with_the_same_statistics(tmp_path, options, track):
    def run(folder, *others, resume=None):
        model, stats = bert(), new_stats(track)
        teacher = EMATeacher(model, alpha=0.9) if "emaod" in track else None
        callback = PoolStatsCallback(stats, POOL, teacher=teacher)
        options_of = {"save_strategy": "steps", **options}
        own = trainer(folder, callback, *others, model=model, **options_of)
        own.train(resume_from_checkpoint=resume)
        return stats

    whole = run(tmp_path / "whole")
    with pytest.raises(KilledError):
        run(tmp_path / "killed", Kill(7))
    assert_same(run(tmp_path / "killed", resume=True), whole)


def test_a_checkpoint_elsewhere_or_without_statistics(tmp_path):
    def run(folder, resume=None, **options):
        stats = new_stats(("label_dispersion",))
        callback = PoolStatsCallback(stats, POOL, **options)
        own = trainer(tmp_path / folder, callback, save_strategy="epoch")
        own.train(resume_from_checkpoint=resume and str(resume))
        return stats

    whole = run("one")
    moved = shutil.move(tmp_path / "one" / "checkpoint-3", tmp_path / "moved")
    run("other")  # has a checkpoint of the same step, of another training
    log = tmp_path / "other" / "checkpoint-3" / "trainer_state.json"
    log.write_text(log.read_text().replace('"loss"', '"lost"'))
    with pytest.raises(ValueError, match=r"resumes at step 3, and no pool_stats\.pt of that"):
        run("other", resume=moved)
    assert_same(run("other", resume=moved, resume_from=moved), whole)
    (moved / FILE).unlink()
    with pytest.warns(UserWarning, match="from a checkpoint without pool statistics"):
        late = run("other", resume=moved, resume_from=False)
    assert int(late.state_dict()["passes"]) == 2


def test_a_checkpoint_of_another_tracker(tmp_path):
    first = PoolStatsCallback(new_stats(("margin",)), POOL)
    trainer(tmp_path, first, save_strategy="epoch").train()
    other = PoolStatsCallback(new_stats(("entropy",)), POOL)
    with pytest.raises(ValueError, match="were track and schedules the same"):
        trainer(tmp_path, other, save_strategy="epoch").train(resume_from_checkpoint=True)


def test_ids_of_a_column_and_a_collator_of_its_own(tmp_path):
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0)).tolist()
    pool = [{**POOL[i], "row": i} for i in order]
    called = []

    def own_collator(samples):
        called.append(len(samples))
        assert all("row" not in sample for sample in samples)
        return pad(samples)

    stats, weights = new_stats(), Weights()
    callback = PoolStatsCallback(stats, pool, own_collator, "row")
    trainer(tmp_path, weights, callback, remove_unused_columns=False).train()
    want = plain(new_stats(), weights.epochs, 3)
    for name in TRACK:
        torch.testing.assert_close(stats.score(name), want.score(name), rtol=1e-4, atol=1e-5)
    assert sum(called) == 3 * N


class Strict(nn.Module):
    """A model that takes no labels and no text."""

    def __init__(self):
        super().__init__()
        self.inner = bert()

    def forward(self, input_ids, attention_mask=None, labels=None):
        assert self.training or labels is None
        return self.inner(input_ids, attention_mask, labels=labels).to_tuple()


@pytest.mark.parametrize("unknown", [None, ""])
def test_labels_and_other_columns_do_not_reach_the_model(tmp_path, unknown):
    pool = [{**sample, "label": unknown} if i % 3 else sample for i, sample in enumerate(POOL)]
    stats = new_stats(("margin",))
    stats.drop([0, 5])
    trainer(tmp_path, PoolStatsCallback(stats, pool), model=Strict()).train()
    assert stats.score("margin").isnan().nonzero().squeeze(1).tolist() == [0, 5]


class InATuple(nn.Module):
    """A model that puts a loss, or None in its place, before its logits."""

    def __init__(self, loss):
        super().__init__()
        self.inner, self.loss = bert(), loss

    def forward(self, input_ids, attention_mask=None, labels=None):
        found = self.inner(input_ids, attention_mask, labels=labels)
        return (found.loss if labels is not None else self.loss), found.logits


@pytest.mark.parametrize("loss", [None, torch.zeros(())], ids=["None", "a loss"])
def test_logits_that_are_not_the_first_part(tmp_path, loss):
    stats, model = new_stats(("margin",)), InATuple(loss)
    trainer(tmp_path, PoolStatsCallback(stats, POOL), model=model, num_train_epochs=1).train()
    want = plain(new_stats(("margin",)), [model.inner.state_dict()], 1)
    assert_same(stats, want)


def test_bad_arguments_and_bad_rows(tmp_path):
    for option in ("get_logits", "data_collator"):
        with pytest.raises(TypeError, match=f"{option} must be a function, got str"):
            PoolStatsCallback(new_stats(), POOL, **{option: "x"})
    with pytest.raises(ValueError, match=r"tracks aum, .* pass train=True and id_column="):
        PoolStatsCallback(new_stats(("aum",)), POOL)
    with pytest.raises(ValueError, match="has 4 samples and stats 30"):
        PoolStatsCallback(new_stats(), POOL[:4])
    with pytest.raises(TypeError, match="pool_dataset must be a data set with an index"):
        PoolStatsCallback(new_stats(), iter(POOL))
    with pytest.raises(ValueError, match="every_n_steps must be at least 1, got 0"):
        PoolStatsCallback(new_stats(), POOL, every_n_steps=0)
    with pytest.raises(ValueError, match="give every_n_epochs or every_n_steps"):
        PoolStatsCallback(new_stats(), POOL, every_n_epochs=2, every_n_steps=2)

    def poisoned(model, batch):
        return model(**batch).logits.index_fill(0, torch.tensor([1]), torch.inf)

    with pytest.raises(PoolObservationError, match="non-finite logit: 1, 9, 17, 25"):
        trainer(tmp_path, PoolStatsCallback(new_stats(), POOL, get_logits=poisoned)).train()


SHARED = """
import sys, torch
torch.set_num_threads(1)
from tests.integrations.test_transformers import *
folder = sys.argv[1]
stats, weights = new_stats(), Weights()
own = trainer(folder, weights, PoolStatsCallback(stats, POOL), num_train_epochs=2)
own.train()
saved = {"stats": stats.state_dict(), "weights": weights.epochs}
torch.save(saved, f"{folder}/{own.args.process_index}.pt")
"""


@pytest.mark.slow
def test_two_processes_have_the_statistics_of_one(tmp_path):
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": "2"}
    environment |= {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        environment["MASTER_PORT"] = str(free.getsockname()[1])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SHARED, str(tmp_path)],
            env={**environment, "RANK": rank, "LOCAL_RANK": rank},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    one, other = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    halves = [new_stats(), new_stats()]
    for half, saved in zip(halves, (one, other), strict=True):
        half.load_state_dict(saved["stats"])
    assert_same(*halves)
    assert_same(halves[0], plain(new_stats(), one["weights"], 2))


def test_the_lines_of_the_guide_run(tmp_path):
    names = {"pool": texts(120, 2), "trainer": trainer(tmp_path, num_train_epochs=1)}
    code = snippet("in-your-trainer", "Hugging Face's Trainer")
    exec(code.replace("num_classes=10", "num_classes=3"), names)
    assert len(names["picks"]) == 100
