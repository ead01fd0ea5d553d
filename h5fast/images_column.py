"""Fields that are images as they were filed: JPEG, PNG … back to back in one dataset, as ``h5fast.pack`` writes the layout `encoded`.

The bytes of a batch are read in one pass, then decoded by native threads, each image without Python's lock.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from h5fast import transform
from h5fast.errors import CorruptChunkError
from h5fast.fields import Field
from h5fast.imaging import Decoder, Undecodable, check_images
from h5fast.python_column import PythonColumn, transform_of
from h5fast.runs import KeptRuns, Runs
from h5fast.sources import Source, open_source
from h5fast.threads import get_num_threads
from h5fast.tree import encoded

__all__ = ["images_column"]


@dataclass(frozen=True)
class _Files:
    """The images of one file of the layout."""

    where: str
    data: Source
    runs: Runs
    offsets: np.ndarray
    paths: list[str]

    def read(self, rows: np.ndarray) -> list[bytes]:
        """Their bytes."""
        starts, stops = self.offsets[rows], self.offsets[rows + 1]
        content = [b""] * len(rows)
        at = np.flatnonzero(stops > starts)
        if len(at):
            buffer, places = self.runs.fetch(starts[at], stops[at])
            for place, first, length in zip(at.tolist(), places.tolist(), (stops[at] - starts[at]).tolist()):
                content[place] = buffer[first:first + length].tobytes()
        return content


def images_column(name: str, field: Field, sources: list[Any], group: str) -> PythonColumn:
    """The images in `group` of each file or open group, one after the other; "" is the group itself.

    Raises:
        ImportError: Pillow is not there.
        KeyError, ValueError: there is nothing of the layout, or no image.
        CorruptFileError: its tables contradict each other.
        CorruptChunkError: without a size, the first image, whose shape is that of all, cannot be decoded.
    """
    check_images(field.mode)
    files = [_open(name, source, group) for source in sources]
    images = _Images(files, Decoder(mode=field.mode, resize=field.size))
    shape = images.first_shape(name)
    if field.channels_first and len(shape) < 3:
        raise ValueError(f"field {name!r}: images of mode {field.mode!r} have no axis of channels to put first")
    wanted = transform.request(np.dtype(np.uint8), shape, field.dtype, field.scale, field.offset, field.channels_first)
    images.shape, images.finish = shape, None if wanted.is_identity else transform_of(wanted)
    kept = KeptRuns([one.runs for one in files])
    row_bytes = wanted.dtype.itemsize * math.prod(wanted.out_row_shape)
    mean = int(sum(int(one.offsets[-1]) for one in files) / max(1, sum(len(one.paths) for one in files)))
    return PythonColumn(name, int(images.ends[-1]), images.read, row_bytes, f"{field.mode} images {wanted.dtype} {wanted.out_row_shape}",
                        tuple(len(one.paths) for one in files), None,
                        lambda batch: 3 * batch * (mean + math.prod(shape)) + max(one.runs.work_bytes(batch, batch * mean) for one in files),
                        kept if kept.nbytes else None, parts=tuple(one.runs.costs for one in files), shares_chunks=True)


class _Images:
    """Images of several files.

    Attributes:
        shape: of each, decoded
        finish: what becomes of them then
    """

    def __init__(self, files: list[_Files], decoder: Decoder) -> None:
        self._files, self._decoder = files, decoder
        self.ends = np.cumsum([len(one.paths) for one in files])
        self.shape: tuple[int, ...] = ()
        self.finish: Any = None

    def first_shape(self, name: str) -> tuple[int, ...]:
        """The shape of the first file that is one."""
        for file in self._files:
            for row, path in enumerate(file.paths):
                if path and not path.endswith("/"):
                    return self._decode(file, path, file.read(np.array([row]))[0]).shape
        raise ValueError(f"field {name!r}: there is no image in {self._files[0].where}")

    def read(self, rows: np.ndarray) -> np.ndarray:
        """The images of these rows, in one array.

        Raises:
            ValueError: a row is a folder, or was removed.
            CorruptChunkError: an image cannot be read, or decoded, or has another shape.
        """
        out = np.empty((len(rows), *self.shape), np.uint8)
        owner = np.searchsorted(self.ends, rows, side="right")
        jobs: list[tuple[int, _Files, str, bytes]] = []
        for number in np.unique(owner).tolist():
            file, at = self._files[number], np.flatnonzero(owner == number)
            local = rows[at] - (int(self.ends[number]) - len(file.paths))
            paths = [file.paths[row] for row in local.tolist()]
            self._check_files(file, local, paths)
            jobs += zip(at.tolist(), [file] * len(at), paths, file.read(local))

        def decode(part: list[tuple[int, _Files, str, bytes]]) -> None:
            for place, file, path, content in part:
                image = self._decode(file, path, content)
                if image.shape != self.shape:
                    raise CorruptChunkError(f"{file.where}: image {path!r} is of shape {image.shape}, and others of {self.shape}: give "
                                            "the field a size=(height, width)")
                out[place] = image

        threads = min(get_num_threads(), len(jobs))
        parts = [jobs[number::threads] for number in range(threads)]
        with ThreadPoolExecutor(max(1, threads - 1)) as pool:  # anew each time: threads do not survive a fork
            others = [pool.submit(decode, part) for part in parts[1:]]
            for part in parts[:1]:
                decode(part)
            for other in others:
                other.result()
        return out if self.finish is None else self.finish(out)

    def _decode(self, file: _Files, path: str, content: bytes) -> np.ndarray:
        try:
            return self._decoder.decode(path, content)
        except Undecodable as error:
            raise CorruptChunkError(f"{file.where}: image {path!r} {error}") from error

    def _check_files(self, file: _Files, rows: np.ndarray, paths: list[str]) -> None:
        for row, path in zip(rows.tolist(), paths):
            if not path or path.endswith("/"):
                what = f"is the folder {path!r}" if path else "was removed"
                raise ValueError(f"{file.where}: row {row} {what}, and no image: leave it out with rows=")


def _open(name: str, source: Any, group: str) -> _Files:
    prefix = f"{group.strip('/')}/" if group.strip("/") else ""
    try:
        data = open_source(source, f"{prefix}data")
    except KeyError as error:
        raise KeyError(f"field {name!r}: layout='encoded' needs a group that h5fast.pack made: {error.args[0]}") from error
    holder: h5py.Group = data.data.parent
    where = f"{data.path}: group {holder.name!r}"
    if not encoded.is_encoded(holder):
        raise ValueError(f"field {name!r}: {where} is not of the layout 'encoded', as h5fast.pack(layout='encoded') makes it")
    tables = encoded.load(holder)
    if not tables.paths or not tables.offsets[-1]:
        raise ValueError(f"field {name!r}: {where} holds no images")
    return _Files(where, data, Runs(data), tables.offsets.astype(np.int64), tables.paths)
