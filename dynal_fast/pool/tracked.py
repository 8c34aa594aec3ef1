"""Which scores a tracker keeps the state of, when each observes, and how they share tensors."""

from collections.abc import Iterable, Mapping

from dynal_fast.ops.pool_stats import MAX_PASSES, REQUIRED, STATE
from dynal_fast.ops.pool_stats.contract import check_activation
from dynal_fast.pool.candidates import integer
from dynal_fast.pool.schedule import LastEpochs, Schedule, without_end
from dynal_fast.pool.scores import ALIASES, TRACKABLE

# Parts of which each observation replaces the one before.
KEEPS_LAST = ("cycle", "teacher", "last")


def checked_sizes(num_samples: int, num_classes: int, activation: str) -> tuple[int, int]:
    """Return the two sizes of a tracker as integers, checked with its activation."""
    check_activation(activation)
    num_samples = integer("num_samples", num_samples)
    num_classes = integer("num_classes", num_classes)
    if num_samples < 0:
        raise ValueError(f"num_samples must not be negative, got {num_samples}")
    if num_classes < 1 and activation == "sigmoid":
        raise ValueError(f"num_classes must be at least 1, got {num_classes}")
    if num_classes < 2 and activation == "softmax":
        raise ValueError(
            f"num_classes must be at least 2, got {num_classes}: the softmax of one logit is "
            "always 1, so no score could tell samples apart (for a binary classifier with one "
            "output z, pass activation='sigmoid', or use 2 classes and the logits (0, z))"
        )
    return num_samples, num_classes


def checked_epoch(epoch: int, num_epochs: int | None) -> tuple[int, int | None]:
    """Return the epoch and the number of epochs as integers, checked."""
    epoch = integer("epoch", epoch)
    if num_epochs is None:
        if epoch < 1:
            raise ValueError(f"epoch counts from 1, got {epoch}")
        return epoch, None
    unknown = "pass num_epochs=None where the number of epochs is unknown"
    try:
        num_epochs = integer("num_epochs", num_epochs)
    except TypeError as error:
        raise TypeError(f"{error}; {unknown}") from None
    if not 1 <= num_epochs <= MAX_PASSES:
        raise ValueError(f"num_epochs must be 1 to {MAX_PASSES}, got {num_epochs}; {unknown}")
    if not 1 <= epoch <= num_epochs:
        raise ValueError(
            f"epoch must be between 1 and num_epochs = {num_epochs}, got {epoch}; {unknown}"
        )
    return epoch, num_epochs


def checked_track(track: Iterable[str], activation: str) -> tuple[str, ...]:
    """Return the names of the scores to track, checked, aliases resolved.

    Raises
    ------
    ValueError
        A name is none, comes twice, or has no meaning with this activation.
    """
    if isinstance(track, str):
        raise ValueError(f"track must be a sequence of names, got the string {track!r}")
    names = tuple(ALIASES.get(name, name) for name in track)
    known = (*TRACKABLE, "random")
    for name in names:
        if name not in known:
            raise ValueError(f"track must name some of {(*known, *ALIASES)}, got {name!r}")
    if len(set(names)) != len(names) or not names:
        raise ValueError(f"track must name at least one score, each once, got {names}")
    if activation == "sigmoid":
        for name in names:
            if name in TRACKABLE and TRACKABLE[name].of_sigmoids is None:
                available = ", ".join(n for n, score in TRACKABLE.items() if score.of_sigmoids)
                raise ValueError(
                    f"{name} is not defined for activation='sigmoid', where a sample may have "
                    f"several labels; available: {available}"
                )
    return names


def checked_schedules(
    track: tuple[str, ...], schedules: Mapping[str, Schedule]
) -> dict[str, Schedule]:
    """Return the schedule of each tracked score: those given, checked, else its default."""
    schedules = {ALIASES.get(name, name): schedule for name, schedule in schedules.items()}
    for name, schedule in schedules.items():
        if name not in track or name not in TRACKABLE:
            raise ValueError(f"schedules has {name!r}, which is not a statistic in track={track}")
        if not isinstance(schedule, Schedule):
            raise ValueError(
                f"the schedule of {name} must have observes(epoch, num_epochs), got {schedule!r}"
            )
    default = {name: TRACKABLE[name].schedule for name in track if name in TRACKABLE}
    return {**default, **schedules}


def part_of(score: str) -> str:
    """Return the part of the state from which a score or alias is computed."""
    return TRACKABLE[ALIASES.get(score, score)].part


def in_force(part: str, schedule: Schedule, num_epochs: int | None) -> Schedule:
    """Return the schedule that a part follows, which differs if ``num_epochs`` is None."""
    return schedule if num_epochs is not None else without_end(schedule, part in KEEPS_LAST)


def observes(part: str, schedule: Schedule, epoch: int, num_epochs: int | None) -> bool:
    """Return whether a part of the state observes an epoch.

    Raises
    ------
    ValueError
        A user's own schedule fails on ``num_epochs=None``.
    """
    try:
        return bool(in_force(part, schedule, num_epochs).observes(epoch, num_epochs))
    except TypeError as error:
        if num_epochs is not None:
            raise
        raise ValueError(f"{schedule!r} cannot do with num_epochs=None: {error}") from error


def check_without_end(schedules: Mapping[str, Schedule]) -> None:
    """Check that the schedules that were given can be followed without ``num_epochs``.

    Raises
    ------
    ValueError
        One counts back from the last epoch and belongs to a statistic over several epochs.
    """
    for name, schedule in schedules.items():
        if isinstance(schedule, LastEpochs) and part_of(name) not in KEEPS_LAST:
            raise ValueError(
                f"the schedule of {name}, {schedule}, counts back from the last epoch, and "
                "num_epochs is None; give it one that needs no end, such as "
                f"schedules={{{name!r}: FromEpoch(start, interval)}} or EveryEpoch()"
            )


def plan(
    schedules: Mapping[str, Schedule],
) -> tuple[list[dict[str, Schedule]], list[set[str]], dict[str, int]]:
    """Spread the scores over sets of tensors, so that each part of a set has one schedule.

    Returns, for each set, the schedules of its parts and the names of its tensors; and for each
    score the index of its set. There is always at least one set. The order of ``schedules``
    and of ``TRACKABLE`` does not matter, so that trackers can be merged and restored whatever the
    order of ``track``.

    >>> from dynal_fast.pool.schedule import EveryEpoch
    >>> parts, tensors, home = plan({"bald": EveryEpoch(), "margin": LastEpochs(1)})
    >>> len(parts), sorted(tensors[0]), home
    (1, ['count', 'entropy_sum', 'last_margin', 'mean'], {'margin': 0, 'bald': 0})
    >>> plan({"bald": EveryEpoch(), "prediction_stability": LastEpochs(5)})[2]
    {'prediction_stability': 0, 'bald': 1}
    """
    parts: list[dict[str, Schedule]] = [{}]
    tensors: list[set[str]] = [set()]
    home: dict[str, int] = {}
    for score in sorted(schedules, key=_place):
        schedule = schedules[score]
        needed = TRACKABLE[score].tensors
        part = part_of(score)
        fitting = (k for k, used in enumerate(parts) if used.get(part, schedule) == schedule)
        k = next(fitting, len(parts))
        if k == len(parts):
            parts.append({})
            tensors.append(set())
        parts[k][part] = schedule
        tensors[k].update(REQUIRED[part], needed)
        home[score] = k
    return parts, tensors, home


def _place(score: str) -> tuple[bool, str]:
    """A fixed order, on which the keys of saved states depend."""
    return any(STATE[name].per_class for name in TRACKABLE[score].tensors), score
