"""Makes the project's own small corpus: every layout through every filter, types in turn, by every format version of libhdf5's.

    python tests/make_corpus.py FOLDER [--seed 0]

The same files for the same seed and libraries, and ``h5py_truth.jsonl`` with what h5py reads of them, as larger corpora have it.
conformance.py, untrusted_corpus.py and conformance_table.py read it like any other.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import hdf5_files as files
import numpy as np
from canonical import sha_of

SHAPE = (13, 6, 5)
VERSIONS = ("earliest", "latest")
TYPES_EACH = 2  # types of each layout with each filter; over all, each type meets each layout and each filter

TYPES: dict[str, Any] = {
    "i1": "i1", "u2 big": ">u2", "i4": "<i4", "u8": "<u8", "f2": "<f2", "f4": "<f4", "f8 big": ">f8", "c16": "<c16", "bool": "?",
    "text": "S5", "compound": np.dtype([("a", "<i4"), ("b", ">f8", (2,)), ("s", "S3")]), "array": np.dtype(("<i2", (3,))),
    "enum": h5py.enum_dtype({"no": 0, "yes": 1}, "u1"),
}

# How a dataset lies in its file: chunk shape, limits, and what else makes libhdf5 choose an index. Those without a limit of their
# own are indexed by a B-tree in the old format and, in the new, by what the comment says.
LAYOUTS: dict[str, dict[str, Any]] = {
    "contiguous": {},
    "compact": {"compact": True},
    "fixed array": {"chunks": (4, 6, 5)},
    "rows in pieces": {"chunks": (2, 4, 3)},
    "single chunk": {"chunks": SHAPE},
    "implicit": {"chunks": (4, 3, 5), "alloc_time": h5py.h5d.ALLOC_TIME_EARLY},
    "extensible array": {"chunks": (4, 6, 5), "maxshape": (None, 6, 5)},
    "extensible, second axis": {"chunks": (4, 2, 5), "maxshape": (13, None, 5)},
    "B-tree": {"chunks": (4, 2, 5), "maxshape": (None, None, 5)},
    "raw edges": {"chunks": (4, 4, 4), "raw_edges": True},
    "sparse": {"chunks": (2, 6, 5), "fill": 7, "sparse": True},
}


def make(folder: Path, seed: int) -> list[Path]:
    """Writes all files and the record of what h5py reads of them; returns the files."""
    chosen = random.Random(seed)
    pipelines = {**files.PIPELINES, **_by_hdf5(), **files.plugin_pipelines()}
    made = []
    for version in VERSIONS:
        for layout, options in LAYOUTS.items():
            if "raw_edges" in options and version == "earliest":
                continue  # the old format has no place for that
            path = folder / f"{version}, {layout}.h5"
            userblock = {"userblock_size": 512} if layout == "rows in pieces" else {}
            with h5py.File(path, "w", libver=version, **userblock) as file:
                for place, pipeline in enumerate(pipelines if "chunks" in options else ["none"]):
                    for name in _types_of(chosen, pipelines[pipeline], place, "chunks" in options):
                        _write(file, f"{pipeline}/{name}", TYPES[name], pipelines[pipeline], options, chosen.randrange(1 << 30))
            made.append(path)
    made += [write(folder / f"{write.__name__}.h5") for write in (odd_shapes, links, lists_and_references, sources)]
    (folder / "h5py_truth.jsonl").write_text("".join(json.dumps(_truth(folder, path)) + "\n" for path in made))
    return made


def _by_hdf5() -> dict[str, list[tuple[int, tuple[int, ...]]]]:
    """Pipelines that only libhdf5 undoes, as far as it was built with them."""
    found = {"scale-offset": [(files.SCALEOFFSET, (2, 0))], "n-bit": [(files.NBIT, ())], "szip": [(files.SZIP, (4, 16))]}
    return {name: pipeline for name, pipeline in found.items() if h5py.h5z.filter_avail(pipeline[0][0])}


def _types_of(chosen: random.Random, pipeline: list[tuple[int, tuple[int, ...]]], place: int, filtered: bool) -> list[str]:
    numbers = {number for number, _ in pipeline}
    if numbers & {files.SCALEOFFSET, files.NBIT, files.SZIP}:
        return ["i4", "u8"]  # they are made for whole numbers
    if not filtered or not pipeline:
        return list(TYPES)
    names = list(TYPES)
    return sorted({names[place % len(names)], *chosen.sample(names, TYPES_EACH)})


def _write(file: h5py.File, name: str, dtype: Any, pipeline: list[tuple[int, tuple[int, ...]]], options: dict[str, Any],
           seed: int) -> None:
    data = _elements(np.dtype(dtype), seed)
    fill = np.full((), options["fill"], dtype) if "fill" in options and np.dtype(dtype).kind in "iuf" else None
    plist = files.property_list(pipeline, options.get("chunks"), raw_edges=options.get("raw_edges", False), fill=fill,
                                alloc_time=options.get("alloc_time"))
    if options.get("compact"):
        plist.set_layout(h5py.h5d.COMPACT)
    limits = tuple(h5py.h5s.UNLIMITED if extent is None else extent for extent in options.get("maxshape", SHAPE))
    group = file.require_group(name.rpartition("/")[0])
    stored = h5py.h5t.py_create(np.dtype(dtype), logical=True)
    space = h5py.h5s.create_simple(SHAPE, limits)
    dataset = h5py.Dataset(h5py.h5d.create(group.id, name.rpartition("/")[2].encode(), stored, space, plist))
    if options.get("sparse"):
        dataset[4:6], dataset[12] = data[4:6], data[12]
    else:
        dataset[...] = data


def _elements(dtype: np.dtype, seed: int) -> np.ndarray:
    if dtype.subdtype is not None:
        return files.content(SHAPE + dtype.shape, dtype.base, seed)
    if dtype.metadata:
        return (files.content(SHAPE, "u1", seed) % 2).astype(dtype)
    return files.content(SHAPE, dtype, seed)


def odd_shapes(path: Path) -> Path:
    """Scalars, empty ones, axes of no length, one element, many axes."""
    with h5py.File(path, "w", libver="latest") as file:
        file["scalar"], file["scalar text"], file["empty"] = 7, np.bytes_(b"abc"), h5py.Empty("f4")
        file.create_dataset("no rows", (0, 4), "f4", chunks=(1, 4), maxshape=(None, 4))
        file.create_dataset("no columns", (4, 0), "i2")
        file.create_dataset("one", data=np.ones(1, "u1"), chunks=(1,), compression="lzf")
        file.create_dataset("chunk larger than extent", data=files.content((3, 2), "i4"), chunks=(5, 5), maxshape=(None, None))
        file.create_dataset("eight axes", data=files.content((2,) * 8, "u2"), chunks=(1, 2) * 4, compression="gzip")
        file.create_dataset("never written", (9, 3), "f8", fillvalue=1.5)
        file.create_dataset("incompressible", data=np.random.default_rng(0).integers(0, 255, (40, 64), "u1"), chunks=(10, 64),
                            compression="lzf")  # lzf gives up on it, and says so in the filter mask
    return path


def links(path: Path) -> Path:
    """Soft links, two names for one dataset, a group within itself, a dangling link, dimension scales, attributes."""
    with h5py.File(path, "w", track_order=True) as file:
        file["z/table"] = files.content((20, 3), "i4")
        file["a"] = file["z/table"]
        file["z/soft"], file["z/dangling"] = h5py.SoftLink("/a"), h5py.SoftLink("/nothing")
        file["z/up"] = file["/"]
        file["scale"] = np.arange(20)
        file["scale"].make_scale("row")
        file["a"].dims[0].attach_scale(file["scale"])
        file["a"].attrs["numbers"], file["z"].attrs["text"] = np.arange(4.0), "words"
    return path


def lists_and_references(path: Path) -> Path:
    """What has no bytes of its own in a chunk."""
    with h5py.File(path, "w") as file:
        file["text"] = ["a", "bb", "ccc"]
        file.create_dataset("chunked text", (7,), h5py.string_dtype(), chunks=(2,), compression="gzip")[...] = ["x" * n for n in range(7)]
        file.create_dataset("lists", (3,), h5py.vlen_dtype("i4"))[...] = [np.arange(n) for n in range(3)]
        file["references"] = np.array([file["text"].ref, file.ref], h5py.ref_dtype)
    return path


def sources(path: Path) -> Path:
    """A virtual dataset and raw data in another file."""
    parts = [path.with_name(f"{path.stem} {number}.part") for number in range(2)]
    for number, part in enumerate(parts):
        with h5py.File(part, "w") as file:
            file.create_dataset("d", data=files.content((5, 4), "i4", number), chunks=(2, 4), compression="gzip")
    raw = path.with_name(f"{path.stem} raw.part")
    raw.write_bytes(files.content((6, 4), "i2").tobytes())
    layout = h5py.VirtualLayout((10, 4), "i4")
    for number, part in enumerate(parts):
        layout[5 * number : 5 * number + 5] = h5py.VirtualSource(part.name, "d", (5, 4))
    with h5py.File(path, "w", libver="latest") as file:
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("external", (6, 4), "i2", external=[(raw.name, 0, h5py.h5f.UNLIMITED)])
    return path


def _truth(folder: Path, path: Path) -> dict[str, Any]:
    """What h5py reads, in the form of larger corpora."""
    with h5py.File(path) as file:
        return {"file": path.relative_to(folder).as_posix(), "datasets": [_entry(name, one) for name, one in _datasets(file)]}


def _datasets(file: h5py.File) -> Iterator[tuple[str, h5py.Dataset]]:
    names: list[str] = []
    file.visit(names.append)
    for name in names:
        if isinstance(file[name], h5py.Dataset):
            yield name, file[name]


def _entry(name: str, dataset: h5py.Dataset) -> dict[str, Any]:
    kinds = {h5py.h5d.COMPACT: "compact", h5py.h5d.CONTIGUOUS: "contiguous", h5py.h5d.CHUNKED: "chunked", h5py.h5d.VIRTUAL: "virtual"}
    plist = dataset.id.get_create_plist()
    filters = [plist.get_filter(place) for place in range(plist.get_nfilters())]
    entry = {"p": f"/{name}", "dtype": str(dataset.dtype), "tclass": dataset.id.get_type().get_class(), "layout": kinds[plist.get_layout()],
             "filters": [[number, flags, list(options), label.decode()] for number, flags, options, label in filters]}
    sha = sha_of(dataset[()]) if dataset.shape is not None and dataset.name != "/external" else ""
    return {**entry, "sha": sha} if sha else entry


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where to put it; made if it is not there")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    made = make(options.folder, options.seed)
    print(f"{len(made)} files in {options.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
