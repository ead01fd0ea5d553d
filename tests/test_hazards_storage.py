"""Hazards of storage that is not one plain file, and files cut short."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import hdf5_files as files
import numpy as np
import pytest
from oracle import check, compare_dataset, difference

import h5fast


def _agree(fast: h5fast.File, plain: h5py.File, name: str = "d") -> str:
    """Compares one dataset of two open files; returns the reader."""
    result = compare_dataset(fast[name], plain[name], seed=1)
    assert not result.error, result.error
    assert not result.differences and not result.refusals, (result.differences, result.refusals)
    return result.reader


@pytest.mark.parametrize("chunks", [None, (10, 4)])
def test_truncated_contiguous(tmp_path: Path, chunks: tuple | None) -> None:
    """Section 0.3: libhdf5 fills with zeros, silently, what lies behind the end of a file that was cut after it was opened."""
    data = files.content((5000, 8))
    path = files.write(tmp_path / "f.h5", data, chunks=chunks)
    with h5fast.File(path) as file:
        dataset = file["d"]
        np.testing.assert_array_equal(dataset[:3], data[:3])
        os.truncate(path, path.stat().st_size // 2)
        for read in (lambda: dataset[...], lambda: dataset[4990:], lambda: dataset.take([4999, 1])):
            with pytest.raises((h5fast.ReadError, h5fast.CorruptFileError)):
                read()


def test_truncated_before_opening(tmp_path: Path) -> None:
    """Section 0.3: at open time libhdf5 refuses a truncated file; h5fast must pass that on."""
    path = files.write(tmp_path / "f.h5", files.content((5000, 8)))
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(OSError, match="truncated"):
        h5fast.File(path)


@pytest.mark.parametrize("driver", ["family", "split", "core", "stdio", "sec2"])
@pytest.mark.parametrize("chunks", [None, (7, 3)])
def test_family_split_core_drivers(tmp_path: Path, driver: str, chunks: tuple | None) -> None:
    """Rows 17 and 18: addresses of these drivers are not offsets in one file (split: 9223372036854776607), core has none."""
    options = {"family": {"driver": "family", "memb_size": 4096}, "split": {"driver": "split"},
               "core": {"driver": "core", "backing_store": True}, "stdio": {"driver": "stdio"}, "sec2": {"driver": "sec2"}}[driver]
    name = tmp_path / ("f%d.h5" if driver == "family" else "f.h5")
    data = files.content((200, 30))
    with h5py.File(name, "w", **options) as file:
        file.create_dataset("d", data=data, chunks=chunks)
    options.pop("backing_store", None)
    with h5py.File(name, "r", **options) as plain, h5fast.File(name, "r", **options) as fast:
        reader = _agree(fast, plain)
    assert (reader == "direct") is (driver in ("sec2", "stdio")) or driver == "stdio", reader


def test_family_with_user_block(tmp_path: Path) -> None:
    """Row 18: what a user block means in a family changed in HDF5 2.0: never direct."""
    options = {"driver": "family", "memb_size": 4096}
    plain = files.run_python("""
        import h5py, sys, hdf5_files as files
        options = {"driver": "family", "memb_size": 4096}
        with h5py.File(sys.argv[1], "w", userblock_size=512, **options) as file:
            file["d"] = files.content((200, 30))
        h5py.File(sys.argv[1], "r", **options)["d"][...]
    """, tmp_path / "f%d.h5", expect=None)
    if plain.returncode < 0:
        pytest.skip(f"libhdf5 itself dies of it (signal {-plain.returncode}, HDF5 {h5py.version.hdf5_version})")
    assert plain.returncode == 0, plain.stderr
    with h5py.File(tmp_path / "f%d.h5", "r", **options) as plain, h5fast.File(tmp_path / "f%d.h5", "r", **options) as fast:
        assert _agree(fast, plain) != "direct"


def test_fileobj_driver(tmp_path: Path) -> None:
    """Row 17: a Python file object has no descriptor that h5fast could trust."""
    path = files.write(tmp_path / "f.h5", files.content((200, 30)), chunks=(7, 3), pipeline=files.PIPELINES["lzf"])
    with open(path, "rb") as one, open(path, "rb") as other, h5py.File(one, "r") as plain, h5fast.File(other, "r") as fast:
        assert _agree(fast, plain) != "direct"


def test_file_image_in_memory(tmp_path: Path) -> None:
    """Row 17: a core file without backing store exists only in memory."""
    with h5fast.File(tmp_path / "none.h5", "w", driver="core", backing_store=False) as file:
        file["d"] = np.arange(30).reshape(10, 3)
        np.testing.assert_array_equal(file["d"].take([9, 0]), [[27, 28, 29], [0, 1, 2]])
        assert file["d"].reader != "direct"
    assert not (tmp_path / "none.h5").exists()


def test_external_storage(tmp_path: Path) -> None:
    """Row 19: the layout says contiguous, the data are elsewhere; pyfive returns zeros."""
    data = files.content((60, 5), "<i4")
    (tmp_path / "a.raw").write_bytes(b"skip" + data.tobytes()[:400])
    (tmp_path / "b.raw").write_bytes(data.tobytes()[400:])
    with h5py.File(tmp_path / "f.h5", "w") as file:
        parts = [(str(tmp_path / "a.raw"), 4, 400), (str(tmp_path / "b.raw"), 0, h5py.h5f.UNLIMITED)]
        file.create_dataset("d", data.shape, "<i4", external=parts)
    check(tmp_path / "f.h5", direct=False)
    with h5fast.File(tmp_path / "f.h5") as file:
        np.testing.assert_array_equal(file["d"][...], data)


def test_external_storage_that_is_missing(tmp_path: Path) -> None:
    """Row 19: without the external file h5py raises; so must h5fast, not return zeros."""
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file.create_dataset("d", (60, 5), "<i4", external=[(str(tmp_path / "none.raw"), 0, 1200)])
    with h5py.File(tmp_path / "f.h5") as file, pytest.raises(OSError):
        file["d"][...]
    with h5fast.File(tmp_path / "f.h5") as file, pytest.raises(OSError):
        file["d"][...]


def _sources(folder: Path, count: int = 3) -> list[np.ndarray]:
    written = []
    for number in range(count):
        data = files.content((20, 6), seed=number) + 1000 * number
        files.write(folder / f"source{number}.h5", data, chunks=(6, 4), pipeline=files.PIPELINES["shuffle+gzip"])
        written.append(data)
    return written


def _virtual(path: Path, layout: h5py.VirtualLayout, fill: int | None = None) -> None:
    with h5py.File(path, "w", libver="latest") as file:
        file.create_virtual_dataset("d", layout, fillvalue=fill)


def test_virtual_dataset_of_one_source(tmp_path: Path) -> None:
    """Row 20: a plain mapping of one whole source."""
    _sources(tmp_path, 1)
    layout = h5py.VirtualLayout((20, 6), "i4")
    layout[...] = h5py.VirtualSource("source0.h5", "d", (20, 6))
    _virtual(tmp_path / "v.h5", layout)
    check(tmp_path / "v.h5")


def test_virtual_dataset_of_several_sources(tmp_path: Path) -> None:
    """Row 20: sources one after the other along the first axis, the usual case, and side by side along a new one."""
    sources = _sources(tmp_path)
    concatenated, stacked = h5py.VirtualLayout((60, 6), "i4"), h5py.VirtualLayout((3, 20, 6), "i4")
    for number in range(3):
        concatenated[20 * number : 20 * number + 20] = h5py.VirtualSource(f"source{number}.h5", "d", (20, 6))
        stacked[number] = h5py.VirtualSource(f"source{number}.h5", "d", (20, 6))
    _virtual(tmp_path / "concatenated.h5", concatenated)
    _virtual(tmp_path / "stacked.h5", stacked)
    check(tmp_path / "concatenated.h5")
    check(tmp_path / "stacked.h5")
    with h5fast.File(tmp_path / "stacked.h5") as file:
        assert difference(file["d"][...], np.stack(sources)) is None


@pytest.mark.parametrize("fill", [None, -9])
def test_virtual_dataset_with_missing_source_and_gaps(tmp_path: Path, fill: int | None) -> None:
    """Row 20: a missing source file or dataset, and what no source covers, read as the fill value (pyfive returns None)."""
    _sources(tmp_path)
    (tmp_path / "source1.h5").unlink()
    layout = h5py.VirtualLayout((90, 8), "i4")
    for number in range(3):
        layout[25 * number : 25 * number + 20, 1:7] = h5py.VirtualSource(f"source{number}.h5", "d", (20, 6))
    layout[80:85, :6] = h5py.VirtualSource("source0.h5", "no such dataset", (20, 6))[:5]
    _virtual(tmp_path / "v.h5", layout, fill)
    check(tmp_path / "v.h5")


def test_virtual_dataset_of_selections(tmp_path: Path) -> None:
    """Row 20: strided, interleaved and overlapping-type mappings are not plain; the general path must serve them."""
    _sources(tmp_path)
    layout = h5py.VirtualLayout((60, 3), "i8")
    for number in range(3):
        layout[number::3] = h5py.VirtualSource(f"source{number}.h5", "d", (20, 6))[:, ::2]
    _virtual(tmp_path / "v.h5", layout)
    check(tmp_path / "v.h5")


def test_virtual_dataset_in_the_same_file_and_nested(tmp_path: Path) -> None:
    """Row 20: a source "." is the file itself; a source may be virtual too."""
    path = tmp_path / "v.h5"
    files.write(path, files.content((20, 6)), "plain", chunks=(6, 4), libver="latest")
    inner, outer = h5py.VirtualLayout((20, 6), "i4"), h5py.VirtualLayout((10, 6), "i4")
    inner[...] = h5py.VirtualSource(".", "plain", (20, 6))
    outer[...] = h5py.VirtualSource(".", "inner", (20, 6))[5:15]
    with h5py.File(path, "r+", libver="latest") as file:
        file.create_virtual_dataset("inner", inner)
        file.create_virtual_dataset("d", outer)
    check(path, "inner")
    check(path, "d")


def test_virtual_dataset_with_unlimited_and_printf_sources(tmp_path: Path) -> None:
    """Row 20: "source%b.h5" names as many files as there are; an unlimited source has the extent it has today."""
    _sources(tmp_path)
    plist = files.property_list()
    unlimited = h5py.h5s.UNLIMITED
    target = h5py.h5s.create_simple((60, 6), (unlimited, 6))
    target.select_hyperslab((0, 0), (unlimited, 1), (20, 6), (20, 6))
    source = h5py.h5s.create_simple((20, 6))
    plist.set_virtual(target, b"source%b.h5", b"d", source)
    with h5py.File(tmp_path / "v.h5", "w", libver="latest") as file:
        h5py.h5d.create(file.id, b"d", h5py.h5t.STD_I32LE, h5py.h5s.create_simple((0, 6), (unlimited, 6)), plist)
    check(tmp_path / "v.h5")


def test_virtual_dataset_cycle(tmp_path: Path) -> None:
    """Row 20: two virtual datasets that are each other's source; no endless recursion, whatever h5py makes of it."""
    for one, other in (("a", "b"), ("b", "a")):
        layout = h5py.VirtualLayout((4,), "i4")
        layout[...] = h5py.VirtualSource(f"{other}.h5", "d", (4,))
        _virtual(tmp_path / f"{one}.h5", layout)
    read = "import {0}, sys; print({0}.File(sys.argv[1])['d'][...].tolist())"
    plain, fast = (files.run_python(read.format(name), tmp_path / "a.h5", timeout=60, expect=None) for name in ("h5py", "h5fast"))
    if plain.returncode < 0:
        pytest.skip(f"libhdf5 itself dies of it (signal {-plain.returncode})")
    assert fast.returncode >= 0, "h5fast dies where h5py does not"
    if plain.returncode == 0:
        assert fast.stdout == plain.stdout


def test_status_flags_of_an_unclean_close(tmp_path: Path) -> None:
    """Row 22: a writer that died leaves the file marked as open; libhdf5 refuses it, and so does h5fast (pyfive opens it)."""
    path = tmp_path / "f.h5"
    files.run_python("""
        import h5py, os, sys
        file = h5py.File(sys.argv[1], "w", libver="latest")
        file.create_dataset("d", data=range(100), chunks=(10,), maxshape=(None,))
        file.swmr_mode = True
        file.flush()
        os._exit(0)
    """, path)
    with pytest.raises(OSError) as plain:
        h5py.File(path, "r")
    with pytest.raises(OSError) as fast:
        h5fast.File(path, "r")
    assert str(plain.value).split("(")[-1] in str(fast.value)


def test_cyclic_groups(tmp_path: Path) -> None:
    """Row 23: hard links may form cycles, soft links dangle and loop; a reader that recurses overflows its stack (hidefix)."""
    with h5py.File(tmp_path / "f.h5", "w") as file:
        group = file.create_group("a/b")
        group["back"] = file["a"]
        file["root"] = file["/"]
        group["d"] = files.content((9, 2))
        file["loop"] = h5py.SoftLink("/loop")
        file["dangling"] = h5py.SoftLink("/nowhere")
        file["self"] = h5py.ExternalLink("f.h5", "/a/b/d")
    found: list[str] = []
    with h5fast.File(tmp_path / "f.h5") as file:
        file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
        assert len(found) == 1
        np.testing.assert_array_equal(file["root/a/b/back/b/back/b/d"].take([8, 0]), files.content((9, 2))[[8, 0]])
        np.testing.assert_array_equal(file["self"][...], files.content((9, 2)))
        for name in ("loop", "dangling"):
            with pytest.raises((KeyError, RuntimeError)):
                file[name]


def test_deep_and_wide_groups(tmp_path: Path) -> None:
    """Row 23: a thousand nested groups and ten thousand links: no recursion per level, no quadratic listing."""
    with h5py.File(tmp_path / "f.h5", "w", libver="latest") as file:
        group = file
        for _ in range(1000):
            group = group.create_group("g")
        group["d"] = np.arange(5)
        wide = file.create_group("wide")
        wide["target"] = np.arange(3)
        for number in range(10_000):
            wide[f"link{number}"] = h5py.SoftLink("/wide/target")
    with h5fast.File(tmp_path / "f.h5") as file:
        np.testing.assert_array_equal(file["g/" * 1000 + "d"][...], np.arange(5))
        assert len(file["wide"]) == 10_001
        np.testing.assert_array_equal(file["wide/link9999"].take([2, 0]), [2, 0])
