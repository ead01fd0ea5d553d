"""What a tree hands out: what is known of a member, and a file to write to."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["NewFile", "Stat"]


@dataclass(frozen=True)
class Stat:
    """What is known of a member.

    Attributes:
        path: from the root, beginning with a slash
        kind: "file", "folder" or "link"
        size: bytes; 0 for folders and links
        modified: seconds since 1970, from the attribute ``Modified``; None where there is none
        permissions: from the attribute ``Permissions``, as ``stat`` has them in ``st_mode``; None where there is none
        target: what a link leads to, from the root; None for all else, and for links that lead out of the file
        has_attributes: whether ``attributes()`` has any
    """

    path: str
    kind: str
    size: int
    modified: int | None
    permissions: int | None
    target: str | None
    has_attributes: bool


class NewFile(io.BytesIO):
    """A file to write to, which is handed over when it is closed, unless an exception leaves its ``with`` block.

    Args:
        name: of the file
        put: takes name and content
    """

    def __init__(self, name: str, put: Callable[[str, bytes], None]) -> None:
        super().__init__()
        self.name = name
        self._put = put

    def close(self) -> None:
        """Hands the content over."""
        if not self.closed:
            self._put(self.name, self.getvalue())
        super().close()

    def __exit__(self, kind: Any, *error: Any) -> None:
        """Closes it; half of a file is none."""
        if kind is None:
            self.close()
        else:
            super().close()
