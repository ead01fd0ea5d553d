"""How long does the index of a million chunks take, and how much memory? Meant: 0.25 s and 32 bytes a chunk.

The index is built from an open file, warm page cache, median of the rounds; beside it, in turn, h5py's own walk over the
chunks with a Python callback. A few entries are compared with h5py's first.

``python benchmarks/index_million.py [--rounds 7]``
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import h5py
from gather_table import conditions
from make_data import MILLION, million_path, require_data

from h5fast._index import ChunkIndex, build


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    require_data()
    print(f"{conditions()}; {options.rounds} rounds")
    ours: list[float] = []
    theirs: list[float] = []
    with h5py.File(million_path()) as file:
        data = file["data"]
        check(data)
        for _ in range(options.rounds):
            start = time.perf_counter()
            index = index_of(data)
            ours.append(time.perf_counter() - start)
            start = time.perf_counter()
            data.id.chunk_iter(lambda info: None)
            theirs.append(time.perf_counter() - start)
    median = statistics.median(ours)
    print(f"{MILLION:,} chunks: {median:.3f} s (h5py's own walk {statistics.median(theirs):.2f} s), ", end="")
    print(f"{index.nbytes / MILLION:.1f} bytes a chunk; target 0.25 s {'met' if median <= 0.25 else 'MISSED'}, ", end="")
    print(f"32 bytes {'met' if index.nbytes <= 32 * MILLION else 'MISSED'}")


def index_of(data: h5py.Dataset) -> ChunkIndex:
    return build(data.id, data.shape, data.maxshape, data.chunks, 0)


def check(data: h5py.Dataset) -> None:
    entries = {number: (address, size, mask) for number, address, size, mask in index_of(data).entries()}
    if len(entries) != MILLION:
        sys.exit(f"{len(entries):,} chunks in the index")
    for row in (0, 1, 777_777, MILLION - 1):
        info = data.id.get_chunk_info_by_coord((row, 0))
        if entries[row] != (info.byte_offset, info.size, info.filter_mask):
            sys.exit(f"chunk {row}: {entries[row]} is not {info}")


if __name__ == "__main__":
    main()
