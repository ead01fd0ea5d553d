"""``H5Samples``: files with one dataset for each sample, by its path in the file."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import h5py
import numpy as np

from h5fast.objects import Dataset as StoredDataset
from h5fast.objects import File
from h5fast.own_groups import INDEX_GROUP
from h5fast.torch.framework import Dataset
from h5fast.torch.tensors import as_tensors

__all__ = ["H5Samples", "paths_of"]


class H5Samples(Dataset):
    """One dataset of the file is one sample, and its key is its path: what converters from folders of files write.

    Parameters
    ----------
    path:
        The HDF5 file.
    label:
        What the label of a sample is: a function of its key, or a mapping from keys. With it a sample is (sample, label), without
        it the sample alone.
    transform:
        A function of a sample, which is an array as the dataset is shaped. Without one samples become tensors.
    keys:
        Which samples, in this order; None takes all, in the order of their names: `keys` may also be a function that says of a
        key whether it is taken.

    ``dataset[i]`` is a sample by number, ``dataset["foo/boo/image_0001.png"]`` by key; :attr:`keys` are the keys. Nested groups
    are gone through. It opens the file in each process for itself, so it works in workers that are forked, spawned or made by a
    fork server.

    Raises ``OSError`` for a file that cannot be opened, ``KeyError`` for a key that is not there, ``ValueError`` for a file
    without samples.
    """

    def __init__(self, path: str | os.PathLike[str], *, label: Callable[[str], Any] | Mapping[str, Any] | None = None,
                 transform: Callable[[np.ndarray], Any] | None = None,
                 keys: Sequence[str] | Callable[[str], bool] | None = None) -> None:
        self.path = os.fspath(path)
        self.transform = transform
        self._label = label
        self._opened: tuple[int, File] | None = None
        if keys is None or callable(keys):
            found = [key for key in paths_of(self._file) if keys is None or keys(key)]
        else:
            found = list(keys)
            missing = next((key for key in found if key not in self._file), None)
            if missing is not None:
                raise KeyError(f"{self.path} has no sample {missing!r}")
        if not found:
            raise ValueError(f"{self.path} has no dataset that is a sample" + (", of those that keys= takes" if keys is not None else ""))
        self.keys = found

    @property
    def _file(self) -> File:
        """The file, open in this process."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), File(self.path, "r")
        return self._opened[1]

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.keys)

    def __getitem__(self, which: int | str) -> Any:
        """A sample by its number or its key.

        Raises ``IndexError`` or ``KeyError`` for one that is not there, ``CorruptChunkError`` and ``ReadError`` for data that
        cannot be read.
        """
        key = which if isinstance(which, str) else self.keys[operator.index(which)]
        sample = self.made(self.read(key))
        return sample if self._label is None else (sample, self.label(key))

    def read(self, key: str) -> np.ndarray:
        """What is stored under a key, as an array. Raises ``KeyError`` if there is none."""
        stored = self._file[key]
        if not isinstance(stored, StoredDataset):
            raise KeyError(f"{key!r} of {self.path} is a group, not a sample")
        return np.asarray(stored[()])

    def made(self, stored: np.ndarray) -> Any:
        """The sample that is made of what is stored."""
        return as_tensors(stored) if self.transform is None else self.transform(stored)

    def label(self, key: str) -> Any:
        """The label of a sample. Raises ``KeyError`` where the mapping of labels has none."""
        if isinstance(self._label, Mapping):
            if key not in self._label:
                raise KeyError(f"there is no label for sample {key!r} of {self.path}")
            return self._label[key]
        return None if self._label is None else self._label(key)

    def close(self) -> None:
        """Closes what this process has open; it opens again when a sample is read."""
        opened, self._opened = self._opened, None
        if opened is not None and opened[0] == os.getpid():
            opened[1].close()

    def __getstate__(self) -> dict[str, Any]:
        """Everything but what this process has open."""
        return {**self.__dict__, "_opened": None}

    def __repr__(self) -> str:
        """The file and the number of samples."""
        return f"<h5fast.torch.{type(self).__name__} of {self.path!r}: {len(self):,} samples>"


def paths_of(group: h5py.Group) -> list[str]:
    """Paths of all datasets below a group, without a slash in front, in the order of their names; links are not followed out of
    the file, a group that is reached twice is gone through once, and the index that h5fast keeps in a file is left out."""
    return list(_below(group, "", set()))


def _below(group: h5py.Group, prefix: str, seen: set[Any]) -> Iterator[str]:
    if group.id in seen:
        return
    seen.add(group.id)
    for name in sorted(group):
        if not prefix and name == INDEX_GROUP:
            continue
        link = group.get(name, getlink=True)
        if isinstance(link, h5py.ExternalLink) or (isinstance(link, h5py.SoftLink) and group.get(name) is None):  # leads nowhere
            continue
        kind = group.get(name, getclass=True)
        if issubclass(kind, h5py.Group):
            yield from _below(group[name], f"{prefix}{name}/", seen)
        elif issubclass(kind, h5py.Dataset):
            yield prefix + name
