"""
Import hooks: run a function on a module when it is imported, without importing it.

The finder asks the other finders, and lets their loader work; only then the hooks run. A module keeps the
loader it would have had.
"""

from __future__ import annotations

import importlib
import importlib.abc
import sys
from collections.abc import Callable, Mapping
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from paygent.instrumentation._report import guarded

Hook = Callable[[ModuleType], None]

# By name of a module, or by a prefix that ends in a dot.
_hooks: dict[str, Hook] = {}


def when_imported(hooks: Mapping[str, Hook]) -> None:
    """
    Run each hook on the modules of its name (or, ending in a dot, its prefix): those here and later ones.

    Hooks given before under the same name are replaced.
    """
    global _hooks  # noqa: PLW0603  # replaced, never changed: imports of other threads may be reading it
    _hooks = {**_hooks, **hooks}
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    for package in sorted({name.partition(".")[0] for name in hooks}):
        _wait_for(package)
    for name, module in sys.modules.copy().items():
        hook = _hook_for(name) if module is not None else None
        if hook is not None:
            _wait_for(name)
            _run(hook, module)


def forget() -> None:
    """
    Take the hooks away; modules that they have seen stay as they are.

    The finder stays, and finds nothing: an import of another thread that is going through the finders would
    pass one over if the list became shorter.
    """
    global _hooks  # noqa: PLW0603  # see when_imported
    _hooks = {}


def _hook_for(name: str) -> Hook | None:
    hooks = _hooks
    hook = hooks.get(name)
    if hook is None:
        for key, candidate in hooks.items():
            if key.endswith(".") and name.startswith(key):
                return candidate
    return hook


def _wait_for(name: str) -> None:
    """Let another thread end its import of *name*: it has passed the finder, the classes may not exist."""
    spec = getattr(sys.modules.get(name), "__spec__", None)
    if getattr(spec, "_initializing", False):
        with guarded(f"wait for the import of {name}"):
            importlib.import_module(name)


def _run(hook: Hook, module: ModuleType) -> None:
    with guarded(f"patch {module.__name__}"):
        hook(module)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        hook = _hook_for(fullname)
        if hook is None:
            return None
        spec = self._ask_others(fullname, path, target)
        if spec is not None and spec.loader is not None and hasattr(spec.loader, "exec_module"):
            spec.loader = _Loader(spec.loader, hook)
        return spec

    def _ask_others(self, fullname: str, path: Any, target: Any) -> ModuleSpec | None:
        for finder in sys.meta_path:
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = None if find is None else find(fullname, path, target)
            if spec is not None:
                return spec
        return None


class _Loader(importlib.abc.Loader):
    def __init__(self, loader: Any, hook: Hook) -> None:
        self._loader = loader
        self._hook = hook

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        _run(self._hook, module)


_finder = _Finder()
