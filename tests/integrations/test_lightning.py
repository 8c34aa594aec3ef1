"""The callback for PyTorch Lightning beside plain loops, and beside trainings without it."""

import copy
import random
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from dynal_fast import EMATeacher, EveryEpoch, FromEpoch, PoolObservationError, PoolStats

lightning = pytest.importorskip("lightning.pytorch")
from lightning.pytorch.callbacks import (  # noqa: E402
    Callback,
    Checkpoint,
    EarlyStopping,
    ModelCheckpoint,
    OnExceptionCheckpoint,
)

from dynal_fast.integrations.lightning import PoolStatsCallback  # noqa: E402
from tests.integrations.pages import snippet  # noqa: E402

N, D, C, BATCH = 50, 6, 3, 16
TRACK = ("prediction_stability", "label_dispersion", "margin", "bald")
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::UserWarning:lightning"),
    pytest.mark.filterwarnings("ignore:.*num_epochs is None"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec"),
]
POOL = torch.randn(N, D, generator=torch.Generator().manual_seed(0))
LABELED = torch.randn(24, D, generator=torch.Generator().manual_seed(1))


class Classifier(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(D, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, C)
        )

    def forward(self, x):
        return self.layers(x)

    def training_step(self, batch, index):
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def validation_step(self, batch, index):
        self.log("validation", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.03)


class Weights(Callback):
    """Keeps the weights at the end of each epoch."""

    def __init__(self):
        self.epochs = []

    def on_train_epoch_end(self, trainer, pl_module):
        self.epochs.append(copy.deepcopy(pl_module.state_dict()))


def module(seed=0):
    torch.manual_seed(seed)
    return Classifier()


def labeled(**options):
    data = TensorDataset(LABELED, torch.arange(24) % C)
    return DataLoader(data, batch_size=8, **{"shuffle": True, **options})


def pool_loader(**options):
    return DataLoader(TensorDataset(POOL), **{"batch_size": BATCH, **options})


def new_stats(track=TRACK, **options):
    return PoolStats(N, C, track=track, **options)


def trainer(*callbacks, **options):
    options = {"max_epochs": 3, **options}
    return lightning.Trainer(
        accelerator="cpu",
        callbacks=list(callbacks),
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(c, Checkpoint) for c in callbacks),
        num_sanity_val_steps=2,
        **options,
    )


def fit(the_trainer, the_module, seed=3, ckpt_path=None, loader=None, validation=False):
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)
    val = labeled(shuffle=False) if validation else None
    the_trainer.fit(the_module, loader or labeled(), val, ckpt_path=ckpt_path, weights_only=True)


def plain(stats, epochs, num_epochs, context=None, dtype=torch.float32, batch=BATCH):
    """What a plain loop over the saved weights makes of the pool."""
    model = Classifier().to(dtype)
    for epoch, weights in enumerate(epochs, 1):
        model.load_state_dict(weights)
        if not stats.observes(epoch, num_epochs):
            continue
        model.eval()
        with stats.observe(epoch, num_epochs), torch.no_grad():
            for ids in torch.arange(N).split(batch):
                with context or torch.autocast("cpu", enabled=False):
                    stats.update(ids, model(POOL[ids].to(dtype)))
    return stats


def assert_same(one, other):
    one, other = one.state_dict(), other.state_dict()
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.numpy().tobytes() == other[name].numpy().tobytes(), name


@pytest.mark.parametrize(
    ("precision", "dtype", "autocast"),
    [
        ("32-true", torch.float32, None),
        ("64-true", torch.float64, None),
        ("bf16-true", torch.bfloat16, None),
        ("bf16-mixed", torch.float32, torch.bfloat16),
        ("16-mixed", torch.float32, torch.bfloat16),  # Lightning's own substitute on a CPU
    ],
)
def test_equals_a_plain_loop(precision, dtype, autocast):
    stats, weights = new_stats(), Weights()
    fit(trainer(weights, PoolStatsCallback(stats, pool_loader()), precision=precision), module())
    context = torch.autocast("cpu", dtype=autocast, cache_enabled=False) if autocast else None
    assert_same(stats, plain(new_stats(), weights.epochs, 3, context, dtype))
    assert len(stats.select("margin", 5)) == 5


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_passes_run_through_a_twin(precision):
    stats, weights = new_stats(), Weights()
    callback = PoolStatsCallback(stats, pool_loader(), accelerate="fold")
    fit(trainer(weights, callback, precision=precision), module())
    assert (callback.accelerator.used, callback.accelerator.passes) == ("fold", 3)
    mixed = precision == "bf16-mixed"
    context = torch.autocast("cpu", torch.bfloat16, cache_enabled=False) if mixed else None
    other = plain(new_stats(), weights.epochs, 3, context)
    for name in ("prediction_stability", "margin"):
        ours, theirs = stats.score(name), other.score(name)
        torch.testing.assert_close(ours, theirs, atol=0.05 if mixed else 1e-5, rtol=0)
    resumed = PoolStatsCallback(new_stats(), pool_loader(), every_n_epochs=2, accelerate="auto")
    resumed.load_state_dict({**callback.state_dict(), "accelerated": "compile"})
    assert resumed.accelerator.settled == "compile"
    assert resumed._observer._passes(2, 5) == 3  # the epochs 2, 4 and 5


class Noisy(Dataset):
    """A pool whose loading draws from every generator."""

    def __len__(self):
        return N

    def __getitem__(self, index):
        noise = random.random() + np.random.rand() + torch.rand(()).item()  # noqa: NPY002
        return POOL[index] + 0.01 * noise


@pytest.mark.parametrize("workers", [0, 1])
def test_training_is_bit_equal_with_and_without(workers):
    shared = torch.Generator().manual_seed(5)
    with_it = DataLoader(Noisy(), BATCH, shuffle=True, generator=shared, num_workers=workers)
    stats = new_stats((*TRACK, "emaod"))
    runs = []
    for observed in (False, True):
        shared.manual_seed(5)
        the_module = module()
        the_module.layers[3].eval()  # flags that differ from the module's stay as they are
        callbacks = [weights := Weights()]
        if observed:
            callbacks.append(
                PoolStatsCallback(stats, with_it, teacher=EMATeacher(the_module), mc_passes=2)
            )
        the_trainer = trainer(*callbacks, accumulate_grad_batches=2)
        fit(the_trainer, the_module, loader=labeled(generator=shared), validation=True)
        flags = [part.training for part in the_module.modules()]
        state = torch.get_rng_state(), random.random(), np.random.rand()  # noqa: NPY002
        runs.append((weights.epochs, flags, state, shared.get_state()))
    for one, other in zip(runs[0][0], runs[1][0], strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert runs[0][1] == runs[1][1]
    assert torch.equal(runs[0][2][0], runs[1][2][0])
    assert runs[0][2][1:] == runs[1][2][1:]
    assert torch.equal(runs[0][3], runs[1][3])
    assert not stats.score("bald").isnan().any()


@pytest.mark.parametrize(
    ("options", "epochs", "num_epochs"),
    [
        ({"max_steps": 5, "max_epochs": -1}, 2, None),
        ({"max_steps": 4, "max_epochs": 9}, 2, None),
        ({"limit_train_batches": 1}, 3, 3),
        ({"accumulate_grad_batches": 2, "limit_train_batches": 3}, 3, 3),
        ({"fast_dev_run": True}, 1, None),
        ({"max_time": "01:00:00:00"}, 3, None),
    ],
    ids=str,
)
def test_trainings_of_every_length(options, epochs, num_epochs):
    stats, weights = new_stats(), Weights()
    fit(trainer(weights, PoolStatsCallback(stats, pool_loader()), **options), module())
    assert len(weights.epochs) == epochs
    assert_same(stats, plain(new_stats(), weights.epochs, num_epochs))
    for name in TRACK:
        assert not stats.score(name).isnan().any()


def test_early_stopping_leaves_every_score():
    stats, weights = new_stats(), Weights()
    stop = EarlyStopping("loss", patience=1, mode="max", check_on_train_epoch_end=True)
    with pytest.warns(UserWarning, match="num_epochs is None"):
        fit(
            trainer(weights, stop, PoolStatsCallback(stats, pool_loader()), max_epochs=50), module()
        )
    assert 1 < len(weights.epochs) < 50
    assert_same(stats, plain(new_stats(), weights.epochs, None))
    assert len(stats.select("prediction_stability", 5)) == 5


class StopEarly(Callback):
    """A callback of one's own, which the trainer does not know to stop it."""

    def __init__(self, hook):
        setattr(self, hook, self.stop)

    def stop(self, trainer, *parts):
        trainer.should_stop = trainer.should_stop or trainer.global_step >= 5


@pytest.mark.parametrize("first", [True, False], ids=["before ours", "after ours"])
@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_train_epoch_end", "on_validation_end"])
def test_a_callback_of_ones_own_stops_the_training(hook, first):
    """Scores of one output get the last one; others observe each epoch once and tell what lacks."""
    stats, weights = new_stats((*TRACK, "emaod")), Weights()
    the_module = module()
    callback = PoolStatsCallback(stats, pool_loader(), teacher=EMATeacher(the_module))
    both = [StopEarly(hook), callback] if first else [callback, StopEarly(hook)]
    the_trainer = trainer(weights, *both, max_epochs=50)
    fit(the_trainer, the_module, validation=True)
    assert len(weights.epochs) == 2
    last = plain(new_stats(("margin",)), weights.epochs, 2)
    assert torch.equal(stats.score("margin"), last.score("margin"))
    assert not stats.score("emaod").isnan().any()
    every = plain(new_stats(("label_dispersion",)), weights.epochs, 50)
    assert torch.equal(stats.score("label_dispersion"), every.score("label_dispersion"))
    with pytest.raises(ValueError, match="the last one was epoch 2 of 50"):
        stats.select("prediction_stability", 5)
    assert the_module.training
    again = callback.state_dict()
    assert again["epoch"] == 2


def test_rare_passes_end_with_the_last_output_wherever_the_training_ends():
    stats, weights = new_stats(("label_dispersion", "margin")), Weights()
    callback = PoolStatsCallback(stats, pool_loader(), every_n_epochs=2)
    fit(trainer(weights, callback, max_steps=9), module())
    assert len(weights.epochs) == 3
    last = plain(new_stats(("margin",)), weights.epochs, 3)
    assert torch.equal(stats.score("margin"), last.score("margin"))
    second = new_stats(("label_dispersion",), schedules={"label_dispersion": FromEpoch(2, 2)})
    want = plain(second, weights.epochs, None).score("label_dispersion")
    assert torch.equal(stats.score("label_dispersion"), want)


def test_no_pass_is_added_to_a_training_that_ends_as_planned(monkeypatch):
    stats, passes = new_stats(("margin",), schedules={"margin": EveryEpoch()}), []
    begin = PoolStats.begin_pass
    monkeypatch.setattr(
        PoolStats, "begin_pass", lambda self, *given: passes.append(given) or begin(self, *given)
    )
    fit(trainer(PoolStatsCallback(stats, pool_loader())), module())
    fit(trainer(StopEarly("on_train_epoch_end"), PoolStatsCallback(stats, pool_loader())), module())
    assert [given[0] for given in passes] == [1, 2, 3, 1, 2]


def test_every_second_epoch_and_the_last():
    kept = {"label_dispersion": FromEpoch(2, 2)}
    stats, weights = new_stats(("label_dispersion",)), Weights()
    callback = PoolStatsCallback(stats, pool_loader(), every_n_epochs=2)
    fit(trainer(weights, callback, max_epochs=4), module())
    want = plain(new_stats(("label_dispersion",), schedules=kept), weights.epochs, 4)
    assert torch.equal(stats.score("label_dispersion"), want.score("label_dispersion"))
    margin = new_stats(("margin",))
    fit(trainer(PoolStatsCallback(margin, pool_loader(), every_n_epochs=2)), module())
    assert not margin.score("margin").isnan().any()


def test_a_schedule_that_counts_back_is_refused_where_the_end_is_unknown():
    from dynal_fast import LastEpochs

    stats = new_stats(("label_dispersion",), schedules={"label_dispersion": LastEpochs(3)})
    with pytest.raises(ValueError, match="counts back from the last epoch"):
        fit(trainer(PoolStatsCallback(stats, pool_loader()), max_steps=4), module())


class KilledError(Exception):
    pass


class Kill(Callback):
    """Ends the training at a batch."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            raise KilledError


@pytest.fixture
def no_dropout(monkeypatch):
    """Lightning does not restore torch's random state, so that dropout would differ."""
    monkeypatch.setattr(nn.Dropout, "forward", lambda self, inputs: inputs)


@pytest.mark.usefixtures("no_dropout")
@pytest.mark.parametrize("track", [TRACK, ("cod", "emaod", "label_dispersion")])
@pytest.mark.parametrize(
    ("saved", "whole_again"),
    [
        ({"save_on_train_epoch_end": True}, True),
        ({"save_on_train_epoch_end": False}, True),  # by the validation, before the epoch ends
        ({"every_n_train_steps": 2}, True),  # at the last batch of the second epoch
        ({"every_n_train_steps": 7}, False),  # in the middle, and the loader begins anew
        ({"every_n_epochs": 1, "max_steps": 15}, False),  # Lightning trains a batch more then
    ],
    ids=["epoch end", "validation end", "last batch", "middle", "max_steps"],
)
def test_a_resumed_training_ends_with_the_same_statistics(tmp_path, saved, whole_again, track):
    saved = dict(saved)
    max_steps = saved.pop("max_steps", -1)

    def run(folder, kill=None, ckpt_path=None):
        the_module, stats, weights = module(), new_stats(track), Weights()
        teacher = EMATeacher(the_module, alpha=0.9) if "emaod" in track else None
        saving = ModelCheckpoint(folder, save_last=True, save_top_k=-1, **saved)
        callbacks = [saving, weights, PoolStatsCallback(stats, pool_loader(), teacher=teacher)]
        options = {
            "limit_train_batches": 3,
            "max_steps": max_steps,
            "max_epochs": 5 if max_steps < 0 else -1,
        }
        loader = labeled(shuffle=False)  # Lightning does not restore a loader that shuffles
        validation = saved.get("save_on_train_epoch_end") is False
        the_trainer = trainer(*callbacks, *([Kill(kill)] if kill else []), **options)
        if kill:
            with pytest.raises(KilledError):
                fit(the_trainer, the_module, loader=loader, validation=validation)
        else:
            fit(the_trainer, the_module, 3, ckpt_path, loader, validation)
        return stats, weights.epochs

    killed_epochs = run(tmp_path, kill=8)[1]
    assert len(killed_epochs) == 2
    stats, epochs = run(tmp_path, ckpt_path=tmp_path / "last.ckpt")
    if whole_again:
        assert_same(stats, run(tmp_path / "whole")[0])
    elif "emaod" not in track:
        num_epochs = 5 if max_steps < 0 else None
        assert_same(stats, plain(new_stats(track), [*killed_epochs, *epochs[-3:]], num_epochs))
    assert int(stats.state_dict()["passes"]) == 5


@pytest.mark.usefixtures("no_dropout")
def test_a_teacher_of_low_precision_resumes(tmp_path):
    def run(folder, epochs, ckpt_path=None):
        the_module, stats = module(), new_stats(("emaod",))
        teacher = EMATeacher(the_module, alpha=0.9)
        callback = PoolStatsCallback(stats, pool_loader(), teacher=teacher)
        saving = ModelCheckpoint(folder, save_last=True)
        options = {"precision": "bf16-true", "max_epochs": epochs}
        loader = labeled(shuffle=False)
        fit(trainer(saving, callback, **options), the_module, 3, ckpt_path, loader)
        return stats

    run(tmp_path / "short", 2)
    resumed = run(tmp_path / "resumed", 4, tmp_path / "short" / "last.ckpt")
    assert torch.equal(resumed.score("emaod"), run(tmp_path / "whole", 4).score("emaod"))


def test_a_pass_that_broke_off_is_not_taken_for_whole(tmp_path):
    def broken(the_module, batch):
        if broken.left == 0:
            raise KilledError
        broken.left -= 1
        return the_module(batch[0])

    broken.left = 5  # in the second pass of four batches
    stats = new_stats(("label_dispersion",))
    saving = OnExceptionCheckpoint(tmp_path)
    callback = PoolStatsCallback(stats, pool_loader(), get_logits=broken)
    with pytest.raises(KilledError):
        fit(trainer(saving, callback), module())
    again = PoolStatsCallback(new_stats(("label_dispersion",)), pool_loader())
    with pytest.raises(ValueError, match="in the middle of a pass over the pool, after epoch 1"):
        fit(trainer(again), module(), ckpt_path=tmp_path / "on_exception.ckpt")


def test_a_checkpoint_of_another_tracker_or_without_one(tmp_path):
    saving = ModelCheckpoint(tmp_path, save_last=True)
    fit(trainer(saving, PoolStatsCallback(new_stats(("margin",)), pool_loader())), module())
    other = PoolStatsCallback(new_stats(("entropy",)), pool_loader())
    with pytest.raises(ValueError, match="were track and schedules the same"):
        fit(trainer(other, max_epochs=4), module(), ckpt_path=tmp_path / "last.ckpt")
    named = PoolStatsCallback(new_stats(("margin",)), pool_loader(), name="second")
    with pytest.warns(UserWarning, match="from a checkpoint without pool statistics"):
        fit(trainer(named, max_epochs=4), module(), ckpt_path=tmp_path / "last.ckpt")


def test_two_trainings_with_one_callback():
    stats = new_stats(("label_dispersion",))
    callback = PoolStatsCallback(stats, pool_loader())
    fit(trainer(callback, max_epochs=2), module())
    stats.drop(stats.select("label_dispersion", 5))
    stats.begin_cycle()
    weights = Weights()
    fit(trainer(callback, weights, max_epochs=2), module(1))
    assert len(weights.epochs) == 2
    assert int(stats.state_dict()["label_counts"].sum()) == 2 * (N - 5)


@pytest.mark.parametrize("again", [True, False], ids=["the same callback", "a new one"])
def test_a_second_training_that_adds_to_the_first_is_told(again):
    stats = new_stats(("label_dispersion",))
    callback = PoolStatsCallback(stats, pool_loader())
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*begin_cycle")
        fit(trainer(callback, max_epochs=1), module())
        stats.begin_cycle()
        fit(trainer(callback, max_epochs=1), module())
        last = PoolStatsCallback(new_stats(("margin",)), pool_loader())
        for _ in range(2):  # each observation replaces the one before
            fit(trainer(last, max_epochs=1), module())
    callback = callback if again else PoolStatsCallback(stats, pool_loader())
    with pytest.warns(UserWarning, match=r"another one, to which they add: stats.begin_cycle\(\)"):
        fit(trainer(callback, max_epochs=1), module())


class InTensors(Dataset):
    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index], "a text", index % C


class Stream(IterableDataset):
    def __iter__(self):
        yield from POOL


class Reversed(BatchSampler):
    def __iter__(self):
        return iter([*super().__iter__()][::-1])


@pytest.mark.parametrize(
    "loader",
    [
        pool_loader(shuffle=True, drop_last=True),
        pool_loader(num_workers=2, persistent_workers=True),
        pool_loader(sampler=torch.randperm(N).tolist()),
        pool_loader(sampler=SubsetRandomSampler(range(N))),
        DataLoader(InTensors(POOL), batch_size=BATCH),
        DataLoader(Stream(), batch_size=BATCH),
        DataLoader(Stream(), batch_size=BATCH, num_workers=1),
        DataLoader(
            TensorDataset(POOL), batch_sampler=Reversed(SequentialSampler(POOL), BATCH, False)
        ),
    ],
    ids=["shuffled", "workers", "list", "subset", "texts", "stream", "worker", "batch sampler"],
)
def test_positions_of_any_loader(loader):
    stats, weights = new_stats(), Weights()
    fit(trainer(weights, PoolStatsCallback(stats, loader)), module())
    want = plain(new_stats(), weights.epochs, 3)
    for name in TRACK:
        torch.testing.assert_close(stats.score(name), want.score(name), rtol=1e-5, atol=1e-6)


def test_ids_of_the_batches_themselves():
    stats, weights = new_stats(), Weights()
    batches = [{"x": POOL[ids], "idx": ids} for ids in torch.arange(N).split(BATCH)]
    callback = PoolStatsCallback(
        stats, batches, get_logits=lambda module, batch: module(batch["x"]), ids="idx"
    )
    fit(trainer(weights, callback), module())
    assert_same(stats, plain(new_stats(), weights.epochs, 3))


def test_a_sample_that_was_dropped_or_is_no_candidate_is_left_out():
    stats = new_stats(("margin",))
    stats.drop([3, 7])
    subset = pool_loader(sampler=SubsetRandomSampler(range(40)))
    fit(trainer(PoolStatsCallback(stats, subset, partial=True)), module())
    missing = stats.score("margin").isnan().nonzero().squeeze(1).tolist()
    assert missing == [3, 7, *range(40, N)]


class OwnLoader(DataLoader):
    def __iter__(self):
        return super().__iter__()


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        (DataLoader(TensorDataset(POOL[:9])), "has 9 samples and stats 50"),
        (pool_loader(batch_size=None), "batch_size=None"),
        (OwnLoader(TensorDataset(POOL)), "OwnLoader has an __iter__ of its own"),
        (DataLoader(Stream(), num_workers=2), "numbered by 2 workers"),
        (pool_loader(sampler=RandomSampler(POOL, num_samples=9)), "RandomSampler draws"),
        (pool_loader(sampler=WeightedRandomSampler([1.0] * N, N)), "WeightedRandomSampler draws"),
    ],
)
def test_a_loader_without_positions_is_refused_at_once(loader, message):
    with pytest.raises(ValueError, match=message):
        PoolStatsCallback(new_stats(), loader)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((None, pool_loader()), TypeError, "stats must be a PoolStats, got NoneType"),
        ((new_stats(), [POOL]), TypeError, "torch DataLoader, got list"),
        ((new_stats(), pool_loader(), None, 0), ValueError, "every_n_epochs must be at least 1"),
        ((new_stats(), pool_loader(), None, 1, "ema"), TypeError, "teacher must be a module"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        PoolStatsCallback(*arguments)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"get_logits": "x"}, TypeError, "get_logits must be a function, got str"),
        ({"mc_passes": -1}, ValueError, "mc_passes must be 0 .* or more, got -1"),
        ({"ids": 1.5}, TypeError, "ids must be an integer, got 1.5"),
        ({"name": 3}, TypeError, "name must be a text, got 3"),
    ],
)
def test_bad_options_are_named_before_an_epoch_is_trained(options, error, message):
    with pytest.raises(error, match=message):
        PoolStatsCallback(new_stats(), pool_loader(), **options)


def test_scores_of_labeled_samples_alone_are_refused():
    with pytest.raises(ValueError, match=r"tracks aum, of labeled .* pass train=True and ids="):
        PoolStatsCallback(new_stats(("aum",)), pool_loader())
    stats = new_stats(("aum", "margin"))
    fit(trainer(PoolStatsCallback(stats, pool_loader()), max_epochs=1), module())
    with pytest.raises(ValueError, match=r"'aum', .* it needs the classes of labeled samples"):
        stats.select("aum", 3)


def test_a_batch_that_the_module_cannot_take_names_get_logits():
    class InDicts(Dataset):
        def __len__(self):
            return N

        def __getitem__(self, i):
            return {"image": POOL[i], "name": str(i)}

    loader = DataLoader(InDicts(), batch_size=BATCH)
    with pytest.raises(TypeError, match=r"inputs\['image'\].*as get_logits="):
        fit(trainer(PoolStatsCallback(new_stats(), loader)), module())


def test_logits_that_are_not_finite_are_named():
    def poisoned(the_module, batch):
        return the_module(batch[0]).index_fill(0, torch.tensor([1]), torch.nan)

    callback = PoolStatsCallback(new_stats(), pool_loader(), get_logits=poisoned)
    with pytest.raises(PoolObservationError, match=r"non-finite logit: 1, 17, 33, 49"):
        fit(trainer(callback), module())


def test_hooks_for_batches_run_as_in_prediction():
    seen = []

    class WithHooks(Classifier):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            seen.append((len(batch), self.trainer.training))
            return batch

    torch.manual_seed(0)
    fit(trainer(PoolStatsCallback(new_stats(), pool_loader()), max_epochs=1), WithHooks())
    assert seen == [(2, True)] * 3 + [(1, False)] * 4


def test_a_strategy_that_spreads_the_model_is_refused():
    class FSDPStrategy:
        pass

    class Spread:
        strategy = FSDPStrategy()

    with pytest.raises(ValueError, match="FSDPStrategy spreads the model itself"):
        PoolStatsCallback(new_stats(), pool_loader()).setup(Spread(), None, "fit")


def test_a_teacher_is_attached_and_let_go():
    the_module = module()
    teacher = EMATeacher(the_module, alpha=0.5)
    stats = new_stats(("emaod",))
    fit(trainer(PoolStatsCallback(stats, pool_loader(), teacher=teacher)), the_module)
    assert teacher.num_updates == 9
    assert not teacher.attached
    with torch.no_grad():
        student = the_module.eval()(POOL).softmax(1)
        want = (student - teacher.model(POOL).softmax(1)).norm(dim=1)
    torch.testing.assert_close(stats.score("emaod"), want)


class Written(Callback):
    """Each process writes its statistics, and the first its weights."""

    def __init__(self, folder, stats, weights):
        self.folder, self.stats, self.weights = folder, stats, weights

    def on_fit_end(self, trainer, pl_module):
        state = {"stats": self.stats.state_dict(), "weights": self.weights.epochs}
        torch.save(state, self.folder / f"{trainer.global_rank}.pt")


@pytest.mark.filterwarnings("ignore:.*fork")
@pytest.mark.parametrize("case", ["whole", "fewer batches than processes", "bad row"])
def test_two_processes_have_the_statistics_of_one(tmp_path, case):
    stats, weights = new_stats((*TRACK, "cod")), Weights()
    size = N if case == "fewer batches than processes" else BATCH

    def forward(the_module, batch):
        logits = the_module(batch[0])
        bad = case == "bad row" and torch.equal(batch[0][0], POOL[BATCH])
        return logits / 0 if bad else logits

    callback = PoolStatsCallback(stats, pool_loader(batch_size=size, shuffle=True), forward)
    two = trainer(
        weights, callback, Written(tmp_path, stats, weights), devices=2, strategy="ddp_fork"
    )
    if case == "bad row":
        with pytest.raises(Exception, match="16 samples with a non-finite logit: 16, 17"):
            fit(two, module())
        return
    fit(two, module())
    one, other = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for name, tensor in one["stats"].items():
        assert tensor.numpy().tobytes() == other["stats"][name].numpy().tobytes(), name
    want = plain(new_stats((*TRACK, "cod")), one["weights"], 3, batch=size)
    got = new_stats((*TRACK, "cod"))
    got.load_state_dict(other["stats"])
    assert_same(got, want)


@pytest.mark.filterwarnings("ignore:.*fork")
def test_two_processes_that_a_callback_stops(tmp_path):
    stats, weights = new_stats(("margin", "label_dispersion")), Weights()
    own = StopEarly("on_train_epoch_end"), PoolStatsCallback(stats, pool_loader())
    written = Written(tmp_path, stats, weights)
    options = {"devices": 2, "strategy": "ddp_fork", "max_epochs": 50}
    fit(trainer(weights, *own, written, **options), module())
    saved = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    epochs = saved[0]["weights"]
    assert 1 < len(epochs) < 50
    for rank in range(2):
        got = new_stats(stats.track)
        got.load_state_dict(saved[rank]["stats"])
        for name, num_epochs in (("margin", len(epochs)), ("label_dispersion", 50)):
            want = plain(new_stats((name,)), epochs, num_epochs)
            assert torch.equal(got.score(name), want.score(name))


@pytest.mark.parametrize("name", ["pytorch_lightning"])
def test_the_other_name_of_the_library(name):
    other = pytest.importorskip(name)

    class Other(other.LightningModule):
        forward = Classifier.forward
        training_step = Classifier.training_step
        configure_optimizers = Classifier.configure_optimizers

        def __init__(self):
            super().__init__()
            self.layers = Classifier().layers

    stats = new_stats()
    the_trainer = other.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        callbacks=[PoolStatsCallback(stats, pool_loader())],
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    the_trainer.fit(Other(), labeled())
    assert len(stats.select("label_dispersion", 5)) == 5


def test_schedules_without_an_end_are_followed():
    schedules = {"prediction_stability": EveryEpoch()}
    stats = new_stats(("prediction_stability",), schedules=schedules)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*num_epochs is None")
        fit(trainer(PoolStatsCallback(stats, pool_loader()), max_steps=7, max_epochs=-1), module())
    assert int(stats.state_dict()["passes"]) == 3


def test_the_lines_of_the_guide_run():
    pool = TensorDataset(torch.randn(200, D))
    names = {"pool": pool, "DataLoader": DataLoader, "module": module(), "train_loader": labeled()}
    names["Trainer"] = lambda callbacks, max_epochs: trainer(*callbacks, max_epochs=2)
    code = snippet("in-your-trainer", "PyTorch Lightning").replace(
        "num_classes=10", "num_classes=3"
    )
    exec(code, names)
    assert len(names["picks"]) == 100
