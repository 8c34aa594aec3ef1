"""Twins in the experiment's loop: what observes and embeds, and what a resumed run repeats."""

import pytest

from dynal_fast.experiment import ActiveLearningExperiment, Protocol, Training, load_data
from dynal_fast.experiment.checkpoint import Checkpoint
from dynal_fast.experiment.observation import PoolObserver
from dynal_fast.experiment.resume import _earlier
from dynal_fast.experiment.runs import CycleResult
from dynal_fast.pool import accelerator as accelerator_module


def experiment(strategy, cycles=2, **options):
    return ActiveLearningExperiment(
        load_data("digits"),
        "cnn",
        strategy,
        protocol=Protocol(initial=30, budget=12, cycles=cycles),
        training=Training(epochs=1),
        **options,
    )


def test_the_loop_embeds_through_a_twin():
    runs = [
        experiment("farthest_first", cycles=1, accelerate=mode).run() for mode in ("off", "fold")
    ]
    assert [cycle.selected for cycle in runs[0].cycles] == [c.selected for c in runs[1].cycles]
    used = [[cycle.accelerated for cycle in run.cycles] for run in runs]
    assert used == [[None, None], ["fold, off", None]]  # the labeled samples are a single batch


@pytest.mark.parametrize("mode", ["off", "fold"])
@pytest.mark.parametrize("strategy", ["entropy", "bald"])
def test_the_loop_observes_through_a_twin_and_says_so(mode, strategy, tmp_path):
    def run(**options):
        return experiment(strategy, **options).run()

    ours = run(accelerate=mode, directory=tmp_path)
    assert [cycle.accelerated for cycle in ours.cycles] == [mode, mode, None]
    again = run(accelerate=mode, directory=tmp_path)  # read from the checkpoint
    assert again.cycles == ours.cycles
    with pytest.raises(ValueError, match="belongs to a different configuration: accelerate"):
        run(accelerate="auto", directory=tmp_path)
    assert [c.selected for c in run().cycles] == [c.selected for c in ours.cycles]


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("strategy", ["entropy", "farthest_first"])
def test_a_resumed_run_repeats_what_each_kind_of_pass_settled_on(
    strategy, earlier, monkeypatch, tmp_path
):
    def run(**options):
        return experiment(strategy, accelerate="auto", directory=tmp_path, **options)

    def stop(cycle, epoch):
        if cycle == 1:
            raise KeyboardInterrupt

    # An observer that is slower through a twin, an embedder that is not.
    monkeypatch.setattr(accelerator_module, "WORTH_COUNTING", 2)
    monkeypatch.setattr(
        accelerator_module, "_fastest", lambda twin, bare, *_: "fold" if bare.embeds else "off"
    )
    with pytest.raises(KeyboardInterrupt):
        run(on_epoch=stop).run()
    path = tmp_path / "checkpoint.safetensors"
    checkpoint = Checkpoint.load(path)
    if earlier:
        checkpoint.facts.pop("settled")
        checkpoint.save(path)
    monkeypatch.setattr(accelerator_module, "_fastest", None)  # no clock
    observers, plain = [], PoolObserver.repeat
    monkeypatch.setattr(
        PoolObserver, "repeat", lambda self, given: observers.append(self) or plain(self, given)
    )
    run().run()
    (observer,) = observers
    settled = {"observer": "off"} if strategy == "entropy" else {"embedder": "fold"}
    unsettled = dict.fromkeys(("observer", "teacher", "embedder"))
    assert observer.settled() == {**unsettled, **settled}


def test_an_earlier_checkpoint_says_what_the_observed_passes_used():
    observer = experiment("entropy", accelerate="auto").observer()
    cycles = [CycleResult(0, 30, 0.5, 0.5, [1], accelerated="off, fold")]
    observer.repeat(_earlier(observer, cycles))
    assert observer.settled() == {"observer": "off", "teacher": None, "embedder": None}
    observer.repeat(_earlier(observer, []))
    assert observer.accelerator.settled == "off"
