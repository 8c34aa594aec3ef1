"""Where the sources of other codebases come from: a folder that has them, or git."""

import subprocess
from pathlib import Path

# Repositories on GitHub, and the tag whose tests fit the version that is installed.
REPOSITORIES = {
    "scikit-activeml": ("scikit-activeml/scikit-activeml", "v1.0.1"),
    "small-text": ("webis-de/small-text", "v1.4.1"),
    "baal": ("baal-org/baal", None),
    "modAL": ("modAL-python/modAL", None),
    "active-learning": ("google/active-learning", None),
    "deep-active-learning": ("ej0cl6/deep-active-learning", None),
    "badge": ("JordanAsh/badge", None),
    "distil": ("decile-team/distil", None),
    "DeepCore": ("PatrickZH/DeepCore", None),
    "ALiPy": ("NUAA-AL/ALiPy", None),
    "TypiClust": ("avihu111/TypiClust", None),
}


class MissingError(Exception):
    """A codebase that is not in the folder and that git cannot fetch."""


def obtain(name: str, folder: Path) -> Path:
    """Return the sources of a codebase below ``folder``; fetch them if they are not there.

    Raises
    ------
    MissingError
        Git cannot fetch them.
    """
    place = folder / name
    if place.exists():
        return place
    repository, tag = REPOSITORIES[name]
    branch = ["--branch", tag] if tag else []
    address = f"https://github.com/{repository}.git"
    command = ["git", "clone", "-q", "--depth", "1", *branch, address, str(place)]
    fetched = subprocess.run(command, capture_output=True, text=True)
    if fetched.returncode:
        raise MissingError(f"{repository} is not in {folder}, and {fetched.stderr.strip()}")
    return place
