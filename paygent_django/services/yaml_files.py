"""YAML, where PyYAML is installed: read as strictly as TOML is."""

from __future__ import annotations

from importlib import import_module
from typing import Any

NEEDED = "YAML needs PyYAML: pip install 'paygent[yaml]'; plans.toml needs nothing"


def is_named_so(name: str) -> bool:
    """Whether a file of that name holds YAML."""
    return name.lower().endswith((".yaml", ".yml"))


def read(text: str) -> Any:
    """
    What *text* says.

    Raises:
        ValueError: It is no YAML, names something twice, or PyYAML is not installed.
    """
    yaml = _yaml()

    base: Any = yaml.SafeLoader

    class Loader(base):
        """Refuses what TOML refuses: the last of two values would count, and nobody would know."""

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [key.value for key, _ in node.value if isinstance(key.value, str)]
            twice = next((key for key in keys if keys.count(key) > 1), None)
            if twice is not None:
                raise ValueError(f"{twice!r} is there twice{node.start_mark}")
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(text, Loader)  # a SafeLoader
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def written(value: Any) -> str:
    """
    *value* as YAML.

    Raises:
        ValueError: PyYAML is not installed.
    """
    return str(_yaml().safe_dump(value, sort_keys=False, allow_unicode=True))


def _yaml() -> Any:
    try:
        return import_module("yaml")
    except ImportError as error:
        raise ValueError(NEEDED) from error
