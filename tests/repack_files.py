"""A file with everything that HDF5 knows in it, and what plain h5py sees of a file: for tests of what copies files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import hdf5_files as files
import numpy as np
from h5py import h5, h5o, h5r

PAIR = np.dtype([("a", "<f8"), ("b", ">i2", (3,)), ("c", "S5")])


def write_everything(path: Path) -> Path:
    """Links and objects of every kind, next to datasets of numbers that are worth repacking."""
    with h5py.File(path, "w", userblock_size=512, track_order=True) as file:
        _numbers(file)
        _others(file)
        _links(file)
        _references(file)
    with open(path, "r+b") as raw:
        raw.write(b"user block ")
    return path


def _numbers(file: h5py.File) -> None:
    image = file.create_dataset("z/image", data=files.content((150, 16, 16, 3), "u1"), chunks=(40, 16, 16, 3), compression="lzf",
                                maxshape=(None, 16, 16, 3), fillvalue=7)
    image.attrs["title"] = "images, ä"
    image.attrs["pair"] = np.zeros(2, PAIR)
    image.attrs["words"] = ["a", "bcd"]
    image.attrs["none"] = h5py.Empty("f8")
    file.create_dataset("z/tiles", data=files.content((90, 70), ">f4"), chunks=(16, 16), compression="gzip", shuffle=True,
                        fletcher32=True, maxshape=(200, None))
    file.create_dataset("a/plain", data=files.content((3000, 9), "<f8"))
    file.create_dataset("a/half", data=files.content((70000,), "u1").astype("<f2"), chunks=(999,), track_times=True)
    file.create_dataset("a/flags", data=files.content((80000,), "u1") > 100, chunks=(777,), compression="lzf")
    file.create_dataset("a/enum", data=files.content((70000,), "u1") % 2, chunks=(1000,), compression="gzip",
                        dtype=h5py.enum_dtype({"NO": 0, "YES": 1}, "u1"))
    file.create_dataset("a/complex", data=files.content((9000,), "<f8").astype("c16"), chunks=(100,), compression="gzip")
    holes = file.create_dataset("a/holes", (200, 1000), "<i4", chunks=(10, 1000), compression="lzf", fillvalue=-3)
    holes[30:160:7] = 5
    file.create_dataset("a/never", (100, 1000), "<i4", chunks=(10, 1000), compression="lzf", fillvalue=9)
    file.create_dataset("a/packed", data=files.content((30000,), "<i4"), chunks=(1000,), scaleoffset=0)
    masked = file.create_dataset("a/masked", (20, 5000), "u1", chunks=(5, 5000), compression="gzip")
    for first in range(0, 20, 5):
        masked.id.write_direct_chunk((first, 0), bytes(np.arange(25000) % 250 // (first + 1)), 1)


def _others(file: h5py.File) -> None:
    file["scalar"] = 3.5
    file["text"] = "one string"
    file["empty"] = h5py.Empty("i4")
    file.create_dataset("nothing", (0, 5), "f4", maxshape=(None, 5), chunks=(10, 5))
    file["strings"] = np.array(["x", "yy" * 50, ""] * 3, object)
    file["fixed"] = np.array([b"abc", b"de"])
    ragged = file.create_dataset("ragged", (4,), h5py.vlen_dtype("<f4"))
    for row in range(4):
        ragged[row] = np.arange(row)
    file["compound"] = np.array([(1.5, (1, 2, 3), b"q"), (2.5, (4, 5, 6), b"rst")], PAIR)
    file["void"] = np.void(b"\0\1opaque")
    file["type"] = PAIR
    file["type"].attrs["about"] = "a committed type"
    file.create_dataset("typed", (3,), file["type"])
    file.create_dataset("small", data=np.arange(5))
    file.create_dataset("external", (100,), "<i4", external=[(str(Path(file.filename).with_suffix(".raw")), 0, 400)])
    file["external"][...] = np.arange(100)
    ordered = file.create_group("ordered", track_order=True)
    for name in "qaz":
        ordered.create_group(name).attrs[name] = name
        ordered.attrs[name] = name
    texts = h5py.h5t.vlen_create(h5py.h5t.C_S1.copy())  # as MATLAB lists names of fields: letters, one by one
    listed = h5py.h5a.create(ordered.id, b"letters", texts, h5py.h5s.create_simple((2,)))
    letters = [np.frombuffer(b"xyz", "u1"), np.frombuffer(b"q", "u1")]
    listed.write(np.array([(len(each), each.ctypes.data) for each in letters], "<u8").view("V16").ravel(), texts)
    virtual = h5py.VirtualLayout((3000,), "<f8")
    virtual[:] = h5py.VirtualSource(".", "a/plain", (3000, 9))[:, 2]
    file.create_virtual_dataset("virtual", virtual, fillvalue=1)


def _links(file: h5py.File) -> None:
    file["z/again"] = file["z/image"]
    file["a/scalar"] = file["scalar"]
    file["z/loop"] = file["/"]
    file["soft"] = h5py.SoftLink("/z/image")
    file["dangling"] = h5py.SoftLink("/nowhere")
    file["outside"] = h5py.ExternalLink("other.h5", "/x")
    file["type2"] = file["type"]


def _references(file: h5py.File) -> None:
    scale = file.create_dataset("z/scale", data=np.arange(150))
    scale.make_scale("rows")
    file["z/image"].dims[0].attach_scale(scale)
    file["z/image"].dims[0].label = "row"
    file["refs"] = np.array([file["z/image"].ref, file["a"].ref, h5py.Reference(), file["type"].ref], h5py.ref_dtype)
    regions = file.create_dataset("regions", (2,), h5py.regionref_dtype)
    regions[0] = file["z/image"].regionref[3:9, 2, ::3]
    lists = file.create_dataset("lists", (2,), h5py.vlen_dtype(h5py.ref_dtype))
    lists[1] = np.array([file["z/again"].ref, file["small"].ref], h5py.ref_dtype)
    file["a"].attrs["ref"] = file["z/image"].ref
    file["a"].attrs["region"] = file["z/tiles"].regionref[1:5]


def snapshot(path: Path) -> dict[str, Any]:
    """All that plain h5py tells of a file, links and objects by path, as things that can be compared."""
    found: dict[str, Any] = {}
    names: dict[Any, str] = {}
    with h5py.File(path, "r") as file:
        pending = ["/"]
        names[_place(file["/"])] = "/"
        found["/"] = _object(file["/"], names)
        while pending:
            group = file[pending.pop(0)]
            for name in _ordered(group):
                inner = f"{group.name.rstrip('/')}/{name}"
                link = group.get(name, getlink=True)
                if not isinstance(link, h5py.HardLink):
                    found[inner] = (type(link).__name__, vars(link))
                    continue
                member = group[name]
                if _place(member) in names:
                    found[inner] = ("again", names[_place(member)])
                    continue
                names[_place(member)] = inner
                if isinstance(member, h5py.Group):
                    pending.append(inner)
        for place, name in names.items():
            found[name] = _object(file[name], names)
        found["userblock"] = file.userblock_size
    return found


def _place(member: Any) -> Any:
    about = h5o.get_info(member.id)
    return about.fileno, about.addr


def _ordered(group: h5py.Group) -> list[str]:
    names: list[str] = []
    by = h5.INDEX_CRT_ORDER if group.id.get_create_plist().get_link_creation_order() else h5.INDEX_NAME
    group.id.links.iterate(lambda name: names.append(name.decode()), idx_type=by)
    return names


def _object(member: Any, names: dict[Any, str]) -> Any:
    about: list[Any] = [type(member).__name__]
    if isinstance(member, h5py.Group):
        about.append(_ordered(member))
    attributes = {}
    for name in member.attrs:
        attribute = member.attrs.get_id(name)
        kind = attribute.get_type()
        attributes[name] = (kind.get_class(), kind.get_size(), attribute.shape, _value(member.attrs[name], member, names))
    about += [list(attributes) if isinstance(member, h5py.Group) else None, attributes]
    if isinstance(member, h5py.Dataset):
        kind = member.id.get_type()
        about += [member.shape, member.maxshape, str(member.dtype), str(member.dtype.metadata), kind.get_class(), kind.committed(),
                  member.fletcher32, member.is_virtual, member.external,
                  # HDF5 copies a fill value that is a reference as it is.
                  None if h5py.check_ref_dtype(member.dtype) else _value(member.fillvalue, member, names), _value(member[()], member, names)]
    elif isinstance(member, h5py.Datatype):
        about.append(str(member.dtype))
    return about


def _value(value: Any, member: Any, names: dict[Any, str]) -> Any:
    if isinstance(value, h5py.Empty):
        return ("empty", str(value.dtype))
    if isinstance(value, h5r.Reference):
        if not value:
            return "null reference"
        region = h5r.get_region(value, member.id) if isinstance(value, h5r.RegionReference) else None
        region = region and (region.shape, region.get_select_npoints(), region.get_select_hyper_blocklist().tobytes())
        return ("reference", names.get(_place(member.file[value]), "?"), region)
    if isinstance(value, (np.ndarray, np.void)) and value.dtype.hasobject:
        if value.dtype.names:
            return [_value(value[name], member, names) for name in value.dtype.names]
        return [_value(element, member, names) for element in np.ravel(value)]
    if isinstance(value, (np.ndarray, np.generic)):
        return (value.dtype.str, value.shape, value.tobytes())
    return value
