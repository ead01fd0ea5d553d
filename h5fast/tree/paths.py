"""What a path within a file means, and what names there can be. Arithmetic on strings; nothing is looked up."""

from __future__ import annotations

import os

__all__ = ["as_bytes", "check_name", "join", "parts_of", "resolve", "unfit"]


def resolve(folder: str, path: str | os.PathLike[str]) -> str:
    """The path from the root, without a slash in front ("" is the root), of a path as seen from a folder.

    ``..`` leads to the folder above, and at the root stays there.

    Raises:
        TypeError: it is no path.
        ValueError: it holds a NUL, or half of a surrogate pair.
    """
    text = os.fspath(path)
    if not isinstance(text, str):
        raise TypeError(f"a path within a file is a str, not {type(text).__name__}")
    if "\0" in text:
        raise ValueError(f"no path holds a NUL character: {text!r}")
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise ValueError(f"no path holds the character {text[error.start]!r}, half of a surrogate pair: {text!r}") from None
    found = [] if text.startswith("/") else parts_of(folder)
    for part in text.split("/"):
        if part == "..":
            del found[-1:]
        elif part not in ("", "."):
            found.append(part)
    return "/".join(found)


def parts_of(path: str) -> list[str]:
    """The names of a path from the root."""
    return path.split("/") if path else []


def join(folder: str, name: str) -> str:
    """The path of a member of a folder, both from the root."""
    return f"{folder}/{name}" if folder else name


def unfit(name: str) -> str | None:
    """Why a name cannot be that of a file, as a clause; None where it can."""
    if name in ("", ".", ".."):
        return f"the name {name!r} means something else in a path"
    if "/" in name or "\0" in name:
        return f"the name {name!r} holds a character that no name of a file does"
    return None


def check_name(path: str) -> None:
    """Raises ``ValueError`` where a resolved path is the root, which cannot be written, moved or removed."""
    if not path:
        raise ValueError("the root of the file is a folder that is always there")


def as_bytes(path: str) -> bytes:
    """A path from the root, as libhdf5 takes it; bytes that are no UTF-8 come back as they were."""
    return b"/" + path.encode("utf-8", "surrogateescape")
