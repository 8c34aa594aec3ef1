"""The desk: the files in a run's folder over which the run and a person exchange labels."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from dynal_fast.data.catalogue import Catalogue, UnknownSampleError
from dynal_fast.data.source import DatasetCorruptError
from dynal_fast.data.table import read_table, table_bytes
from dynal_fast.experiment.asking.answers import (
    SUFFIXES,
    Answer,
    check_same,
    read_answers,
)
from dynal_fast.experiment.asking.awaited import (
    ANSWERS,
    INTERFACE,
    TASKS,
    TO_LABEL,
    Awaited,
    listed,
)
from dynal_fast.experiment.asking.label_studio import interface_xml, tasks_json
from dynal_fast.experiment.asking.oracle import NO_LABEL, AskingOracle
from dynal_fast.experiment.runs import Request
from dynal_fast.files import write_atomically

LABELS, SAMPLES = "labels.csv", "samples.csv"


class Desk:
    """Reads the labels of a run whose oracle is a person, and writes what it asks for.

    In the folder of the run are

    ``samples.csv``
        The number, the name and the state of every sample: a run goes on over the same ones only.
    ``labels.csv``
        Every label that the run uses, with the training that used it first. It grows before that
        training starts, so that no label is lost.
    ``to_label.csv``
        What a person is asked for, with an empty column ``label``.
    ``label_studio_tasks.json``, ``label_studio_config.xml``
        The same for Label Studio.
    ``answers/``
        A place for exports and other tables of labels, under any name.

    Parameters
    ----------
    folder
        The folder of the run; nothing is written before `begin`.
    catalogue, labels, classes
        The samples, int64 ``(samples,)`` with -1 where there is no label, and the names of the
        classes.
    given
        More files of labels.

    Raises
    ------
    ValueError
        The samples are not those that the run began with; a file of labels is damaged, or names an
        unknown sample or class; a sample is labeled twice, with different classes.
    OSError
        A file cannot be read.
    """

    def __init__(
        self,
        folder: Path,
        catalogue: Catalogue,
        labels: Tensor,
        classes: Sequence[str],
        given: Iterable[Path] = (),
    ) -> None:
        self.folder, self.catalogue, self.classes = folder, catalogue, tuple(classes)
        self._check_samples()
        self.known: dict[int, Answer] = {}
        for sample in (labels != NO_LABEL).nonzero().flatten().tolist():
            where = f"the data, {catalogue.root}"
            self.known[sample] = Answer(sample, int(labels[sample]), where)
        self.recorded = self._content(LABELS)
        self.record = self._read_record()  # sample → cycle, in the order of labeling
        self.offered: list[int] = []  # samples that have a label in to_label.csv
        self._read_answers(given)
        told = torch.full((len(catalogue),), NO_LABEL)
        for sample, answer in self.known.items():
            told[sample] = answer.label
        initial = [sample for sample, cycle in self.record.items() if cycle == 0]
        self.oracle = AskingOracle(
            told, classes, torch.tensor(initial) if initial else None, self._accept
        )

    def begin(self, initial: Tensor) -> None:
        """Write down, under the lock of the folder, what the run begins with.

        Raises
        ------
        OSError
            Another run wrote to the folder since this one read it; or a file cannot be written.
        """
        if self._content(LABELS) != self.recorded:
            raise OSError(f"another run wrote to {self.folder} just now; run the command again")
        if not (self.folder / SAMPLES).exists():
            names = enumerate(zip(self.catalogue.names, self.catalogue.states, strict=True))
            rows = [[i, name, state] for i, (name, state) in names]
            header = ["id", self.catalogue.column, "state"]
            write_atomically(self.folder / SAMPLES, table_bytes(header, rows))
        if not self.record:
            self.record = dict.fromkeys(initial.tolist(), 0)
            self._write_record()

    def ask(self, request: Request) -> Awaited:
        """Write what a person is asked for, where it is not written yet, and return it.

        Labels that are in ``to_label.csv`` already stay in it.
        """
        (self.folder / ANSWERS).mkdir(exist_ok=True)
        samples = list(dict.fromkeys([*request.ids, *request.missing]))
        tasks = tasks_json(self.catalogue, self.classes, request, samples)
        is_new = self._content(TASKS) != tasks
        if not set(request.missing) <= self._listed():
            write_atomically(self.folder / TO_LABEL, self._request_with_offers(request, samples))
            is_new = True
        for name, content in (
            (TASKS, tasks),
            (INTERFACE, interface_xml(self.catalogue, self.classes)),
        ):
            if self._content(name) != content:
                write_atomically(self.folder / name, content)
        asked, missing = (
            tuple(self.catalogue.names[sample] for sample in ids)
            for ids in (samples, request.missing)
        )
        return Awaited(self.folder, asked, missing, self.classes, request.cycle, is_new)

    def _request_with_offers(self, request: Request, samples: Sequence[int]) -> bytes:
        """Return the table that takes the place of ``to_label.csv``, with the labels in that."""
        while True:
            read = self._content(TO_LABEL)
            if read is not None:
                for sample in self._unasked():  # no training used their labels: they may change
                    self.known.pop(sample, None)
                self.offered = self._learn(self.folder / TO_LABEL)
            content = self._request_table(request, [*samples, *self._unasked()])
            if self._content(TO_LABEL) == read:  # a person may save it at any time
                return content

    def _request_table(self, request: Request, samples: Sequence[int]) -> bytes:
        ranks = {sample: rank for rank, sample in enumerate(request.ids)}
        header = [self.catalogue.column, "label", "rank", "score", "predicted", "probability"]
        rows = []
        for sample in dict.fromkeys(samples):
            rank, answer = ranks.get(sample), self.known.get(sample)
            row = [self.catalogue.names[sample], self.classes[answer.label] if answer else ""]
            row += ["" if rank is None else str(rank + 1)]
            row += [f"{request.scores[rank]:.6g}" if rank is not None and request.scores else ""]
            row += (
                [self.classes[request.predicted[rank]], f"{request.probabilities[rank]:.4f}"]
                if rank is not None and request.predicted
                else ["", ""]
            )
            rows.append([*row, self.catalogue.texts[sample]] if self.catalogue.texts else row)
        return table_bytes([*header, "text"] if self.catalogue.texts else header, rows)

    def _unasked(self) -> list[int]:
        """Return the samples that have a label in ``to_label.csv`` and were never asked for."""
        return [sample for sample in self.offered if sample not in self.record]

    def _accept(self, ids: Tensor, labels: Tensor) -> None:
        """Write down the labels that a training is about to use."""
        # A training that was killed asks again, and finds its labels written down.
        trainings = max(self.record.values(), default=0) + 1
        new = [sample for sample in ids.tolist() if sample not in self.record]
        self.record |= dict.fromkeys(new, trainings)
        self._write_record()

    def _write_record(self) -> None:
        rows = [
            [
                self.catalogue.names[sample],
                self.classes[self.known[sample].label] if sample in self.known else "",
                cycle,
            ]
            for sample, cycle in self.record.items()
        ]
        content = table_bytes([self.catalogue.column, "label", "cycle"], rows)
        if content != self.recorded:
            write_atomically(self.folder / LABELS, content)
            self.recorded = content

    def _read_record(self) -> dict[int, int]:
        path = self.folder / LABELS
        if not path.exists():
            return {}
        table = read_table(path)
        name, cycle = table.column(self.catalogue.column), table.column("cycle")
        if name is None or cycle is None or table.column("label") is None:
            raise DatasetCorruptError(
                f"{path} must have the columns {self.catalogue.column}, label and cycle"
            )
        record: dict[int, int] = {}
        for i, row in enumerate(table.rows):
            if not row[cycle].isascii() or not row[cycle].isdigit():
                raise DatasetCorruptError(f"{table.where(i)}: cycle must be a number")
            try:
                record[self.catalogue.find(row[name])] = int(row[cycle])
            except UnknownSampleError as error:
                raise DatasetCorruptError(f"{table.where(i)}: {error}") from error
        if 0 not in record.values():
            raise DatasetCorruptError(f"{path} must have the labels of cycle 0")
        self._learn(path)
        return record

    def _read_answers(self, given: Iterable[Path]) -> None:
        if (self.folder / TO_LABEL).exists():
            self.offered = self._learn(self.folder / TO_LABEL)
        answers = self.folder / ANSWERS
        inside = sorted(answers.iterdir()) if answers.is_dir() else []
        for path in [*(p for p in inside if not p.name.startswith(".")), *given]:
            if path.suffix.lower() not in SUFFIXES:
                raise DatasetCorruptError(f"labels must be {', '.join(SUFFIXES)}, got {path}")
            self._learn(path)

    def _learn(self, path: Path) -> list[int]:
        """Add the labels of a file to those that are known; return their samples."""
        answers = read_answers(path, self.catalogue, self.classes)
        for answer in answers:
            known = self.known.setdefault(answer.sample, answer)
            check_same(known, answer, self.catalogue, self.classes)
        return [answer.sample for answer in answers]

    def _listed(self) -> set[int]:
        """Return the samples in ``to_label.csv``."""
        path = self.folder / TO_LABEL
        if not path.exists():
            return set()
        table = read_table(path)
        column = table.column(self.catalogue.column)
        listed = set()
        for row in table.rows if column is not None else ():
            try:
                listed.add(self.catalogue.find(row[column]))  # type: ignore[index]
            except UnknownSampleError:
                continue  # without a label: nothing is lost
        return listed

    def _check_samples(self) -> None:
        path = self.folder / SAMPLES
        if not path.exists():
            return
        table = read_table(path)
        name, state = table.column(self.catalogue.column), table.column("state")
        if name is None or state is None:
            raise DatasetCorruptError(
                f"{path} is of other data: it has no column {self.catalogue.column!r}"
            )
        then = {row[name]: row[state] for row in table.rows}
        now = dict(zip(self.catalogue.names, self.catalogue.states, strict=True))
        found = {
            "new": [each for each in now if each not in then],
            "missing": [each for each in then if each not in now],
            "changed": [each for each in now if then.get(each, now[each]) != now[each]],
        }
        differing = [
            f"{len(names)} {what} ({listed(names)})" for what, names in found.items() if names
        ]
        if differing:
            raise ValueError(
                f"the data must be those that the run in {self.folder} began with; there are "
                f"{', '.join(differing)}. Put them back as they were; or begin a run in another "
                f"folder, with --labels {self.folder / LABELS}"
            )

    def _content(self, name: str) -> bytes | None:
        path = self.folder / name
        return path.read_bytes() if path.exists() else None
