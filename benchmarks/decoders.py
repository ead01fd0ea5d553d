"""What does the engine add to the bare decoders, and how fast is lzf against the loop that h5py ships?

Whole chunks of the benchmark files, warm page cache, 1 and 2 threads. "Bare" is the decoder alone, called on stored bytes that
are in memory already, into memory that is written already, by as many threads as the engine uses. The engine reads the
same chunks from the file into a result array. In turns, medians; bytes compared first.

The last figure decodes the same lzf chunks with the ``lzf_decompress`` of h5py's own filter, one thread.

``python benchmarks/decoders.py [--rounds 15] [--chunks 96]``
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
import ctypes
from pathlib import Path
import statistics
import sys
from threading import Thread
import time

from gather_table import conditions
import h5py
from make_data import FILES, require_data
import numpy as np

import h5fast
from h5fast import _gather

Decode = Callable[[bytes, int, int], None]
_engine = ctypes.CDLL(_gather.__file__)


def bare_lzf(stored: bytes, out: int, size: int) -> None:
    produced, consumed = ctypes.c_size_t(), ctypes.c_size_t()
    status = _engine.h5fast_lzf_decode(stored, ctypes.c_size_t(len(stored)), ctypes.c_void_p(out), ctypes.c_size_t(size),
                                       ctypes.c_size_t(size), ctypes.byref(produced), ctypes.byref(consumed))
    if status != 0 or produced.value != size:
        raise RuntimeError("lzf did not decode")


def bare_deflate() -> Decode:
    import deflate._deflate

    library = ctypes.CDLL(deflate._deflate.__file__)
    library.libdeflate_alloc_decompressor.restype = ctypes.c_void_p

    def decode(stored: bytes, out: int, size: int) -> None:
        decompressor = ctypes.c_void_p(library.libdeflate_alloc_decompressor())
        status = library.libdeflate_zlib_decompress(decompressor, stored, ctypes.c_size_t(len(stored)),
                                                    ctypes.c_void_p(out), ctypes.c_size_t(size), None)
        library.libdeflate_free_decompressor(decompressor)
        if status != 0:
            raise RuntimeError("deflate did not decode")

    return decode


def h5py_lzf_library() -> ctypes.CDLL:
    """The library that has h5py's lzf filter."""
    for path in Path(h5py.__file__).parent.glob("*.so"):
        library = ctypes.CDLL(str(path))
        if hasattr(library, "lzf_decompress"):
            return library
    sys.exit("this h5py does not export its lzf filter")


def h5py_lzf() -> Decode:
    library = h5py_lzf_library()

    def decode(stored: bytes, out: int, size: int) -> None:
        if library.lzf_decompress(stored, len(stored), ctypes.c_void_p(out), size) != size:
            raise RuntimeError("lzf did not decode")

    return decode


def run(decode: Decode, chunks: list[bytes], out: np.ndarray, threads: int) -> float:
    size = out.nbytes // len(chunks)

    def work(first: int) -> None:
        for number in range(first, len(chunks), threads):
            decode(chunks[number], out.ctypes.data + number * size, size)

    start = time.perf_counter()
    others = [Thread(target=work, args=(number,)) for number in range(1, threads)]
    for other in others:
        other.start()
    work(0)
    for other in others:
        other.join()
    return time.perf_counter() - start


def measure(path: Path, decode: Decode, loop: Decode | None, count: int, rounds: int) -> None:
    with h5fast.File(path) as file:
        dataset = file["data"]
        rows = count * dataset.chunks[0]
        chunks = [dataset.id.read_direct_chunk((first, 0, 0, 0))[1] for first in range(0, rows, dataset.chunks[0])]
        out, bare = np.empty((rows, *dataset.shape[1:]), "u1"), np.empty((rows, *dataset.shape[1:]), "u1")
        dataset.take(slice(0, rows), out=out)
        for way in filter(None, (decode, loop)):
            run(way, chunks, bare, 1)
            if not np.array_equal(out, bare):
                sys.exit("the decoders disagree")
        for threads in (1, 2):
            h5fast.set_num_threads(threads)
            pairs = []
            for _ in range(rounds):
                start = time.perf_counter()
                dataset.take(slice(0, rows), out=out)
                engine = time.perf_counter() - start
                pairs.append((engine, run(decode, chunks, bare, threads)))
            engine, alone = (statistics.median(times) for times in zip(*pairs))
            ratio = statistics.median(a / b for a, b in pairs)
            print(f"{path.stem:8}{threads:2} threads  engine {engine * 1e3:8.2f} ms  bare {alone * 1e3:8.2f} ms  "
                  f"engine / bare {ratio:5.2f}")
        if loop is not None:
            ratio = statistics.median(run(loop, chunks, bare, 1) / run(decode, chunks, bare, 1) for _ in range(rounds))
            print(f"{path.stem:8} lzf: {ratio:.1f} times as fast as h5py's own decoder, one thread")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--chunks", type=int, default=96)
    options = parser.parse_args()
    require_data()
    paths = {file.path.stem: file.path for file in FILES}
    print(f"{conditions()}; {options.rounds} rounds of {options.chunks} chunks of 32 rows")
    measure(paths["lzf32"], bare_lzf, h5py_lzf(), options.chunks, options.rounds)
    measure(paths["gz32"], bare_deflate(), None, options.chunks, options.rounds)


if __name__ == "__main__":
    main()
