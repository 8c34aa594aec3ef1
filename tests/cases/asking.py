"""A small labeling task, and a person who knows all labels and fills in what is asked for."""

import csv
import io
import json
from pathlib import Path

import numpy as np

from dynal_fast.experiment import RunConfig
from dynal_fast.experiment.tables import merge_tables
from dynal_fast.files import write_atomically

CLASSES = ("bad, very", 'go"od', "só-so")


def truth(name: str) -> str:
    """The label of a text, by its number."""
    return CLASSES[int(name.removeprefix("t")) % 3]


def write_texts(
    folder: Path, texts: int = 40, labeled: int = 0, tested: int = 0, table: str = "texts.csv"
) -> dict:
    """Write texts and embeddings whose classes overlap a little; return the options of a run."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    names = [f"t{i}" for i in range(texts + tested)]
    centres = 2 * generator.normal(size=(3, 6))
    rows = centres[np.arange(texts + tested) % 3] + generator.normal(size=(texts + tested, 6))
    np.save(folder / "texts.npy", rows.astype(np.float32))
    with open(folder / table, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text_id", "text", "label", "split"])
        for i, name in enumerate(names):
            label = truth(name) if i < labeled or i >= texts else ""
            writer.writerow([name, f'Text "{i}",\nünd more', label, "test" * (i >= texts)])
    return {
        "data": "texts",
        "data_root": str(folder / table),
        "embeddings": str(folder / "texts.npy"),
        "classes": list(CLASSES),
    }


def asking_config(options: dict, **changes: object) -> RunConfig:
    """A run over texts that takes milliseconds a cycle."""
    settings: dict = {
        "oracle": "ask",
        "threads": 1,
        "protocol": {"initial": 6, "budget": 4, "cycles": 2},
        "training": {"epochs": 3, "batch_size": 16},
    }
    return RunConfig.from_mapping(merge_tables(options | settings, changes))


def asked(run: Path, column: str = "text_id") -> list[dict[str, str]]:
    """The rows of what is asked for."""
    text = (run / "to_label.csv").read_text(encoding="utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert all(column in row for row in rows)
    return rows


def fill_in(
    run: Path, count: int | None = None, know=truth, column: str = "text_id", ends: str = "\n"
) -> list[str]:
    """Fill in the first ``count`` labels that are asked for; return the names of their samples."""
    rows = asked(run, column)
    chosen = rows[:count]
    for row in chosen:
        row["label"] = know(row[column])
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator=ends)
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(run / "to_label.csv", text.getvalue().encode("utf-8-sig"))
    return [row[column] for row in chosen]


def exported(run: Path, know=truth, column: str = "text_id") -> list[dict]:
    """The tasks that are asked for as Label Studio exports them when they are labeled."""
    tasks = json.loads((run / "label_studio_tasks.json").read_text(encoding="utf-8"))
    for i, task in enumerate(tasks):
        choice = {"choices": [know(task["data"][column])]}
        result = {"id": "aB3", "type": "choices", "origin": "manual", "from_name": "label"}
        result |= {"to_name": "text" if "text" in task["data"] else "image", "value": choice}
        annotation = {"id": i, "completed_by": 1, "was_cancelled": False, "result": [result]}
        task |= {"id": i + 100, "annotations": [annotation], "predictions": [], "meta": {}}
    return tasks


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
