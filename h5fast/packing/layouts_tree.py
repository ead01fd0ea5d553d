"""The layout ``tree``: a dataset a file, under its path. See h5fast/packing/layouts.py.

Datasets are made with HDF5's own calls and one set of prepared properties: that takes a third of the time that h5py's
``create_dataset`` does, and there are as many as files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5p, h5s, h5t

from h5fast.own_groups import INDEX_GROUP
from h5fast.packing.labels import ClassNumbers
from h5fast.packing.layouts import Output, pieces, stored_name
from h5fast.packing.members import UNREADABLE, Folder, Member, Problem, read
from h5fast.specs import Spec
from h5fast.target import AtomicTarget
from h5fast.tree import encoded
from h5fast.tree.saved import write_member_index

__all__ = ["TreeSink"]

_PIECE = 8 << 20


class TreeSink:
    """A dataset for each member; see :class:`~h5fast.packing.layouts.Sink`.

    Args:
        decodes: whether datasets are decoded arrays, one chunk each, and not the files' bytes
        codec: of decoded arrays
        metadata: whether times and permissions become attributes
        named: whether the class of a member becomes an attribute, because it is not the name of its first folder
    """

    def __init__(self, output: Output, *, decodes: bool, codec: Any, metadata: bool, named: bool) -> None:
        self.decodes = decodes
        self.count = self.written = 0
        self.classes = ClassNumbers()
        self._options = Spec((), "uint8", codec=codec).resolved().options
        self._metadata, self._named = metadata, named
        self._target = AtomicTarget(output.path, overwrite=output.overwrite, resume=output.resume)
        self.note: dict[str, Any] = {}
        self._target.note = self.note
        self._trail = output.trail(self.note)
        self._groups: dict[str, Any] = {"": self._target.file.id}
        self._properties = h5p.create(h5p.DATASET_CREATE)
        self._properties.set_fill_time(h5d.FILL_TIME_NEVER)  # all of it is written
        self._properties.set_obj_track_times(False)

    def replay(self, member: Member, label: Any) -> bool:
        if self.count >= self._target.rows:
            return False
        self.count += 1
        self.classes.add(label)
        self._trail.replay(member)
        return True

    def add(self, found: Sequence[tuple[Member, Any, Any]]) -> list[Problem]:
        self._trail.check()
        problems = []
        for member, decoded, label in found:
            if member.path.split("/")[0] == INDEX_GROUP:
                problems.append(Problem(member.path, f"{INDEX_GROUP!r} is where the index of members lies"))
                continue
            try:
                dataset = self._bytes(member) if decoded is None and member.array is None else self._array(member, decoded)
            except UNREADABLE as error:
                problems.append(Problem(member.path, f"cannot be read: {error}"))
                continue
            self._describe(dataset, member, label)
            self.classes.add(label)
            self._trail.add(member)
            self.count += 1
            self._target.check()
        return problems

    def add_folder(self, folder: Folder) -> None:
        if folder.path.split("/")[0] != INDEX_GROUP:
            group = self._target.file.require_group(stored_name(folder.path))
            self._describe(group.id, folder, None)
            self._target.check()

    def _place(self, path: str) -> tuple[Any, bytes]:
        folder, _, name = path.rpartition("/")
        group = self._groups.get(folder)
        if group is None:
            group = self._groups[folder] = self._target.file.require_group(stored_name(folder)).id
        return group, stored_name(name)

    def _bytes(self, member: Member) -> Any:
        data = np.frombuffer(read(member), np.uint8) if member.size <= _PIECE else None
        dataset = h5d.create(*self._place(member.path), h5t.NATIVE_UINT8, h5s.create_simple((member.size,)), self._properties)
        if data is None:
            for at, piece in pieces(member):
                space = dataset.get_space()
                space.select_hyperslab((at,), piece.shape)
                dataset.write(h5s.create_simple(piece.shape), space, piece)
        elif len(data):
            dataset.write(h5s.ALL, h5s.ALL, data)
        self.written += member.size
        return dataset

    def _array(self, member: Member, decoded: Any) -> Any:
        values = np.ascontiguousarray(member.array if decoded is None else decoded)
        group, name = self._place(member.path)
        chunked = {"chunks": values.shape, **self._options} if values.ndim and values.size else {}
        self.written += values.nbytes
        return h5py.Group(group).create_dataset(name, data=values, **chunked).id

    def _describe(self, made: Any, member: Member | Folder, label: Any) -> None:
        named = label is not None and (self._named or (isinstance(member, Member) and member.label is not None))
        if not self._metadata and not named:
            return
        attributes = h5py.AttributeManager(h5py.Group(made) if isinstance(member, Folder) else h5py.Dataset(made))
        if self._metadata and member.modified is not None:
            attributes.create("Modified", member.modified, dtype=np.int64)
        if self._metadata and member.permissions:
            attributes.create("Permissions", member.permissions, dtype=np.uint32)
        if named:
            attributes["label"] = label

    def flush(self) -> None:
        self._target.flush(self.count)

    def finish(self) -> None:
        self._trail.check()
        self._groups.clear()
        self._target.file.attrs[encoded.ATTRIBUTE] = "tree"
        self._target.rows = self.count
        self._target.finish(then=write_member_index)

    def leave(self) -> None:
        self._groups.clear()
        self._target.leave()
