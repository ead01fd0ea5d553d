"""Writes the HDF5 files that the tests read: any layout, filter pipeline and chunk content, valid or not.

Goes through h5py's low level, and through ctypes on h5py's own libhdf5 for what h5py does not expose. Contents are a pure
function of shape, dtype and seed.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import textwrap
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from h5py._objects import phil

LIBHDF5 = ctypes.CDLL(h5py.defs.__file__)  # dlsym on h5py's extension finds the library that h5py itself uses
DONT_FILTER_PARTIAL_CHUNKS = 2  # H5D_CHUNK_DONT_FILTER_PARTIAL_CHUNKS
DEFLATE, SHUFFLE, FLETCHER32, SZIP, NBIT, SCALEOFFSET, LZF = 1, 2, 3, 4, 5, 6, 32000

# Every pipeline that libhdf5 and h5py bring themselves, in the order of writing; also ones in an order nobody would choose.
PIPELINES: dict[str, list[tuple[int, tuple[int, ...]]]] = {
    "none": [],
    "gzip": [(DEFLATE, (4,))],
    "lzf": [(LZF, ())],
    "shuffle": [(SHUFFLE, ())],
    "fletcher32": [(FLETCHER32, ())],
    "shuffle+gzip": [(SHUFFLE, ()), (DEFLATE, (6,))],
    "shuffle+lzf": [(SHUFFLE, ()), (LZF, ())],
    "shuffle+gzip+fletcher32": [(SHUFFLE, ()), (DEFLATE, (1,)), (FLETCHER32, ())],
    "shuffle+lzf+fletcher32": [(SHUFFLE, ()), (LZF, ()), (FLETCHER32, ())],
    "fletcher32+shuffle+gzip": [(FLETCHER32, ()), (SHUFFLE, ()), (DEFLATE, (9,))],
    "gzip+shuffle": [(DEFLATE, (4,)), (SHUFFLE, ())],
    "gzip+lzf": [(DEFLATE, (4,)), (LZF, ())],
}


def plugin_pipelines() -> dict[str, list[tuple[int, tuple[int, ...]]]]:
    """Pipelines with hdf5plugin's filters, registered with h5py; empty where hdf5plugin is not installed."""
    try:
        import hdf5plugin
    except ImportError:
        return {}
    filters = {"zstd": hdf5plugin.Zstd(), "lz4": hdf5plugin.LZ4(), "bitshuffle": hdf5plugin.Bitshuffle(),
               "blosc": hdf5plugin.Blosc(), "blosc2": hdf5plugin.Blosc2(), "bzip2": hdf5plugin.BZip2()}
    pipelines = {name: [(f.filter_id, tuple(f.filter_options))] for name, f in filters.items()}
    pipelines["shuffle+zstd"] = [(SHUFFLE, ()), *pipelines["zstd"]]
    return pipelines


def call(function: str, *arguments: Any) -> None:
    """Calls a function of h5py's libhdf5 that h5py does not expose; integers larger than an int must come as ctypes."""
    if not hasattr(LIBHDF5, function):
        pytest.skip(f"this libhdf5 has no {function}")
    with phil:
        status = getattr(LIBHDF5, function)(*arguments)
    assert status >= 0, f"{function} failed"


def property_list(pipeline: Iterable[tuple[int, tuple[int, ...]]] = (), chunks: tuple[int, ...] | None = None, *,
                  raw_edges: bool = False, fill: Any = None, fill_time: int | None = None,
                  alloc_time: int | None = None) -> h5py.h5p.PropDCID:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    if chunks is not None:
        plist.set_chunk(chunks)
    for number, options in pipeline:
        if number == SHUFFLE:
            plist.set_shuffle()
        elif number == FLETCHER32:
            plist.set_fletcher32()
        else:
            plist.set_filter(number, h5py.h5z.FLAG_OPTIONAL, tuple(options))
    if raw_edges:
        call("H5Pset_chunk_opts", ctypes.c_int64(plist.id), ctypes.c_uint(DONT_FILTER_PARTIAL_CHUNKS))
    if fill is not None:
        plist.set_fill_value(np.asarray(fill))
    if fill_time is not None:
        plist.set_fill_time(fill_time)
    if alloc_time is not None:
        plist.set_alloc_time(alloc_time)
    return plist


def content(shape: tuple[int, ...], dtype: Any = "i4", seed: int = 0) -> np.ndarray:
    """Compressible but without repeated rows: a random walk in the low bits, position in the high ones."""
    dtype, size = np.dtype(dtype), int(np.prod(shape))
    if dtype.names:
        whole = np.zeros(shape, dtype)
        for number, name in enumerate(dtype.names):
            whole[name] = content(shape + dtype[name].shape, dtype[name].base, seed + number)
        return whole
    walk = np.arange(size) * 5 + np.random.default_rng(seed).integers(0, 4, size)
    if dtype.kind == "S":
        return np.char.mod("%d", walk).astype(dtype).reshape(shape)
    if dtype.kind == "b":
        return (walk % 3 == 0).reshape(shape)
    return (walk % 251 if dtype.itemsize == 1 else walk).astype(dtype).reshape(shape)


def write(path: Any, data: np.ndarray, name: str = "d", *, chunks: tuple[int, ...] | None = None,
          pipeline: Iterable[tuple[int, tuple[int, ...]]] = (), maxshape: tuple[int | None, ...] | None = None,
          libver: Any = None, userblock: int = 0, fill: Any = None, raw_edges: bool = False,
          mode: str = "w", store: bool = True) -> Path:
    """One dataset holding `data`; with store=False nothing is written into it."""
    plist = property_list(pipeline, chunks, raw_edges=raw_edges, fill=fill)
    limits = maxshape and tuple(h5py.h5s.UNLIMITED if m is None else m for m in maxshape)
    with h5py.File(path, mode, libver=libver, **({"userblock_size": userblock} if userblock else {})) as file:
        space = h5py.h5s.create_simple(data.shape, limits or None)
        kind = h5py.h5t.py_create(data.dtype, logical=True)
        dataset = h5py.Dataset(h5py.h5d.create(file.id, name.encode(), kind, space, plist))
        if store:
            dataset[...] = data
    return Path(path)


def write_chunk(path: Any, offset: tuple[int, ...], stored: bytes, *, name: str = "d", mask: int = 0) -> None:
    """Replaces the stored bytes of one chunk; nothing checks or filters them."""
    with h5py.File(path, "r+") as file:
        file[name].id.write_direct_chunk(offset, stored, mask)


def stored_chunks(path: Any, name: str = "d") -> list[Any]:
    """h5py's StoreInfo of every allocated chunk (chunk_offset, filter_mask, byte_offset, size), in file order.

    Not for extensible arrays with an unlimited dimension other than the first: libhdf5 has those coordinates wrong.
    """
    found: list[Any] = []
    with h5py.File(path, "r") as file:
        file[name].id.chunk_iter(lambda chunk: found.append(chunk))
    return sorted(found, key=lambda chunk: chunk.byte_offset)


def patch_bytes(path: Any, offset: int, replacement: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(replacement)


def find_address(path: Any, address: int) -> list[int]:
    """Where in the file this address is stored as a little-endian 64-bit number: B-tree nodes and headers."""
    raw, needle, places, start = Path(path).read_bytes(), address.to_bytes(8, "little"), [], 0
    while (start := raw.find(needle, start)) >= 0:
        places.append(start)
        start += 1
    return places


def deflate(data: bytes, level: int = 6) -> bytes:
    return zlib.compress(data, level)


def _command(code: str, arguments: Iterable[Any], environment: dict[str, str] | None) -> tuple[list[str], dict[str, str]]:
    tests = Path(__file__).resolve().parent
    paths = [str(tests), *filter(None, [os.environ.get("PYTHONPATH")]), str(tests.parent)]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **(environment or {})}
    return [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)], variables


def run_python(code: str, *arguments: Any, timeout: float = 120, environment: dict[str, str] | None = None,
               expect: int | None = 0) -> subprocess.CompletedProcess:
    """Runs a script in a fresh interpreter, with tests/ and h5fast importable; asserts its exit status."""
    command, variables = _command(code, arguments, environment)
    finished = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=variables, check=False)
    if expect is not None:
        assert finished.returncode == expect, f"exit {finished.returncode}\n{finished.stdout}\n{finished.stderr}"
    return finished


def start_python(code: str, *arguments: Any) -> subprocess.Popen:
    """Starts a script that talks over its standard input and output, line by line."""
    command, variables = _command(code, arguments, None)
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables)
