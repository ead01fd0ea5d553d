"""Hazards of element types: where raw bytes are not what H5Dread returns."""

from __future__ import annotations

import ctypes
from pathlib import Path

import h5py
import hdf5_files as files
import numpy as np
import pytest
from oracle import check

import h5fast

CHUNKINGS = pytest.mark.parametrize("chunks", [None, (4,)], ids=["contiguous", "chunked"])


def _write_raw(path: Path, kind: h5py.h5t.TypeID, stored: bytes, *, count: int = 10, chunks: tuple | None = None) -> None:
    """A dataset of a type that numpy cannot express, its elements given as the file stores them."""
    with h5py.File(path, "w", libver="latest") as file:
        space = h5py.h5s.create_simple((count,))
        dataset = h5py.h5d.create(file.id, b"d", kind, space, files.property_list(chunks=chunks))
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.frombuffer(stored, np.dtype((np.void, kind.get_size()))), kind)


@CHUNKINGS
@pytest.mark.parametrize("dtype", [f"{order}{kind}" for order in "<>" for kind in
                                   ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8", "c16")])
def test_standard_types_are_read_directly(tmp_path: Path, dtype: str, chunks: tuple | None) -> None:
    """Row 10: a byte-exact file type is served directly in either byte order, NaNs and infinities bit for bit."""
    data = files.content((10,), dtype)
    if data.dtype.kind in "fc":
        data[:4] = [np.nan, -np.inf, -0.0, 1e-7]
    path = files.write(tmp_path / "f.h5", data, chunks=chunks)
    check(path, direct=True)


@CHUNKINGS
@pytest.mark.parametrize("pad", [h5py.h5t.STR_SPACEPAD, h5py.h5t.STR_NULLPAD, h5py.h5t.STR_NULLTERM])
@pytest.mark.parametrize("cset", [h5py.h5t.CSET_ASCII, h5py.h5t.CSET_UTF8])
def test_space_padded_strings(tmp_path: Path, pad: int, cset: int, chunks: tuple | None) -> None:
    """Row 10: 19 corpus datasets are wrong when raw: space padding becomes NULs, and what follows a NUL is dropped."""
    kind = h5py.h5t.C_S1.copy()
    kind.set_size(8)
    kind.set_strpad(pad)
    kind.set_cset(cset)
    words = [b"word    ", b"a\0garb\0x", b"12345678", b"\0\0\0\0\0\0\0\0", b"        ", b" lead\0\0\0", b"ab \0cd  ",
             b"tab\t\0\0\0\0", b"\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9", b"x\0\0\0\0\0\0y"]
    _write_raw(tmp_path / "f.h5", kind, b"".join(words), chunks=chunks)
    check(tmp_path / "f.h5")


@CHUNKINGS
@pytest.mark.parametrize(("precision", "offset"), [(25, 7), (12, 0), (1, 3), (31, 1)])
@pytest.mark.parametrize("signed", [True, False])
def test_integers_of_odd_precision(tmp_path: Path, precision: int, offset: int, signed: bool, chunks: tuple | None) -> None:
    """Row 10: an integer of 25 bits at bit 7 (weather data) needs shifting and sign extension, not a copy."""
    kind = (h5py.h5t.STD_I32LE if signed else h5py.h5t.STD_U32LE).copy()
    kind.set_precision(precision)
    kind.set_offset(offset)
    raw = np.random.default_rng(precision).integers(0, 1 << 32, 10, dtype=np.uint64).astype("<u4")
    _write_raw(tmp_path / "f.h5", kind, raw.tobytes(), chunks=chunks)
    check(tmp_path / "f.h5", direct=False)


@CHUNKINGS
@pytest.mark.parametrize("case", ["bfloat16", "float8 e4m3", "24-bit float", "other bias", "no hidden bit"])
def test_floats_that_are_not_ieee(tmp_path: Path, case: str, chunks: tuple | None) -> None:
    """Row 10: bfloat16 and FP8 have the size of float16 and uint8, and h5py converts them; raw bytes are other numbers."""
    sign, exponent, mantissa, size, bias = {
        "bfloat16": ((15,), (7, 8), (0, 7), 2, 127), "float8 e4m3": ((7,), (3, 4), (0, 3), 1, 7),
        "24-bit float": ((23,), (15, 8), (0, 15), 4, 127), "other bias": ((31,), (23, 8), (0, 23), 4, 100),
        "no hidden bit": ((31,), (23, 8), (0, 23), 4, 127)}[case]
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_fields(sign[0], *exponent, *mantissa)
    kind.set_ebias(bias)
    if case == "no hidden bit":
        kind.set_norm(h5py.h5t.NORM_NONE)
    else:
        files.call("H5Tset_precision", ctypes.c_int64(kind.id), ctypes.c_size_t(sign[0] + 1))
        files.call("H5Tset_size", ctypes.c_int64(kind.id), ctypes.c_size_t(size))
    raw = np.random.default_rng(8).integers(0, 256, 10 * size, dtype=np.uint8).tobytes()
    _write_raw(tmp_path / "f.h5", kind, raw, chunks=chunks)
    try:
        h5py.File(tmp_path / "f.h5")["d"][...]
    except (TypeError, ValueError, OSError) as error:
        with pytest.raises((h5fast.UnsupportedError, type(error))):
            h5fast.File(tmp_path / "f.h5")["d"][...]
        return
    check(tmp_path / "f.h5", direct=False)


@CHUNKINGS
def test_long_double(tmp_path: Path, chunks: tuple | None) -> None:
    """Row 10: a long double has padding bytes, and its format is the platform's."""
    path = files.write(tmp_path / "f.h5", np.linspace(-1, 1, 10).astype(np.longdouble), chunks=chunks)
    check(path)


@CHUNKINGS
@pytest.mark.parametrize("dtype", [
    np.dtype([("a", "i1"), ("b", "f8")], align=True),
    np.dtype([("a", "<i2"), ("b", ">f4"), ("c", "S5")]),
    np.dtype({"names": ["x", "y"], "formats": ["u1", "<i4"], "offsets": [3, 11], "itemsize": 24}),
    np.dtype({"names": ["late", "early"], "formats": ["u2", "<i4"], "offsets": [8, 0], "itemsize": 12}),
    np.dtype([("m", "<f4", (2, 3)), ("inner", [("p", "i1"), ("q", ">i8", (2,))])]),
])
def test_compound_padding(tmp_path: Path, dtype: np.dtype, chunks: tuple | None) -> None:
    """Row 10: a compound's file layout may have holes and another order than its memory layout."""
    data = files.content((10,), np.dtype([(name, dtype[name]) for name in dtype.names if dtype[name].names is None]))
    whole = np.zeros(10, dtype)
    for name in data.dtype.names:
        whole[name] = data[name]
    path = files.write(tmp_path / "f.h5", whole, chunks=chunks)
    check(path)


def test_packed_file_type_with_padded_members(tmp_path: Path) -> None:
    """Row 10: a compound whose file type is packed and big-endian, holding a string and an odd integer."""
    odd = h5py.h5t.STD_I32BE.copy()
    odd.set_precision(20)
    text = h5py.h5t.C_S1.copy()
    text.set_size(4)
    text.set_strpad(h5py.h5t.STR_SPACEPAD)
    kind = h5py.h5t.create(h5py.h5t.COMPOUND, 8)
    kind.insert(b"number", 0, odd)
    kind.insert(b"text", 4, text)
    _write_raw(tmp_path / "f.h5", kind, b"\0\x0a\xbc\xdeab  " * 10)
    check(tmp_path / "f.h5", direct=False)


@CHUNKINGS
@pytest.mark.parametrize("kind", ["text", "bytes", "integers", "object reference", "region reference", "compound with text"])
def test_vlen_falls_back(tmp_path: Path, kind: str, chunks: tuple | None) -> None:
    """Row 11: chunks of variable-length and reference types hold heap ids, of another size than the type in memory."""
    with h5py.File(tmp_path / "f.h5", "w") as file:
        dtype = {"text": h5py.string_dtype(), "bytes": h5py.string_dtype("ascii"), "integers": h5py.vlen_dtype("i4"),
                 "object reference": h5py.ref_dtype, "region reference": h5py.regionref_dtype,
                 "compound with text": np.dtype([("n", "i4"), ("s", h5py.string_dtype())])}[kind]
        dataset = file.create_dataset("d", (10,), dtype, chunks=chunks)
        for row in range(9):
            dataset[row] = {"text": "é" * row, "bytes": b"b" * row, "integers": np.arange(row),
                            "object reference": dataset.ref, "region reference": dataset.regionref[row : row + 1],
                            "compound with text": (row, "s" * row)}[kind]
    check(tmp_path / "f.h5", direct=False)


@CHUNKINGS
def test_opaque(tmp_path: Path, chunks: tuple | None) -> None:
    """Row 12: h5py reads an opaque type only with an empty tag or its own; h5fast answers the same or raises."""
    for number, tag in enumerate([b"", b"some tag", b"NUMPY:datetime64[s]"]):
        path = tmp_path / f"{number}.h5"
        kind = h5py.h5t.create(h5py.h5t.OPAQUE, 8)
        kind.set_tag(tag)
        _write_raw(path, kind, bytes(range(80)), chunks=chunks)
        try:
            h5py.File(path)["d"][...]
        except (OSError, TypeError) as error:
            with pytest.raises((h5fast.UnsupportedError, type(error))):
                h5fast.File(path)["d"][...]
        else:
            check(path)


@CHUNKINGS
@pytest.mark.parametrize("kind", ["enum", "bool", "complex64", "complex128", ">c16", "array", "array of arrays", "datetime",
                                  "enum of u2", "bitfield", "void"])
def test_enum_bool_complex_array(tmp_path: Path, kind: str, chunks: tuple | None) -> None:
    """Row 13: types that h5py maps by convention (bool is an enum, complex a compound, an array adds axes)."""
    path = tmp_path / "f.h5"
    raw_types = {"bitfield": h5py.h5t.STD_B16BE,
                 "array of arrays": h5py.h5t.array_create(h5py.h5t.array_create(h5py.h5t.IEEE_F32BE, (2,)), (3,))}
    if kind in raw_types:
        _write_raw(path, raw_types[kind], bytes(range(10 * raw_types[kind].get_size())), chunks=chunks)
        check(path)
        return
    dtype = {"enum": h5py.enum_dtype({"RED": 0, "GREEN": 1, "BLUE": 42}, basetype="i1"), "bool": np.dtype(bool),
             "enum of u2": h5py.enum_dtype({"A": 1, "B": 60000}, basetype=">u2"), "array": np.dtype(("<i4", (2, 3))),
             "datetime": h5py.opaque_dtype("datetime64[ns]"), "void": np.dtype("V6")}.get(kind) or np.dtype(kind)
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("d", (10,), dtype, chunks=chunks)
        if dtype.subdtype:
            dataset[...] = np.arange(60).reshape(np.zeros(10, dtype).shape)
        elif kind == "void":
            dataset[...] = np.frombuffer(bytes(range(60)), dtype)
        else:
            dataset[...] = np.arange(10).astype(dtype)
    check(path)


def test_native_complex(tmp_path: Path) -> None:
    """Row 13: HDF5 2.0 has a complex type class of its own (H5T_COMPLEX)."""
    if not hasattr(h5py.h5t, "NATIVE_FLOAT_COMPLEX"):
        pytest.skip("this h5py has no native complex type")
    data = np.array([1 + 2j, complex(np.nan, -0.0), 3j] * 4, "c8")[:10]
    _write_raw(tmp_path / "f.h5", h5py.h5t.NATIVE_FLOAT_COMPLEX, data.tobytes())
    check(tmp_path / "f.h5")


def test_null_scalar_zero_size(tmp_path: Path) -> None:
    """Row 13: null and scalar spaces and empty axes; hidefix returns one element of garbage for zero-size datasets."""
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["null"] = h5py.Empty("f4")
        file["null text"] = h5py.Empty(h5py.string_dtype())
        file["scalar"] = np.float32(2.5)
        file["text"] = "scalar text"
        file["fixed text"] = np.bytes_(b"abc")
        file["compound"] = np.array((1, 2.5), "i4,f8")
        file["array"] = np.zeros((), np.dtype(("i4", (2, 2))))
        file["zero"] = np.zeros((0,), "i4")
        file["zero rows"] = np.zeros((0, 3), "f4")
        file["zero columns"] = np.zeros((4, 0, 2), "S3")
        file.create_dataset("zero chunked", (0, 5), "i2", chunks=(2, 5), maxshape=(None, 5), compression="gzip")
        file.create_dataset("zero inner chunked", (5, 0), "i2", chunks=(2, 5), maxshape=(5, None), compression="lzf")
        names = list(file)
    for name in names:
        check(tmp_path / "f.h5", name)


def test_compact_layout(tmp_path: Path) -> None:
    """Section 0.5: compact data lie inside the object header and have no address of their own."""
    plist = files.property_list()
    plist.set_layout(h5py.h5d.COMPACT)
    with h5py.File(tmp_path / "f.h5", "w") as file:
        made = h5py.h5d.create(file.id, b"d", h5py.h5t.STD_I16BE, h5py.h5s.create_simple((20, 3)), plist)
        h5py.Dataset(made)[...] = files.content((20, 3), "i2")
    check(tmp_path / "f.h5")


@pytest.mark.parametrize("filter_name", ["szip", "nbit", "scaleoffset"])
def test_rare_filters_go_through_hdf5(tmp_path: Path, filter_name: str) -> None:
    """Row 26: what h5fast does not decode itself, HDF5 reads, chunk by chunk: the same bytes, any selection."""
    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as file:
        if filter_name == "nbit":
            kind = h5py.h5t.STD_I32LE.copy()
            kind.set_precision(17)
            plist = files.property_list([(files.NBIT, ())], (4, 8))
            made = h5py.h5d.create(file.id, b"d", kind, h5py.h5s.create_simple((20, 16)), plist)
            h5py.Dataset(made)[...] = files.content((20, 16))
        else:
            options = {"scaleoffset": 0} if filter_name == "scaleoffset" else {"compression": "szip"}
            try:
                file.create_dataset("d", data=files.content((20, 16)), chunks=(4, 8), **options)
            except ValueError as error:
                pytest.skip(f"this libhdf5 cannot write {filter_name}: {error}")
    check(path)


@pytest.mark.parametrize("name", sorted(files.plugin_pipelines()) or ["no hdf5plugin"])
def test_plugin_filters(tmp_path: Path, name: str) -> None:
    """Row 26: plugin callbacks run on h5fast's own threads, from the allow-list, and must give h5py's bytes."""
    if name == "no hdf5plugin":
        pytest.skip("hdf5plugin is not installed")
    data = files.content((40, 50), "f4")
    path = files.write(tmp_path / "f.h5", data, chunks=(7, 20), pipeline=files.plugin_pipelines()[name])
    check(path, direct=True)
