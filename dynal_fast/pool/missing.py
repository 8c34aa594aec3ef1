"""Messages: why a sample has no score, and what to change."""

from torch import Tensor

from dynal_fast.pool.candidates import first_ids
from dynal_fast.pool.schedule import LastEpochs, Schedule, without_end
from dynal_fast.pool.scores import ALIASES, TRAINING_SCORES
from dynal_fast.pool.tracked import KEEPS_LAST, part_of

Epoch = tuple[int, int | None]  # the epoch, and how many there are, None if unknown


def reason(
    name: str,
    ids: Tensor,
    observed: Tensor,
    refused: Tensor,
    schedule: Schedule,
    last: Epoch | None,
) -> str:
    """Return why the samples ``ids`` score NaN.

    Parameters
    ----------
    observed
        (N,) bool: which samples the statistic has observed.
    refused
        (N,) bool: which samples' last row had a logit that was not finite or too large.
    last
        The last epoch given to ``observes``.
    """
    unobserved = ids[~observed[ids]]
    if not len(unobserved):
        return f"{len(ids)} candidates have no {name!r}, {_too_few(name)}: {first_ids(ids)}"
    bad = unobserved[refused[unobserved]]
    if len(bad):
        return (
            f"{len(bad)} candidates have no {name!r}, since their last row, as end_pass said, has "
            f"a logit that is not finite or too large: {first_ids(bad)}; mend the model or leave "
            "them out of candidates"
        )
    what = f"{len(unobserved)} candidates have no {name!r}, since it was never observed for them"
    if ALIASES.get(name, name) in TRAINING_SCORES and not bool(observed.any()):
        return (
            f"{what}: it needs the classes of labeled samples, update(..., targets=), "
            "observe_pool(..., targets=) or a callback with train=True"
        )
    if not bool(observed.any()) and last is not None:
        return (
            f"{what}: it observes {schedule}, and none of these epochs came; the last one was "
            f"epoch {last[0]}{'' if last[1] is None else f' of {last[1]}'}. {_cure(name, schedule)}"
        )
    return f"{what}: {first_ids(unobserved)}; observe them or leave them out of candidates"


def stopped_early(name: str, schedule: Schedule, last: Epoch | None) -> str | None:
    """Return a warning if a statistic over the last epochs observed only some of them, or None."""
    if last is None or not isinstance(schedule, LastEpochs):
        return None
    epoch, num_epochs = last
    if num_epochs is None or epoch == num_epochs or part_of(name) in KEEPS_LAST:
        return None
    wanted = [e for e in _backwards(schedule, num_epochs) if e >= 1]
    came = [e for e in wanted if e <= epoch]
    return (
        f"{name} observes {schedule}, but training stands at epoch {epoch} of {num_epochs}: "
        f"{len(came)} of {len(wanted)} epochs were observed. {_cure(name, schedule)}"
    )


def _backwards(schedule: LastEpochs, num_epochs: int) -> list[int]:
    n = min(schedule.n, (num_epochs - 1) // schedule.interval + 1)
    return [num_epochs - i * schedule.interval for i in range(n)]


def _cure(name: str, schedule: Schedule) -> str:
    keeps_last = part_of(name) in KEEPS_LAST
    if without_end(schedule, keeps_last) == schedule:  # it does not wait for the end
        return f"Give it earlier epochs: schedules={{{name!r}: FromEpoch(start, interval)}}"
    if keeps_last:
        return (
            "Where training may stop early, pass num_epochs=None: every epoch is observed then, "
            f"and the last one counts (or give schedules={{{name!r}: EveryEpoch()}})"
        )
    return (
        "Where training may stop early, pass num_epochs=None, or a schedule that needs no end: "
        f"schedules={{{name!r}: FromEpoch(start, interval)}}"
    )


def _too_few(name: str) -> str:
    if part_of(name) == "cycle":
        return (
            "since it compares outputs of two cycles, and only one observed them (observe the "
            "initial model before the first cycle, and call begin_cycle() where a cycle begins)"
        )
    return "though it was observed for them: too few observations for these options"
