"""Read CIFAR's pickles safely: no code is run, time and memory are bounded.

The official batches are pickles of dictionaries that hold byte strings, integers, lists and one
NumPy array. A pickle is a program for a stack machine: it can call any importable function, and a
few bytes of it can stand for nested lists that exceed any memory. The machine here handles plain
data only. It resolves five names, each to a stand-in, and refuses lists within lists, so a list
that it returns has at most as many items as the pickle has bytes.
"""

import pickle
import pickletools
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

# The training batch of CIFAR-100 has 200,000 instructions; Python 3 writes it with 500,000.
MAX_INSTRUCTIONS = 4_000_000
RECONSTRUCT, NDARRAY, DTYPE, ENCODE = "_reconstruct", "ndarray", "dtype", "encode"
_NAMES = {
    "numpy.core.multiarray _reconstruct": RECONSTRUCT,
    "numpy._core.multiarray _reconstruct": RECONSTRUCT,
    "numpy ndarray": NDARRAY,
    "numpy dtype": DTYPE,
    "_codecs encode": ENCODE,
}
_MARK = object()


def loads(content: bytes) -> Any:
    """Return the object in a pickle of numbers, strings, uint8 arrays, and flat lists and dicts.

    Strings written by Python 2 arrive as bytes. A list holds numbers, strings and arrays; a dict
    these and lists, under strings.

    Raises
    ------
    Pickle.UnpicklingError: it is truncated, has more than ``MAX_INSTRUCTIONS``, or asks for
    anything else.

    >>> loads(pickle.dumps({"labels": [3, 1]}))
    {'labels': [3, 1]}
    >>> loads(pickle.dumps(print))
    Traceback (most recent call last):
        ...
    _pickle.UnpicklingError: a data set's pickle may not name builtins.print
    """
    try:
        return _Machine(len(content)).run(content)
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # a damaged pickle raises many types
        raise pickle.UnpicklingError(f"damaged pickle: {str(error)[:200]}") from error


class _Name:
    """One of the names that a pickle may say."""

    def __init__(self, stands_for: str) -> None:
        self.stands_for = stands_for


class _DType:
    """Stands for ``numpy.dtype('u1')``."""


class _Array:
    """Stands for an array until its state arrives, then holds it as ``array``."""

    array: np.ndarray | None = None


class _Machine:
    """The stack machine that a pickle runs on: its stack and its memo.

    Parameters
    ----------
    allowance
        Bytes that the pickle may make anew by encoding texts: as many as it has.
    """

    def __init__(self, allowance: int) -> None:
        self._stack: list[Any] = []
        self._memory: dict[int, Any] = {}
        self._allowance = allowance

    def run(self, content: bytes) -> Any:
        """Return what the pickle leaves on the stack."""
        for count, (instruction, argument, _) in enumerate(pickletools.genops(content)):
            if count == MAX_INSTRUCTIONS:
                raise pickle.UnpicklingError(f"more than {MAX_INSTRUCTIONS:,} instructions")
            name = instruction.name
            if name in _STEPS:
                _STEPS[name](self, argument)
            elif name != "STOP":
                raise pickle.UnpicklingError(f"a data set's pickle may not use {name}")
        result = self._plain(self._stack.pop())
        if self._stack or not (isinstance(result, dict | list) or _is_item(result)):
            raise pickle.UnpicklingError("the pickle does not end with its data alone")
        return result

    def push(self, item: Any) -> None:
        """Put a constant on the stack."""
        self._stack.append(item)

    def push_bytes(self, text: str) -> None:
        """Put a string of Python 2 on the stack, which pickletools reads as Latin-1."""
        self._stack.append(text.encode("latin1"))

    def push_name(self, name: str | None) -> None:
        """Put one of the allowed names on the stack, said here or by two texts on it."""
        if name is None:
            qualified, module = self._stack.pop(), self._stack.pop()
            if not isinstance(module, str) or not isinstance(qualified, str):
                raise pickle.UnpicklingError("a name must be two texts")
            name = f"{module} {qualified}"
        if name not in _NAMES:
            shown = name.replace(" ", ".")[:100]
            raise pickle.UnpicklingError(f"a data set's pickle may not name {shown}")
        self._stack.append(_Name(_NAMES[name]))

    def remember(self, number: int | None) -> None:
        """Remember the top of the stack under a number, by default the next one."""
        self._memory[len(self._memory) if number is None else number] = self._stack[-1]

    def recall(self, number: int) -> None:
        """Put on the stack what was remembered."""
        self._stack.append(self._plain(self._memory[number]))

    def pop(self, _: None) -> None:
        """Drop the top of the stack."""
        self._stack.pop()

    def tuple_of(self, size: int | None) -> None:
        """Make a tuple of so many items, or of all since the mark: arguments of calls alone."""
        items = self._since_mark() if size is None else self._take(size)
        self._stack.append(tuple(items))

    def list_of(self, _: None) -> None:
        """Make a list of the items since the mark."""
        items = self._since_mark()
        self._stack.append([])
        self._extend(items)

    def append(self, _: None) -> None:
        """Append the top of the stack to the list below it."""
        self._extend(self._take(1))

    def appends(self, _: None) -> None:
        """Append the items since the mark to the list below it."""
        self._extend(self._since_mark())

    def dict_of(self, _: None) -> None:
        """Make a dict of the keys and values since the mark."""
        items = self._since_mark()
        self._stack.append({})
        self._set(items)

    def set_item(self, _: None) -> None:
        """Set the key and value on the stack in the dict below them."""
        self._set(self._take(2))

    def set_items(self, _: None) -> None:
        """Set the keys and values since the mark in the dict below it."""
        self._set(self._since_mark())

    def call(self, _: None) -> None:
        """Call a name with the arguments on the stack; what has no effect is skipped."""
        name, arguments = self._take(2)
        called = name.stands_for if isinstance(name, _Name) else None
        if called == RECONSTRUCT:
            kind = arguments[0]
            if not isinstance(kind, _Name) or kind.stands_for != NDARRAY:
                raise pickle.UnpicklingError("only plain arrays are read from a data set's pickle")
            self._stack.append(_Array())
        elif called == DTYPE:
            if not isinstance(arguments[0], str | bytes) or arguments[0] not in ("u1", b"u1"):
                raise pickle.UnpicklingError("only uint8 arrays are read from a data set's pickle")
            self._stack.append(_DType())
        elif called == ENCODE:
            self._stack.append(self._encoded(*arguments))
        else:
            raise pickle.UnpicklingError("a data set's pickle may not make other objects")

    def build(self, _: None) -> None:
        """Set the state of an array; a dtype of single bytes has no state that matters."""
        state = self._stack.pop()
        built = self._stack[-1]
        if isinstance(built, _Array) and built.array is None:
            built.array = self._stack[-1] = _array(*state)
        elif not isinstance(built, _DType):
            raise pickle.UnpicklingError("a data set's pickle may not change other objects")

    def _encoded(self, text: object, encoding: object) -> bytes:
        """Python 3 writes bytes into old protocols as text and its Latin-1 encoding."""
        if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
            raise pickle.UnpicklingError("bytes must be written as text in latin1")
        self._allowance -= len(text)
        if self._allowance < 0:
            raise pickle.UnpicklingError("the pickle makes more bytes than it has")
        return text.encode("latin1")

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, list) or not all(_is_item(item) for item in items):
            raise pickle.UnpicklingError("a list holds numbers, strings and arrays")
        target += items

    def _set(self, items: list[Any]) -> None:
        target, keys, values = self._stack[-1], items[::2], items[1::2]
        if not isinstance(target, dict) or not all(isinstance(key, str | bytes) for key in keys):
            raise pickle.UnpicklingError("a dict has keys that are strings")
        if not all(isinstance(value, list) or _is_item(value) for value in values):
            raise pickle.UnpicklingError("a dict holds numbers, strings, arrays and lists")
        target.update(zip(keys, values, strict=True))

    def _take(self, size: int) -> list[Any]:
        if size > len(self._stack):
            raise pickle.UnpicklingError("damaged pickle: the stack is too short")
        start = len(self._stack) - size
        items = self._stack[start:]
        del self._stack[start:]
        return [self._plain(item) for item in items]

    def _since_mark(self) -> list[Any]:
        size = next(
            (i for i, item in enumerate(reversed(self._stack)) if item is _MARK), len(self._stack)
        )
        items = self._take(size)
        self._take(1)
        return items

    @staticmethod
    def _plain(item: Any) -> Any:
        """Return the array that a stand-in holds, and anything else unchanged."""
        return item.array if isinstance(item, _Array) and item.array is not None else item


_SCALARS = (bool, int, float, str, bytes, type(None))


def _is_item(item: object) -> bool:
    return isinstance(item, (*_SCALARS, np.ndarray))


def _array(version: object, shape: Any, dtype: object, is_fortran: object, data: Any) -> np.ndarray:
    if not isinstance(dtype, _DType) or not isinstance(data, bytes):
        raise pickle.UnpicklingError("only uint8 arrays are read from a data set's pickle")
    plain = isinstance(shape, tuple) and len(shape) <= 4
    if not plain or not all(type(size) is int and 0 <= size <= len(data) for size in shape):
        raise pickle.UnpicklingError("an array's shape must be up to 4 numbers within its data")
    if len(data) != prod(shape):
        raise pickle.UnpicklingError(f"{len(data)} bytes do not fill an array of {shape}")
    values = np.frombuffer(data, np.uint8)
    return values.reshape(shape[::-1]).T if is_fortran else values.reshape(shape)


_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME"), lambda machine, argument: None),
    **dict.fromkeys(
        (
            *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"),
            *("FLOAT", "BINFLOAT", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
            *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8"),
        ),
        _Machine.push,
    ),
    **dict.fromkeys(("STRING", "BINSTRING", "SHORT_BINSTRING"), _Machine.push_bytes),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "MARK": lambda machine, _: machine.push(_MARK),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "TUPLE": _Machine.tuple_of,
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "LIST": _Machine.list_of,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "DICT": _Machine.dict_of,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    **dict.fromkeys(("GLOBAL", "STACK_GLOBAL"), _Machine.push_name),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _Machine.remember),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.recall),
    "POP": _Machine.pop,
    "REDUCE": _Machine.call,
    "BUILD": _Machine.build,
}
