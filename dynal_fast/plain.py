"""Plain values from files and options, checked against the type hints of the classes they fill.

User input is checked here and nowhere else: an error names the key, what it must be and what it is.
Nothing here imports torch.
"""

import dataclasses
import functools
import json
import math
import numbers
import re
import reprlib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

_CONTROL = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f]")  # not for a terminal or XML
DEEPEST = 20  # levels of nested values
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 12
_SHORT.maxlevel = 3


@dataclasses.dataclass(frozen=True)
class Between:
    """The bounds of a number, both included, in ``Annotated[int, Between(1, 9)]``."""

    low: float
    high: float = math.inf


MANY = 10**12  # the highest count of samples, epochs or bytes that is accepted
Count = Annotated[int, Between(0, MANY)]
Positive = Annotated[int, Between(1, MANY)]
Share = Annotated[float, Between(0, 1)]
NotNegative = Annotated[float, Between(0, MANY)]


def shown(value: object) -> str:
    """Return a value as an error message shows it, long ones cut short.

    >>> shown([1, "two"])
    "[1, 'two']"
    """
    text = _SHORT.repr(value)
    return text if len(text) <= 400 else f"{text[:300]}...{text[-50:]}"


def build(cls: Any, values: Any, name: str = "") -> Any:
    """Return a dataclass filled with checked values; fields that are not given keep their defaults.

    Raises
    ------
    ValueError
        A key is unknown or missing, or a value is not what its type hint says.

    >>> @dataclasses.dataclass
    ... class Picks:
    ...     budget: Positive
    >>> build(Picks, {"budget": 0}, "protocol")
    Traceback (most recent call last):
        ...
    ValueError: protocol.budget must be at least 1, got 0
    """
    given = table(values, name)
    hints = hints_of(cls)
    for key in given:
        if key not in hints:
            raise ValueError(f"unknown key {_inside(name, key)!r}")
    for field in dataclasses.fields(cls):
        unset = field.default is field.default_factory is dataclasses.MISSING
        if unset and field.name not in given:
            raise ValueError(f"{_inside(name, field.name)} is missing")
    checks = {key: checked(value, hints[key], _inside(name, key)) for key, value in given.items()}
    return cls(**checks)


def check_fields(instance: Any) -> None:
    """Check the fields of a dataclass against their hints.

    Numbers of other types, such as NumPy's, become Python's.

    Raises
    ------
    ValueError
        A field is not what its hint says; the message names it.
    """
    cls: Any = type(instance)
    for name, hint in hints_of(cls).items():
        object.__setattr__(instance, name, checked(getattr(instance, name), hint, name))


def table(values: Any, name: str) -> dict[str, Any]:
    """Return a mapping whose keys are text.

    Raises
    ------
    ValueError
        It is something else.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{name or 'the whole'} must be a table, got {shown(values)}")
    for key in values:
        if not isinstance(key, str):
            raise ValueError(f"{_inside(name, shown(key))} must be text, as every key")
        _text(key, f"the key {_inside(name, key)!a}")
    return dict(values)


def checked(value: Any, hint: Any, name: str) -> Any:
    """Return a value as what a type hint says; an integer fits where a float is asked for.

    Raises
    ------
    ValueError
        It does not fit; the message has ``name``.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _bounded(checked(value, arguments[0], name), arguments[1], name)
    if origin in (typing.Union, types.UnionType):
        return _either(value, arguments, name)
    if origin is Literal:
        # True == 1, so the type counts too.
        if not any(type(value) is type(each) and value == each for each in arguments):
            choices = " or ".join(map(repr, arguments))
            raise ValueError(f"{name} must be {choices}, got {shown(value)}")
        return value
    if origin is list:
        return _list(value, arguments[0], name)
    if origin is dict:
        given = table(value, name).items()
        return {key: checked(item, arguments[1], f"{name}.{key}") for key, item in given}
    if dataclasses.is_dataclass(hint):
        return value if type(value) is hint else build(hint, value, name)
    return _SIMPLE[hint](value, name)


def json_table(path: Path) -> dict[str, Any]:
    """Return the table that a JSON file holds.

    Raises
    ------
    OSError
        It cannot be read.
    ValueError
        It holds something else.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return table(values, "")


@functools.cache
def hints_of(cls: type) -> dict[str, Any]:
    """Return the type hints of the fields of a dataclass, with their bounds."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def _inside(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def _list(value: Any, hint: Any, name: str) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{name} must be {_described(list[hint])}, got {shown(value)}")
    if hint is Count and all(type(item) is int and 0 <= item <= MANY for item in value):
        return list(value)  # a fast path for many ids
    return [checked(item, hint, f"{name}[{i}]") for i, item in enumerate(value)]


def _either(value: Any, hints: tuple[Any, ...], name: str) -> Any:
    if value is None and types.NoneType in hints:
        return None
    rest = [hint for hint in hints if hint is not types.NoneType]
    if len(rest) == 1:
        return checked(value, rest[0], name)
    for hint in rest:
        kind = typing.get_origin(hint) or hint
        if isinstance(value, Mapping if kind is dict else kind):
            return checked(value, hint, name)
    expected = " or ".join(_described(hint) for hint in rest)
    raise ValueError(f"{name} must be {expected}, got {shown(value)}")


def _bounded(value: Any, bounds: Between, name: str) -> Any:
    if bounds.low <= value <= bounds.high:
        return value
    if value < bounds.low:
        raise ValueError(f"{name} must be at least {bounds.low:,}, got {shown(value)}")
    raise ValueError(f"{name} must be at most {bounds.high:,}, got {shown(value)}")


def _integer(value: Any, name: str) -> int:
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise ValueError(f"{name} must be an integer, got {shown(value)}")
    if not -(2**63) <= int(value) < 2**63:
        raise ValueError(f"{name} must be an integer of 64 bits, got {shown(value)}")
    return int(value)


def _number(value: Any, name: str) -> float:
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise ValueError(f"{name} must be a number, got {shown(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name} must be a finite number, got {shown(value)}")
    return number


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text, got {shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} must be text that UTF-8 has, got {value[:80]!a}") from None
    if _CONTROL.search(value):
        raise ValueError(f"{name} must be text without control characters, got {value[:80]!a}")
    return value


def _flag(value: Any, name: str) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, got {shown(value)}")
    return value


def _anything(value: Any, name: str, depth: int = 0) -> Any:
    """Return a value that JSON can hold."""
    if depth > DEEPEST:
        raise ValueError(f"{name.partition('.')[0]} must be nested at most {DEEPEST} levels deep")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value, name)
    if isinstance(value, numbers.Integral):
        return _integer(value, name)
    if isinstance(value, numbers.Real):
        return _number(value, name)
    if isinstance(value, list | tuple):
        return [_anything(item, f"{name}[{i}]", depth + 1) for i, item in enumerate(value)]
    given = table(value, name).items()
    return {key: _anything(item, f"{name}.{key}", depth + 1) for key, item in given}


def _described(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _described(arguments[0])
    if origin is list:
        inner = arguments[0]
        while typing.get_origin(inner) is Annotated:
            inner = typing.get_args(inner)[0]
        if dataclasses.is_dataclass(inner):
            return "a list of tables"
        return f"a list of {getattr(inner, '__name__', 'values')}"
    if origin is dict or dataclasses.is_dataclass(hint):
        return "a table"
    names = {str: "a name", int: "an integer", float: "a number", bool: "true or false"}
    return names[hint]


_SIMPLE: dict[Any, Any] = {
    int: _integer,
    float: _number,
    str: _text,
    bool: _flag,
    Any: _anything,
}
