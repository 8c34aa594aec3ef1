"""Folders that ``datasets.Dataset.save_to_disk`` wrote: their data files, in order."""

import json
from pathlib import Path
from typing import Any

from dynal_fast.embeddings.source import FileError, parsing


def is_dataset_folder(folder: Path) -> bool:
    """Whether ``folder`` holds one dataset, or a dictionary of its splits."""
    return (folder / "dataset_dict.json").exists() or (
        (folder / "state.json").exists() and (folder / "dataset_info.json").exists()
    )


def dataset_files(folder: Path) -> list[Path]:
    """Return the .arrow files of a dataset's folder in the order of their rows.

    Raises
    ------
    FileError
        The folder holds several splits, a file is missing, or rows are selected by an index.
    """
    if (folder / "dataset_dict.json").exists():
        splits = [str(folder / path.parent.name) for path in sorted(folder.glob("*/state.json"))]
        listed = ", ".join(splits) or "none is there"
        raise FileError(f"{folder} holds the splits of a dataset; give one of them: {listed}")
    state_file = folder / "state.json"
    with parsing(state_file, "the state of a dataset"):
        state: Any = json.loads(state_file.read_text(encoding="utf-8"))
        names = [entry["filename"] for entry in state["_data_files"]]
        if not all(isinstance(name, str) and Path(name).name == name for name in names):
            raise ValueError("its data files must lie beside it")
        selected = state.get("_indices_data_files") or state.get("_indices_files")
    if selected:
        raise FileError(f"{folder} selects rows by an index; save dataset.flatten_indices()")
    files = [folder / name for name in names]
    for file in files:
        if not file.is_file():
            raise FileError(f"{folder} lacks its data file {file.name}")
    if not files:
        raise FileError(f"{folder} is a dataset without rows")
    return files
