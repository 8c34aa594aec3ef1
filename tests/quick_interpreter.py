"""Triton's interpreter without what it does twice.

At every call of a device function it looks for the language's functions to replace, which the
launch has replaced already: half of the time of a kernel with many of them.
"""

import inspect

from triton import language as tl
from triton.runtime import interpreter


def make_quick() -> None:
    """From now on a launch replaces the functions of each module of the language once."""
    patch = interpreter._patch_lang
    patched: set[tuple[str, ...]] = set()  # the modules that a launch has replaced functions of
    modules: dict[object, tuple[str, ...]] = {}  # those that a function sees

    def patch_once(fn):
        if fn not in modules:
            visible = [value for value in fn.__globals__.values() if inspect.ismodule(value)]
            modules[fn] = tuple(value.__name__ for value in visible if value in (tl, tl.core))
        if modules[fn] in patched:
            return None
        patched.add(modules[fn])
        scope = patch(fn)
        restore = scope.restore

        def restore_all():
            patched.clear()
            restore()

        scope.restore = restore_all
        return scope

    if hasattr(interpreter, "_LangPatchScope") and patch.__name__ != "patch_once":
        interpreter._patch_lang = patch_once
