"""Folder, file, reads by relative path: code that opens images of a folder reads them from one HDF5 file.

``python examples/folder_to_file.py images images.h5`` packs a folder (``--make N`` writes one of N real images first), as the
files' own bytes and as decoded arrays, and reads both by the paths that the files had, from several processes at once.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from pathlib import Path

import h5py
import numpy as np
from image_source import write_folder
from PIL import Image

import h5fast


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--make", type=int, metavar="N", help="write a folder of N images first, if there is none")
    options = parser.parse_args()
    if options.make and not options.folder.exists():
        write_folder(options.folder, options.make)
    decoded = options.out.with_name("decoded_" + options.out.name)
    done = h5fast.pack(options.folder, options.out, layout="tree", ext="jpg", overwrite=True)
    h5fast.pack(options.folder, decoded, layout="tree", ext="jpg", decode=True, overwrite=True)
    print(f"{done.count} files of {done.read:,} bytes in {done.stored:,}, {done.count / done.seconds:,.0f} a second")

    with h5fast.FileTree(options.out) as tree, multiprocessing.get_context("spawn").Pool(2) as pool:
        paths = sorted(tree)
        # A tree is pickled as its path, and reopened in the worker.
        same = pool.map(Compared(options.folder, tree, decoded), paths, chunksize=32)
    print(f"{sum(same)} of {len(paths)} images are the same by their relative paths, as bytes and as pixels")
    return 0 if paths and all(same) else 1


class Compared:
    """Says of a path whether the folder and the two files have the same there."""

    def __init__(self, folder: Path, tree: h5fast.FileTree, decoded: Path) -> None:
        self.folder, self.tree, self.decoded = folder, tree, decoded

    def __call__(self, path: str) -> bool:
        with h5py.File(self.decoded) as file:
            pixels = file[path][:]
        return self.tree[path] == (self.folder / path).read_bytes() and np.array_equal(pixels, Image.open(self.folder / path))


if __name__ == "__main__":
    sys.exit(main())
