"""Read the labels that a person gave: tables, and what Label Studio exports."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dynal_fast.data.catalogue import Catalogue, UnknownSampleError
from dynal_fast.data.source import DatasetCorruptError
from dynal_fast.data.table import decoded, read_table
from dynal_fast.plain import shown

SUFFIXES = (".csv", ".json", ".tsv")
FILES = ("file", "path", "image", "filename", "file_name")
LABELS = ("label", "choice", "class", "category", "sentiment")


@dataclass(frozen=True)
class Answer:
    """The label of one sample, and where it is from: as an error names that place."""

    sample: int
    label: int
    where: str


def read_answers(path: Path, catalogue: Catalogue, classes: Sequence[str]) -> list[Answer]:
    """Return the labels in a file; samples without one are left out.

    Parameters
    ----------
    path
        A table with a column of samples (``file``, ``path``, ``image``, ``text_id`` or ``text``)
        and one of labels (``label``, ``choice``, ``class``); or a JSON that Label Studio exported
        as JSON or JSON-MIN. Its CSV export is such a table.
    catalogue
        The samples.
    classes
        The names of the classes.

    Raises
    ------
    DatasetCorruptError
        The file is none of these; a sample or a class is not known, or a sample has two classes.
    OSError
        It cannot be read.
    """
    given = _in_json(path) if path.suffix.lower() == ".json" else _in_table(path, catalogue)
    numbers = {name: i for i, name in enumerate(classes)}
    answers: dict[int, Answer] = {}
    for reference, by_text, name, where in given:
        try:
            sample = catalogue.find_text(reference) if by_text else catalogue.find(reference)
        except UnknownSampleError as error:
            raise DatasetCorruptError(f"{where}: {error}") from error
        if name not in numbers:
            raise DatasetCorruptError(
                f"{where}: no class is called {shown(name)}{_meant(name, classes)}"
            )
        answer = Answer(sample, numbers[name], where)
        known = answers.setdefault(sample, answer)
        check_same(known, answer, catalogue, classes)
    return list(answers.values())


def check_same(one: Answer, other: Answer, catalogue: Catalogue, classes: Sequence[str]) -> None:
    """Check that two answers for a sample agree.

    Raises
    ------
    DatasetCorruptError
        They name different classes.
    """
    if one.label != other.label:
        raise DatasetCorruptError(
            f"{catalogue.names[one.sample]} is labeled twice: {classes[one.label]!r} in "
            f"{one.where}, and {classes[other.label]!r} in {other.where}"
        )


Given = tuple[str, bool, str, str]  # reference, whether it is the text itself, class, place


def _in_table(path: Path, catalogue: Catalogue) -> Iterator[Given]:
    table = read_table(path)
    sample, by_text = table.column(catalogue.column, *FILES), False
    if catalogue.texts and sample is None:
        sample, by_text = table.column("text"), True
    label = table.column(*LABELS)
    for what, column, names in (
        ("samples", sample, catalogue.column),
        ("labels", label, "label"),
    ):
        if column is None:
            raise DatasetCorruptError(
                f"{path} has no column of {what}: it should be called {names!r}; there are "
                f"{shown(table.names)}"
            )
    assert sample is not None
    assert label is not None
    for i, row in enumerate(table.rows):
        name = row[label].strip()
        if name:
            yield row[sample], by_text, name, table.where(i)


def _in_json(path: Path) -> Iterator[Given]:
    try:
        tasks = json.loads(decoded(path))
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise DatasetCorruptError(f"{path} is no JSON: {reason}") from error
    if not isinstance(tasks, list) or not all(isinstance(task, Mapping) for task in tasks):
        raise DatasetCorruptError(f"{path} is no export of Label Studio: it should be a list")
    for i, task in enumerate(tasks):
        where = f"{path}, task {task.get('id', i)}"
        if "annotations" in task or "completions" in task or "data" in task:
            data, names = task.get("data"), set(_annotated(task, where))
        else:
            data, names = task, set(_named(task, where))
        if not names:
            continue
        if len(names) > 1:
            several = " and ".join(map(repr, sorted(names)))
            raise DatasetCorruptError(f"{where} is labeled twice, {several}")
        reference, by_text = _reference(data, where)
        yield reference, by_text, names.pop(), where


def _annotated(task: Mapping[str, Any], where: str) -> Iterator[str]:
    """Yield the classes that the annotations of a task name; a skipped task names none."""
    annotations = task.get("annotations", task.get("completions")) or []
    if not isinstance(annotations, list):
        raise DatasetCorruptError(f"{where}: its annotations should be a list")
    for annotation in annotations:
        if not isinstance(annotation, Mapping) or not isinstance(annotation.get("result"), list):
            # An export may have the numbers of its annotations alone.
            raise DatasetCorruptError(f"{where}: its annotations have no result")
        if annotation.get("was_cancelled") or annotation.get("skipped"):
            continue
        results = [each for each in annotation["result"] if _choices(each) is not None]
        named = [each for each in results if each.get("from_name") == "label"]
        for result in named or results:
            yield from _choices(result) or []


def _choices(result: Any) -> list[str] | None:
    value = result.get("value") if isinstance(result, Mapping) else None
    choices = value.get("choices") if isinstance(value, Mapping) else None
    if not isinstance(choices, list):
        return None
    return [str(choice).strip() for choice in choices if str(choice).strip()]


def _named(task: Mapping[str, Any], where: str) -> Iterator[str]:
    """Yield the classes of a task of JSON-MIN, which lacks them where nobody labeled it."""
    value = next((task[key] for key in LABELS if key in task), None)
    if value is None:
        return
    if isinstance(value, Mapping):
        value = value.get("choices")
    values = value if isinstance(value, list) else [value]
    for each in values:
        for choice in each.get("choices", []) if isinstance(each, Mapping) else [each]:
            if not isinstance(choice, str | int):
                raise DatasetCorruptError(f"{where}: a label should be text, got {shown(choice)}")
            if str(choice).strip():
                yield str(choice).strip()


def _reference(data: Any, where: str) -> tuple[str, bool]:
    if isinstance(data, Mapping):
        for key in ("text_id", *FILES):
            if isinstance(data.get(key), str | int):
                return str(data[key]), False
        if isinstance(data.get("text"), str):
            return data["text"], True
    raise DatasetCorruptError(f"{where} does not say of which sample it is")


def _meant(name: str, classes: Sequence[str]) -> str:
    import difflib

    lowered = {each.lower(): each for each in classes}
    close = difflib.get_close_matches(name.lower(), lowered, n=1)
    if close:
        return f"; did you mean {lowered[close[0]]!r}?"
    return f"; the classes: {shown(list(classes))}"
