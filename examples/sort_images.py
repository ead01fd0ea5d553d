"""Sort random images of a tar archive by their dominant colour, into groups of an HDF5 file; nothing is unpacked.

``python examples/sort_images.py flowers.tgz sorted.h5 --count 500`` takes 500 images that the file does not have yet, so it
can be run again to add more. The archive is gone through once for the names, and once for the images that were drawn.
``--make N`` first writes an archive of N real images, where there is none.

Then ``train_images.py`` and ``classify_images.py``.
"""

from __future__ import annotations

import argparse
import collections
import colorsys
import io
import os
import sys
import tarfile
from pathlib import Path

import numpy as np
from image_source import write_tar
from PIL import Image
from sklearn.cluster import KMeans

import h5fast

#: Hues, by where on the colour circle they end.
HUES = ((0.04, "red"), (0.11, "orange"), (0.19, "yellow"), (0.45, "green"), (0.7, "blue"), (0.93, "purple"), (1.01, "red"))
ENDINGS = (".jpg", ".jpeg", ".png")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("archive", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=500, help="images to add (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--make", type=int, metavar="N", help="write an archive of N images first, if there is none")
    options = parser.parse_args()
    if options.make and not options.archive.exists():
        write_tar(options.archive, options.make)
    with h5fast.FileTree(options.out, "a") as tree:
        there = {os.path.relpath(path, path.split("/")[0]) for path in tree}
        drawn = draw(options.archive, there, options.count, options.seed)
        counts = sort(options.archive, drawn, tree)
    total = len(drawn) + len(there)
    print(
        f"{options.out}: {len(drawn)} images added, {total} in it: "
        + ", ".join(f"{count} {colour}" for colour, count in counts.most_common())
    )
    return 0


def draw(archive: Path, there: set[str], count: int, seed: int) -> set[str]:
    """Names of images at random, none of which is there."""
    with tarfile.open(archive, "r|*") as tar:
        names = [member.name for member in tar if member.isfile() and member.name.lower().endswith(ENDINGS)]
    missing = [name for name in names if name not in there]
    return {missing[place] for place in np.random.default_rng(seed).permutation(len(missing))[:count]}


def sort(archive: Path, drawn: set[str], tree: h5fast.FileTree) -> collections.Counter[str]:
    """Puts the images that were drawn into the group of their colour, under the path that they have in the archive."""
    counts: collections.Counter[str] = collections.Counter()
    with tarfile.open(archive, "r|*") as tar:
        for member in tar:
            if member.name in drawn:
                file = tar.extractfile(member)
                assert file is not None
                data = file.read()
                colour = dominant_colour(data)
                tree.put(f"{colour}/{member.name}", data)
                counts[colour] += 1
    return counts


def dominant_colour(data: bytes) -> str:
    """What the colour of the largest of three groups of pixels is called."""
    with Image.open(io.BytesIO(data)) as image:
        pixels = np.asarray(image.convert("RGB").resize((16, 16))).reshape(-1, 3) / 255
    found = KMeans(3, n_init=1, random_state=0).fit(
        pixels + np.linspace(0, 1e-6, len(pixels))[:, None]
    )  # never fewer than 3 colours
    red, green, blue = np.clip(found.cluster_centers_[np.bincount(found.labels_).argmax()], 0, 1)
    hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
    if value < 0.2:
        return "black"
    if saturation < 0.15:
        return "white" if value > 0.8 else "grey"
    return next(name for end, name in HUES if hue < end)


if __name__ == "__main__":
    sys.exit(main())
