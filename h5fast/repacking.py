"""``repack()``: a file with the same contents, in other chunks or through other filters.

The new file is written beside the old one, compared with it, and only then gets its name: whatever happens before, the old one
is as it was.
"""

from __future__ import annotations

import errno
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
from h5py import h5f, h5fd, h5g, h5o, h5p, h5z

from h5fast import layout, plugins
from h5fast.chunking import check_access
from h5fast.codec import Pipeline
from h5fast.comparing import Comparison
from h5fast.copying import TreeCopy
from h5fast.errors import ReadError, UnsupportedError
from h5fast.info import open_file
from h5fast.objects import File
from h5fast.recoding import NewLayout
from h5fast.sampling import SAMPLE_BYTES, choose_codec
from h5fast.sizes import parse_bytes
from h5fast.specs import Spec, lay_out
from h5fast.target import CODEC_ATTRIBUTE, ROWS_ATTRIBUTE, check_target, partial_path
from h5fast.threads import get_num_threads, set_num_threads
from h5fast.transaction import Transaction, commit_path

__all__ = ["RepackReport", "Repacked", "repack"]

# Datasets smaller than this are left as they are, unless they are named: there is nothing to gain.
_SMALL_BYTES = 64 << 10
# Less than one chunk in so many was ever written: left as it is, unless it is named, since all of it would be read.
_SPARSE = 4
_SIMPLE_FILTERS = (h5z.FILTER_SHUFFLE, h5z.FILTER_LZF, h5z.FILTER_FLETCHER32)
# Superblocks from this version on are of files that are read while they grow, and stay so.
_SWMR_SUPERBLOCK = 3


@dataclass(frozen=True)
class Repacked:
    """What became of one dataset. Sizes are bytes as they are stored; chunks are None where there were none."""

    name: str
    chunks_before: tuple[int, ...] | None
    chunks: tuple[int, ...]
    codec_before: str
    codec: str
    stored_before: int
    stored: int
    reason: str


@dataclass(frozen=True)
class RepackReport:
    """What became of a file. `datasets` are those that are stored in another way; everything else was copied as it is."""

    source: str
    out: str
    bytes_before: int
    bytes: int
    datasets: tuple[Repacked, ...]
    verified: bool


def repack(source: str | os.PathLike[str], out: str | os.PathLike[str] | None = None, *, paths: Sequence[str] | str | None = None,
           chunk_rows: int | str = "auto", chunks: Sequence[int] | None = None, codec: Any = "keep", shuffle: bool | None = None,
           access: str = "random rows", threads: int | None = None, memory: int | float | str = "256 MiB", verify: bool = True,
           overwrite: bool = False) -> RepackReport:
    """Writes the contents of a file anew, with datasets in other chunks or through other filters, encoded by native threads.

    Kept are groups, attributes, links of every kind (an object with two names has two), committed types, dimension scales,
    references, virtual datasets, fill values, limits, orders of creation, the user block and the permissions; datasets that are
    not chosen are copied by HDF5 itself, as they are stored.

    Parameters
    ----------
    source:
        The file.
    out:
        Where the new one goes. None puts it in the place of the old one, once it is complete and compared.
    paths:
        Datasets, or groups for all below them, that are to be stored in another way. None takes those of numbers, of 64 KiB
        and more, most of whose chunks are there; ones that are not chunked only if there is a `codec` for them.
    chunk_rows:
        Rows of a chunk, "keep", or "auto": by the size of a row, the codec and the `access` ("random rows" or "sequential").
    chunks:
        The whole shape of a chunk instead, which may hold parts of rows. `paths` must name datasets of as many axes.
    codec, shuffle:
        As of :class:`Spec`; "keep" keeps the filters of each dataset. Checksums are kept in any case.
    threads:
        As :func:`set_num_threads`, for this call.
    memory:
        Bytes, or a text such as "1 GiB", for elements on their way.
    verify:
        Whether to compare both files, bit for bit, before the new one gets its name.
    overwrite:
        Whether a file at `out` may be replaced, and a partial file of a :class:`Writer` that did not finish be thrown away.

    Returns
    -------
    A :class:`RepackReport`.

    Raises
    ------
    FileExistsError
        There is a file at `out`, or a partial one that can be resumed.
    KeyError
        The file has none of `paths`.
    ValueError, TypeError
        Arguments that mean nothing, or do not fit the dataset.
    UnsupportedError
        One of `paths` cannot be stored in another way, or the file has something that cannot be copied; the message says what.
    CorruptChunkError, ReadError, OSError
        The file cannot be read, changed meanwhile, or the new one cannot be written. The old one is as it was.
    H5FastError
        The files differ: the new one is thrown away.
    """
    path = Path(os.path.realpath(os.fspath(source)))
    target = path if out is None else Path(os.fspath(out))
    if out is not None and target.exists() and os.path.samefile(path, target):
        raise ValueError(f"{target}: is the file itself; without out, it is repacked in place")
    budget = parse_bytes(memory)
    wish = _Wish(chunk_rows, chunks, codec, shuffle, access, budget)
    wish.check()
    before = os.stat(path)
    former = get_num_threads()
    try:
        if threads is not None:
            set_num_threads(threads)
        with open_file(str(path)) as file:
            _check_not_written(path)
            recipes = dict(_recipes(file, paths, wish))
            _check_place(target, replace=out is None or overwrite, overwrite=overwrite)
            return _Rewrite(file, path, target, recipes, budget).run(before, verify=verify, replace=out is None or overwrite)
    finally:
        set_num_threads(former)


@dataclass(frozen=True)
class _Wish:
    """What is asked for all datasets at once."""

    chunk_rows: int | str
    chunks: Sequence[int] | None
    codec: Any
    shuffle: bool | None
    access: str
    memory: int

    def check(self) -> None:
        """Raises what :class:`Spec` raises of options that mean nothing, whatever datasets the file has."""
        check_access(self.access)
        if self.codec == "keep" and self.shuffle is not None:
            raise ValueError("shuffle is part of the filters that codec='keep' keeps: say which codec it shall go with")
        Spec((), "u1", chunk_rows="auto" if self.chunk_rows == "keep" else self.chunk_rows,
             codec=None if self.codec == "keep" else self.codec)


def _check_place(target: Path, *, replace: bool, overwrite: bool) -> None:
    check_target(target, replace)
    partial = partial_path(target)
    if not overwrite and partial.exists() and commit_path(partial).exists():
        raise FileExistsError(errno.EEXIST, "is of a writer that did not finish and can be resumed; overwrite=True throws it away",
                              str(partial))


def _check_not_written(path: Path) -> None:
    for file in h5f.get_obj_ids(h5f.OBJ_ALL, h5f.OBJ_FILE):
        name = os.fsdecode(h5f.get_name(file))
        if file.get_intent() & h5f.ACC_RDWR and os.path.exists(name) and os.path.samefile(name, path):
            raise ReadError(errno.EBUSY, "is open for writing in this process: close it first", str(path))


def _recipes(file: File, paths: Sequence[str] | str | None, wish: _Wish) -> Iterator[tuple[str, NewLayout]]:
    """How the chosen datasets are to be stored, where that is not how they are."""
    if wish.chunks is not None and paths is None:
        raise ValueError("chunks are for the datasets that paths name")
    for name, named in _chosen(file, paths).items():
        dataset = file[name]
        reason = _obstacle(dataset, wish)
        if reason is not None:
            if named:
                raise UnsupportedError(f"{file.filename}: {name!r} cannot be stored in another way: {reason}")
            continue
        if not named and not _is_worthwhile(dataset, wish):
            continue
        recipe = _recipe(dataset, wish)
        if not _is_stored_so(dataset, recipe):
            yield name, recipe


def _chosen(file: File, paths: Sequence[str] | str | None) -> dict[str, bool]:
    """Names of datasets, each with whether it was named itself."""
    chosen: dict[str, bool] = {}
    for path in [None] if paths is None else [paths] if isinstance(paths, str) else paths:
        found = file if path is None else file[path]
        if found.file.id != file.id:
            raise UnsupportedError(f"{file.filename}: {path!r} lies in another file, {found.file.filename}")
        if isinstance(found, h5py.Dataset):
            chosen[found.name] = True
            continue
        names: list[bytes] = []
        h5o.visit(found.id, lambda name, about, names=names: names.append(name) if about.type == h5o.TYPE_DATASET else None, info=True)
        for name in names:
            chosen.setdefault(f"{found.name.rstrip('/')}/{name.decode('utf-8', 'surrogateescape')}", False)
    return chosen


def _obstacle(dataset: h5py.Dataset, wish: _Wish) -> str | None:
    """Why this dataset must stay as it is."""
    if not dataset.shape or not dataset.size:
        return "it has no rows"
    try:
        layout.describe(dataset)
    except layout.Virtual:
        return "it is made of other datasets"
    except layout.Indirect as error:
        if not str(error).startswith("filter") or wish.codec == "keep":
            return str(error)
        return plugins.missing(dataset.id.get_create_plist())
    return None


def _is_worthwhile(dataset: h5py.Dataset, wish: _Wish) -> bool:
    if dataset.dtype.kind not in "biufc" or dataset.nbytes < _SMALL_BYTES:
        return False
    if dataset.chunks is None:
        return bool(wish.codec not in ("keep", None, "none") and dataset.id.get_storage_size())
    grid = math.prod(-(-length // chunk) for length, chunk in zip(dataset.shape, dataset.chunks, strict=True))
    return bool(dataset.id.get_num_chunks() * _SPARSE >= grid)


def _recipe(dataset: h5py.Dataset, wish: _Wish) -> NewLayout:
    shape: tuple[int, ...] = dataset.shape
    spec = _spec(dataset, wish)
    most = max(1, wish.memory // 8)
    reasons = []
    if spec.codec == "auto":
        rows = dataset[:max(1, SAMPLE_BYTES // max(1, spec.row_bytes))]
        found, reason = choose_codec(spec, rows, access=wish.access, most_bytes=most)
        spec = spec.with_codec(found)
        reasons.append(reason)
    if wish.chunks is not None:
        chunks = tuple(map(int, wish.chunks))
        if len(chunks) != len(shape) or any(length < 1 for length in chunks):
            raise ValueError(f"{dataset.name!r} has the shape {shape}, and chunks of shape {chunks} do not tile it")
        reasons.append("chunks asked for")
    elif wish.chunk_rows == "keep" and dataset.chunks is not None:
        chunks = dataset.chunks
    else:
        laid = lay_out(dataset.name, spec, access=wish.access, rows=shape[0], most_bytes=most)
        chunks = (laid.chunk_rows, *shape[1:])
        reasons.append(laid.rows_reason)
    limits = dataset.maxshape
    fitting = tuple(chunk if limit is None else min(chunk, limit) for chunk, limit in zip(chunks, limits, strict=True))
    return NewLayout(fitting, spec.resolved(), "; ".join(reasons))


def _spec(dataset: h5py.Dataset, wish: _Wish) -> Spec:
    rows: Any = "auto" if wish.chunk_rows == "keep" else wish.chunk_rows
    if wish.codec == "keep":
        return Spec.of(dataset, chunk_rows=rows)
    return Spec(dataset.shape[1:], dataset.dtype, chunk_rows=rows, codec=wish.codec, shuffle=wish.shuffle,
                fletcher32=bool(dataset.fletcher32))


def _is_stored_so(dataset: h5py.Dataset, recipe: NewLayout) -> bool:
    if dataset.chunks != recipe.chunks:
        return False
    if isinstance(recipe.codec.options.get("dcpl"), h5p.PropDCID):
        return True  # its own filters
    options = recipe.codec.options
    found: list[tuple[int, Any]] = []
    if options.get("shuffle"):
        found.append((h5z.FILTER_SHUFFLE, None))
    if options.get("compression") == "gzip":
        found.append((h5z.FILTER_DEFLATE, (options["compression_opts"],)))
    elif options.get("compression") is not None:
        found.append((h5z.FILTER_LZF if options["compression"] == "lzf" else options["compression"], None))
    if options.get("fletcher32"):
        found.append((h5z.FILTER_FLETCHER32, None))
    present = [(number, None if number in _SIMPLE_FILTERS else values)
               for number, values, _ in plugins.pipeline(dataset.id.get_create_plist())]
    return present == found


class _Rewrite:
    """One file on its way to another."""

    def __init__(self, file: File, path: Path, target: Path, recipes: Mapping[str, NewLayout], memory: int) -> None:
        self._file, self._path, self._target = file, path, target
        self._recipes, self._memory = recipes, memory
        self._partial = partial_path(target)

    def run(self, before: os.stat_result, *, verify: bool, replace: bool) -> RepackReport:
        transaction = Transaction(self._partial, resume=False)
        try:
            shutil.copymode(self._path, self._partial)
            datasets = self._write(transaction)
            size = os.path.getsize(self._partial)
            if verify:
                self._verify()
            now = os.stat(self._path)
            if (now.st_ino, now.st_size, now.st_mtime_ns) != (before.st_ino, before.st_size, before.st_mtime_ns):
                raise ReadError(errno.ESTALE, "changed while it was repacked: it is left as it is", str(self._path))
            transaction.finish({}, self._target, replace=replace)
        except BaseException:
            self._partial.unlink(missing_ok=True)
            raise
        finally:
            transaction.close()
        return RepackReport(str(self._path), str(self._target), before.st_size, size, datasets, verify)

    def _write(self, transaction: Transaction) -> tuple[Repacked, ...]:
        try:
            with h5py.File(self._create(transaction)) as copy:
                TreeCopy(self._file, copy, self._recipes, self._memory, transaction.check).run()
                copy.flush()
                transaction.check()
                datasets = tuple(self._told(copy, name, recipe) for name, recipe in self._recipes.items())
            transaction.check()
        except Exception:
            transaction.check()  # what a full disk leads to is not what is wrong
            transaction.give_up()
            raise
        block = layout.user_block(self._file.id)
        if block:
            with open(self._path, "rb") as old, open(self._partial, "r+b") as new:
                new.write(old.read(block))
        return datasets

    def _create(self, transaction: Transaction) -> h5f.FileID:
        """An empty file with what the old one says of files."""
        access, properties = h5p.create(h5p.FILE_ACCESS), self._file.id.get_create_plist()
        access.set_fileobj_driver(h5fd.fileobj_driver, transaction)
        root = h5g.open(self._file.id, b"/").get_create_plist()  # which alone knows what is tracked there
        properties.set_link_creation_order(root.get_link_creation_order())
        properties.set_attr_creation_order(root.get_attr_creation_order())
        access.set_fclose_degree(h5f.CLOSE_STRONG)
        if properties.get_version()[0] >= _SWMR_SUPERBLOCK:
            access.set_libver_bounds(h5f.LIBVER_V110, h5f.LIBVER_LATEST)
        return h5f.create(os.fsencode(self._partial), h5f.ACC_TRUNC, properties, access)

    def _told(self, copy: h5py.File, name: str, recipe: NewLayout) -> Repacked:
        """What became of a dataset; its attributes that tell why it is stored so, if it has them, tell the present reason."""
        old, new = self._file[name], copy[name]
        if ROWS_ATTRIBUTE in new.attrs:
            new.attrs[ROWS_ATTRIBUTE] = recipe.reason
        if CODEC_ATTRIBUTE in new.attrs:
            new.attrs[CODEC_ATTRIBUTE] = f"{recipe.codec.name}: repacked"
        filters = tuple((number, values) for number, values, _ in plugins.pipeline(old.id.get_create_plist()))
        return Repacked(name, old.chunks, new.chunks, Pipeline(filters).name, recipe.codec.name, old.id.get_storage_size(),
                        new.id.get_storage_size(), recipe.reason)

    def _verify(self) -> None:
        # The writer's own lock is on it.
        with File(self._partial, "r", locking=False) as copy:
            ignored = frozenset((ROWS_ATTRIBUTE, CODEC_ATTRIBUTE))
            Comparison(self._file, copy, ignored, self._memory).run()
