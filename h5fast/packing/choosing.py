"""Which members of a source are wanted, by their paths."""

from __future__ import annotations

import fnmatch
import importlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["Choice", "load_callable"]


class Choice:
    """Says of a path whether it is wanted: by all of these that are given.

    Args:
        ext: endings, with or without a dot, in any case: "jpg" takes a.jpg and B.JPG, and not c.notajpg
        glob: shell patterns, one of which the path must match, or the name if a pattern holds no slash
        regex: an expression that must be found in the path
        keep: a function of the path, or "module:function"
    """

    def __init__(
        self,
        ext: str | Sequence[str] | None = None,
        glob: str | Sequence[str] | None = None,
        regex: str | None = None,
        keep: Callable[[str], Any] | str | None = None,
    ) -> None:
        self._endings = tuple("." + one.strip().lstrip(".").lower() for one in _several(ext))
        if "." in self._endings:
            raise ValueError(f"ext is one ending or several such as 'jpg', not {ext!r}")
        self._globs = [(re.compile(fnmatch.translate(pattern)), "/" in pattern) for pattern in _several(glob)]
        try:
            self._regex = None if regex is None else re.compile(regex)
        except re.error as error:
            raise ValueError(f"regex {regex!r}: {error}") from None
        self._keep = load_callable(keep, "keep")
        self.text = repr((self._endings, tuple(_several(glob)), regex, getattr(keep, "__qualname__", keep)))

    @property
    def takes_all(self) -> bool:
        """Whether everything is wanted."""
        return not self._endings and not self._globs and self._regex is None and self._keep is None

    def takes(self, path: str) -> bool:
        """Whether it is wanted."""
        if self._endings and not path.lower().endswith(self._endings):
            return False
        name = path.rpartition("/")[2]
        if self._globs and not any(pattern.match(path if whole else name) for pattern, whole in self._globs):
            return False
        if self._regex is not None and self._regex.search(path) is None:
            return False
        return self._keep is None or bool(self._keep(path))


def _several(value: str | Sequence[str] | None) -> list[str]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)


def load_callable(given: Callable[..., Any] | str | None, what: str) -> Callable[..., Any] | None:
    """A function, or the one that "module:function" names; modules of the current folder are found.

    Raises:
        ValueError: there is no such module or function.
        TypeError: it cannot be called.
    """
    if isinstance(given, str):
        module, colon, name = given.partition(":")
        if not colon or not module or not name:
            raise ValueError(f"{what} is 'module:function', not {given!r}")
        here = os.getcwd()
        sys.path.insert(0, here)
        try:
            found: Any = importlib.import_module(module)
            for part in name.split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"{what} {given!r}: {error}") from error
        finally:
            sys.path.remove(here)
        given = found
    if given is not None and not callable(given):
        raise TypeError(f"{what} is a function, not {given!r}")
    return given
