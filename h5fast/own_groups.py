"""What h5fast keeps of its own in the files of others: a group at the root that holds no data of theirs."""

from __future__ import annotations

__all__ = ["INDEX_GROUP"]

#: The index of the members of a file that was packed or indexed (:mod:`h5fast.tree`). It is no member, class or sample.
INDEX_GROUP = ".h5fast"
