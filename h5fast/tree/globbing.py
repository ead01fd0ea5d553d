"""Patterns of paths: ``*``, ``?`` and ``[…]`` within a name, ``**`` for any number of folders. Nothing but the listing it is
given tells what there is."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterator

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


def matches(listing: Listing, folder: str, parts: list[str], seen: str = "") -> Iterator[str]:
    """Paths below a folder that match, relative to it; some come twice where there are several ``**``.

    Args:
        seen: the path from where the pattern begins to this folder
    """
    if not parts:
        yield seen
        return
    head, *rest = parts
    entries = listing(folder)
    if head != "**":
        fits = re.compile(fnmatch.translate(head)).match
        for name in filter(fits, entries):
            yield from matches(listing, join(folder, name), rest, join(seen, name))
        return
    yield from matches(listing, folder, rest, seen)
    for name, is_folder in entries.items():
        if is_folder:
            yield from matches(listing, join(folder, name), parts, join(seen, name))
        elif not rest:
            yield join(seen, name)
