"""Patterns of paths: ``*``, ``?`` and ``[…]`` within a name, ``**`` for any number of folders. Nothing but the listing it is
given tells what there is."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable

from h5fast.tree.paths import join

__all__ = ["matches", "parts_of_pattern"]

#: Of a folder, each name and whether it is a folder itself (a link is none); nothing of what is no folder.
Listing = Callable[[str], dict[str, bool]]


def parts_of_pattern(pattern: str) -> list[str]:
    """A pattern for each name on the way. ``ValueError`` for one that leads upwards."""
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ValueError(f"a pattern cannot lead upwards: {pattern!r}")
    return parts


def matches(listing: Listing, folder: str, parts: list[str]) -> set[str]:
    """Paths below a folder that match, relative to it."""
    found: set[str] = set()
    pending = [("", 0)]  # a path that is reached, and how many of the parts led to it
    reached = set(pending)
    while pending:
        path, done = pending.pop()
        if done == len(parts):
            found.add(path)
            continue
        entries = listing(join(folder, path) if path else folder)
        is_last = done + 1 == len(parts)
        if parts[done] == "**":
            after = [(path, done + 1), *((join(path, name), done) for name, is_folder in entries.items() if is_folder)]
            names = [name for name, is_folder in entries.items() if is_last and not is_folder]
        else:
            names = list(filter(re.compile(fnmatch.translate(parts[done])).match, entries))
            after = [] if is_last else [(join(path, name), done + 1) for name in names]
        if is_last:
            found.update(join(path, name) for name in names)
        new = [place for place in after if place not in reached]
        reached.update(new)
        pending += new
    return found
