"""Nested tables of plain values: read from TOML and YAML, merged, and written as JSON."""

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_config(path: str | Path) -> dict[str, Any]:
    """Read a ``.toml``, ``.yaml`` or ``.yml`` file into nested tables.

    Raises
    ------
    ValueError
        The file is missing, has another ending or cannot be parsed.
    """
    path = Path(path)
    parsers = {".toml": parse_toml, ".yaml": _parse_yaml, ".yml": _parse_yaml}
    if path.suffix not in parsers:
        raise ValueError(f"config file {path}: expected a .toml, .yaml or .yml file")
    try:
        parsed = parsers[path.suffix](path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError(f"config file {path}: it is nested too deeply") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"config file {path}: {' '.join(_reason(error).split())}") from error
    if not isinstance(parsed, dict):
        raise ValueError(f"config file {path}: expected a table of options at the top level")
    return parsed


def merge_tables(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with the values of ``over`` on top, table by table.

    >>> merge_tables({"training": {"epochs": 3, "gamma": 0.5}}, {"training": {"epochs": 4}})
    {'training': {'epochs': 4, 'gamma': 0.5}}
    """
    merged = dict(base)
    for key, value in over.items():
        both_tables = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge_tables(merged[key], value) if both_tables else value
    return merged


def canonical_json(values: object) -> str:
    """Return the one JSON text of ``values``: sorted keys, no spaces."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def parse_toml(text: str) -> Any:
    """Return the table that TOML text holds; a ValueError says what is wrong with it."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(text)


def _parse_yaml(text: str) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """Reads 1e-3 as a number, as YAML 1.2 does."""

    number = re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+0123456789"))
    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
