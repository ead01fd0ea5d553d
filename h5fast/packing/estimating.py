"""What a file will come to, before it is written: all members are listed, and some of them decoded and encoded."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from h5fast.imaging import Undecodable
from h5fast.packing.members import UNREADABLE, Problem, read
from h5fast.packing.options import Options
from h5fast.packing.routing import wanted
from h5fast.packing.sources import Source
from h5fast.specs import Spec
from h5fast.writer import Writer

__all__ = ["Estimate", "estimate"]

# Members that are decoded to tell of the others.
_SAMPLE = 32
# What HDF5 takes to keep a dataset, its name and its place in a group; what a table of `encoded` has for each, beside its path.
_DATASET_BYTES, _ENTRY_BYTES = 400, 40


@dataclass
class Estimate:
    """What to expect.

    Attributes:
        count: members
        read: bytes of them, decoded if they will be
        stored: bytes of the file
        problems: what cannot be packed, as far as listing tells
    """

    count: int = 0
    read: int = 0
    stored: int = 0
    problems: list[Problem] = field(default_factory=list)


def estimate(source: Source, options: Options) -> Estimate:
    """Goes through a source without packing it."""
    handling = options.handling()
    found, names, arrays = Estimate(), 0, list[np.ndarray]()
    for one in wanted(source, handling):
        if isinstance(one, Problem):
            found.problems.append(one)
            continue
        member = one[0]
        if options.decodes and len(arrays) < _SAMPLE:
            try:
                arrays.append(
                    handling.decoder.fit(member.array)
                    if member.array is not None
                    else handling.decoder.decode(member.path, read(member))
                )
            except (Undecodable, *UNREADABLE) as error:
                found.problems.append(Problem(member.path, str(error)))
                continue
        found.count += 1
        found.read += member.size
        names += len(os.fsencode(member.path))
    stored = float(found.read)
    if arrays:
        found.read = round(found.count * sum(array.nbytes for array in arrays) / len(arrays))
        stored = found.read * _ratio(arrays, options)
    found.stored = round(stored) + names + found.count * (_DATASET_BYTES if options.layout == "tree" else _ENTRY_BYTES)
    return found


def _ratio(arrays: list[np.ndarray], options: Options) -> float:
    """Bytes that are stored for one of these arrays."""
    alike = [array for array in arrays if (array.shape, array.dtype) == (arrays[0].shape, arrays[0].dtype)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "sample.h5")
        with Writer(
            path, {"sample": Spec(alike[0].shape, alike[0].dtype, codec=options.resolved_codec)}, memory=options.bytes_each
        ) as writer:
            writer.append(sample=np.stack(alike))
            writer.flush()
            dataset = writer.file["sample"]
            stored = int(dataset.id.get_storage_size())
            rows = int(dataset.shape[0])
    return stored / max(1, rows * alike[0].nbytes) if rows else 1.0
