"""``PoolStatsCallback(train=True)`` for Lightning beside what `training_step` itself saw."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dynal_fast import Epochs, PoolObservationError, PoolStats

lightning = pytest.importorskip("lightning.pytorch")
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint  # noqa: E402

from dynal_fast.integrations.lightning import PoolStatsCallback  # noqa: E402
from tests.integrations.test_lightning import (  # noqa: E402
    Classifier,
    Weights,
    assert_same,
    fit,
    trainer,
)

N, D, C = 22, 6, 3
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::UserWarning:lightning"),
    pytest.mark.filterwarnings("ignore:.*num_epochs is None"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec"),
]
INPUTS = torch.randn(N, D, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(N) % C


class Recorded(Classifier):
    """Keeps what each step saw; it calls itself twice, and its layers alone."""

    def __init__(self, returns=False, forward=True):
        super().__init__()
        self.seen, self.returns, self.calls_itself = [], returns, forward

    def training_step(self, batch, index):
        inputs, targets, ids = batch
        logits = self(inputs) if self.calls_itself else self.layers(inputs)
        classes = targets.argmax(1) if targets.ndim == 2 else targets
        self.seen.append((self.current_epoch + 1, ids, logits.detach().clone(), classes))
        loss = nn.functional.cross_entropy(logits, classes)
        if self.calls_itself:
            self(inputs + 1)  # another view, which does not count
        return {"loss": loss, "logits": logits} if self.returns else loss

    def validation_step(self, batch, index):
        self.log("validation", nn.functional.cross_entropy(self(batch[0]), batch[1]))


def recorded(seed=0, **options):
    torch.manual_seed(seed)
    return Recorded(**options)


def loader(labels=LABELS, ids=None, **options):
    ids = torch.arange(N) if ids is None else ids
    data = TensorDataset(INPUTS[: len(ids)], labels[: len(ids)], ids)
    return DataLoader(data, batch_size=5, **{"shuffle": True, **options})


def new_stats(**options):
    return PoolStats(N, C, track=("bald", "margin"), training_dynamics=True, **options)


def folded(seen, num_epochs, stats=None):
    stats = stats or new_stats()
    for epoch in sorted({one[0] for one in seen}):
        if not stats.observes(epoch, num_epochs):
            continue
        stats.begin_pass(epoch, num_epochs, partial=True)
        for number, ids, logits, targets in seen:
            if number == epoch:
                stats.update(ids, logits, targets=targets)
        stats.end_pass()
    return stats


@pytest.mark.parametrize(
    ("precision", "returns"),
    [("32-true", False), ("bf16-mixed", False), ("bf16-true", False), ("32-true", True)],
)
def test_sees_what_training_computes(precision, returns):
    stats, the_module = new_stats(), recorded(returns=returns, forward=not returns)
    callback = PoolStatsCallback(stats, train=True, ids=2)
    fit(trainer(callback, precision=precision), the_module, loader=loader())
    assert_same(stats, folded(the_module.seen, 3))
    assert stats.training_dynamics().observations.tolist() == [3] * N
    assert not the_module._forward_hooks


def test_training_is_bit_equal_with_and_without():
    runs = []
    for observed in (False, True):
        callbacks = [weights := Weights()]
        if observed:
            callbacks.append(PoolStatsCallback(new_stats(), train=True, ids=2))
        fit(
            trainer(*callbacks, accumulate_grad_batches=2),
            recorded(),
            loader=loader(),
            validation=True,
        )
        runs.append((weights.epochs, torch.get_rng_state()))
    for one, other in zip(runs[0][0], runs[1][0], strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(runs[0][1], runs[1][1])


@pytest.mark.parametrize("where", ["one-hot", "by id", "one-hot by id"])
def test_targets(where):
    labels = torch.eye(C)[LABELS] if where == "one-hot" else LABELS
    by_id = {"by id": LABELS.tolist(), "one-hot by id": torch.eye(C, dtype=torch.bool)[LABELS]}
    stats, the_module = new_stats(), recorded()
    callback = PoolStatsCallback(stats, train=True, ids=2, targets=by_id.get(where))
    fit(trainer(callback), the_module, loader=loader(labels))
    assert_same(stats, folded(the_module.seen, 3))
    assert torch.equal(stats.training_dynamics().targets, LABELS)


def test_schedules_repeated_samples_and_early_stops():
    stats = PoolStats(N, C, track=("aum",), schedules={"aum": Epochs((2, 3))})
    the_module = recorded()
    callback = PoolStatsCallback(stats, train=True, ids=2)
    repeats = loader(ids=torch.tensor([4, 4, 1, 0, 4, 9, 2]))
    fit(trainer(callback, max_epochs=4), the_module, loader=repeats)
    assert stats.training_dynamics().observations.nonzero().squeeze(1).tolist() == [0, 1, 2, 4, 9]
    assert stats.training_dynamics().observations.max() == 2
    stats, the_module = new_stats(), recorded()
    stop = EarlyStopping("validation", patience=1, min_delta=9)
    callbacks = (PoolStatsCallback(stats, train=True, ids=2), stop)
    fit(trainer(*callbacks, max_epochs=9), the_module, loader=loader(), validation=True)
    assert stats.training_dynamics().observations.max() == 2
    assert_same(stats, folded(the_module.seen, None))
    stats, the_module = new_stats(), recorded()
    callback = PoolStatsCallback(stats, train=True, ids=2)
    fit(trainer(callback, max_epochs=-1, max_steps=7), the_module, loader=loader())
    assert_same(stats, folded(the_module.seen, None))


@pytest.mark.parametrize("save", [{"every_n_epochs": 1}, {"every_n_train_steps": 7}])
def test_resumes_after_an_epoch_and_within_one(tmp_path, save):
    saved = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, **save)
    first, killed = PoolStatsCallback(new_stats(), train=True, ids=2), recorded()
    fit(trainer(first, saved, max_epochs=2), killed, loader=loader(shuffle=False))
    assert first.stats.training_dynamics().observations.tolist() == [2] * N
    steps = 5 if "every_n_epochs" in save else 7
    stats, again = new_stats(), recorded()
    callback = PoolStatsCallback(stats, train=True, ids=2)
    path = tmp_path / f"step={steps}.ckpt"
    fit(trainer(callback), again, ckpt_path=path, loader=loader(shuffle=False))
    counts = stats.training_dynamics().observations
    assert len(killed.seen[:steps] + again.seen) == 15
    if steps == 5:
        assert_same(stats, folded(killed.seen[:5] + again.seen, 3))
    came = torch.zeros(3, N, dtype=torch.int32)  # a resumed epoch reads from the loader's start
    for epoch, ids, _, _ in killed.seen[:steps] + again.seen:
        came[epoch - 1, ids] = 1
    assert torch.equal(counts, came.sum(0, dtype=torch.int32))


def test_goes_on_after_an_interruption():
    class Interrupted(Recorded):
        def training_step(self, batch, index):
            if self.current_epoch == 1 and index == 2 and not self.returns:
                raise ValueError("boom")
            return super().training_step(batch, index)

    torch.manual_seed(0)
    the_module, stats = Interrupted(), new_stats()
    callback = PoolStatsCallback(stats, train=True, ids=2)
    with pytest.raises(ValueError, match="boom"):
        fit(trainer(callback), the_module, loader=loader())
    assert stats.training_dynamics().observations.sum() == N + 10
    assert not the_module._forward_hooks
    assert stats.state_dict()  # no pass is open


def test_what_is_wrong_is_named():
    for options in ({}, {"ids": 2, "mc_passes": 2}, {"ids": 2, "pool_dataloader": loader()}):
        with pytest.raises(ValueError, match="train=True give ids="):
            PoolStatsCallback(new_stats(), train=True, **options)
    with pytest.raises(ValueError, match="ids=1 says that the ids are there: give targets="):
        PoolStatsCallback(new_stats(), train=True, ids=1)
    assert PoolStatsCallback(new_stats(), train=True, ids=1, targets=2)
    assert PoolStatsCallback(PoolStats(N, C, track=("bald",)), train=True, ids=1)
    with pytest.raises(ValueError, match="pass train=True"):
        PoolStatsCallback(new_stats(), loader(), targets=1)
    with pytest.raises(ValueError, match="targets must have the 22 samples"):
        PoolStatsCallback(new_stats(), train=True, ids=2, targets=[0, 1])
    for options, wrong in (
        ({"ids": 3}, "ids must say where .* got ids=3 for a list of 3 parts"),
        ({"ids": "idx"}, "ids must say where"),
        ({"ids": 2, "targets": "label"}, "targets must say where"),
    ):
        callback = PoolStatsCallback(new_stats(), train=True, **options)
        with pytest.raises(ValueError, match=wrong):
            fit(trainer(callback), recorded(), loader=loader())
    callback = PoolStatsCallback(new_stats(), train=True, ids=2)
    with pytest.raises(ValueError, match="training_step gave no logits"):
        fit(trainer(callback), recorded(forward=False), loader=loader())
    with pytest.raises(PoolObservationError, match="out of range or was dropped: 77"):
        fit(
            trainer(PoolStatsCallback(new_stats(), train=True, ids=2)),
            recorded(),
            loader=loader(ids=torch.tensor([0, 77])),
        )


class Written(lightning.Callback):
    """Each process writes its statistics and what it saw."""

    def __init__(self, folder, stats):
        self.folder, self.stats = folder, stats

    def on_train_end(self, trainer, pl_module):
        held = self.stats.state_dict(), pl_module.seen
        torch.save(held, self.folder / f"{trainer.global_rank}.pt")


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without processes")
def test_two_processes_have_what_both_saw(tmp_path):
    stats = new_stats()
    callback = PoolStatsCallback(stats, train=True, ids=2)
    ids = torch.arange(19)  # an odd number, so that the sampler repeats one sample
    both = trainer(callback, Written(tmp_path, stats), devices=2, strategy="ddp_fork")
    fit(both, recorded(), loader=loader(ids=ids))
    (first, seen), (second, others) = (
        torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)
    )
    expected = new_stats()
    for epoch in (1, 2, 3):
        expected.begin_pass(epoch, 3, partial=True)
        for number, sample_ids, logits, targets in [*seen, *others]:
            if number == epoch:
                expected.update(sample_ids, logits, targets=targets)
        with pytest.raises(PoolObservationError, match="1 samples seen more than once"):
            expected.end_pass()
    for name in ("training", "training_count", "mean", "count"):
        assert torch.equal(first[name], second[name]), name
        assert torch.equal(first[name], expected.state_dict()[name]), name
