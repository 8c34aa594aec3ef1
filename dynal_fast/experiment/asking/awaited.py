"""What a run waits for, and what it tells the person to do."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dynal_fast.plain import shown

TO_LABEL, TASKS, INTERFACE = "to_label.csv", "label_studio_tasks.json", "label_studio_config.xml"
ANSWERS = "answers"
NAMED, MANY = 5, 30  # samples and classes that a message names


def listed(names: Sequence[str], most: int = NAMED) -> str:
    """Return the first of many names, and how many more there are.

    >>> listed(["a", "b, c", "d", "e", "f", "g", "h"])
    "'a', 'b, c', 'd', 'e', 'f' and 2 more"
    """
    if len(names) <= most + 1:
        return ", ".join(map(shown, names))
    return f"{', '.join(map(shown, names[:most]))} and {len(names) - most} more"


@dataclass(frozen=True)
class Awaited:
    """What a run waits for: the samples that were asked for, and those without a label yet.

    Attributes
    ----------
    folder
        Of the run, with ``to_label.csv`` and the others.
    asked, missing
        Names of samples.
    classes
        The names of the classes.
    cycle
        The training that waits.
    new
        Whether this call asked for them; False where it found that the run waits still.
    """

    folder: Path
    asked: tuple[str, ...]
    missing: tuple[str, ...]
    classes: tuple[str, ...]
    cycle: int
    new: bool

    def message(self) -> str:
        """Return what a person is to do next."""
        count, training = len(self.missing), "the first training"
        if self.cycle:
            training = f"the training of cycle {self.cycle}"
        if self.new:
            start = f"Labels of {count} samples are needed for {training}."
        else:
            start = (
                f"Waiting for {count} of {len(self.asked)} labels for {training}, of "
                f"{listed(self.missing)}. Nothing was changed."
            )
        return (
            f"{start}\n"
            f"  Fill in the column label of {self.folder / TO_LABEL},\n"
            f"  or import {self.folder / TASKS} into Label Studio (labeling interface: "
            f"{INTERFACE})\n"
            f"  and put its export (JSON, JSON-MIN or CSV) into {self.folder / ANSWERS}.\n"
            f"  Classes: {listed(self.classes, MANY)}.\n"
            "Then run the same command again."
        )
