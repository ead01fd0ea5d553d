"""Filter plugins: registered where a dataset needs them, named with the remedy where they are missing.

Whether hdf5plugin is loaded is a matter of the whole process, so each case runs in one of its own.
"""

from __future__ import annotations

import struct
from pathlib import Path

import h5py
import hdf5_files as files
import h5fast
import pytest

DATA = files.content((60, 10), "i4")
PLUGINS = files.plugin_pipelines()

pytestmark = pytest.mark.skipif(not PLUGINS, reason="hdf5plugin is not installed")

WITHOUT_PLUGINS = "import sys\nsys.modules['hdf5plugin'] = None\n"
READS = """
import h5fast, h5py, numpy as np
READS = {
    "index": lambda d: d[3, 4], "rows": lambda d: d[[5, 1]], "take": lambda d: d.take([2, 0]), "all": lambda d: d[...],
    "cast": lambda d: d.take([2, 0], dtype="f4", scale=2), "astype": lambda d: d.astype("i2")[3:5], "rows in order": list,
    "widened": lambda d: d.astype("f8")[3], "array": np.asarray,
    "read_direct": lambda d: d.read_direct(np.empty((10, 10), "f8"), np.s_[:10], np.s_[:10]),
}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return files.write(tmp_path / "f.h5", DATA, "x", chunks=(7, 10), pipeline=PLUGINS["zstd"])


@pytest.mark.parametrize("mode", ["r", "r+", "a"])
def test_plugins_are_registered_in_every_mode(path: Path, mode: str) -> None:
    """HDF5 "can't open directory /usr/local/lib/plugin" for a file that was not opened read-only."""
    script = READS + """
import sys
for name, read in READS.items():
    with h5fast.File(sys.argv[1], sys.argv[2]) as file:
        read(file["x"])
with h5fast.File(sys.argv[1], sys.argv[2]) as file:
    print(file["x"][3, 4])
"""
    assert files.run_python(script, path, mode).stdout.split() == [str(DATA[3, 4])]


@pytest.mark.parametrize("name", ["index", "rows", "take", "all", "cast", "astype", "widened", "array", "read_direct"])
def test_each_way_of_reading_registers_plugins(path: Path, name: str) -> None:
    """The first read of the process may be any of them."""
    files.run_python(READS + f"import sys\nREADS[{name!r}](h5fast.File(sys.argv[1], 'r+')['x'])", path)


def test_sources_of_virtual_datasets_have_their_plugins(path: Path) -> None:
    layout = h5py.VirtualLayout(DATA.shape, DATA.dtype)
    layout[...] = h5py.VirtualSource(path.name, "x", DATA.shape)
    with h5py.File(path.with_name("virtual.h5"), "w") as file:
        file.create_virtual_dataset("x", layout)
    script = "import h5fast, sys\nprint(h5fast.File(sys.argv[1], sys.argv[2])['x'][3, 4])"
    for mode in ("r", "r+"):
        assert files.run_python(script, path.with_name("virtual.h5"), mode).stdout.split() == [str(DATA[3, 4])]


@pytest.mark.parametrize("mode", ["r", "r+"])
def test_a_missing_plugin_is_named_with_the_remedy(path: Path, mode: str) -> None:
    script = WITHOUT_PLUGINS + READS + """
for name, read in READS.items():
    with h5fast.File(sys.argv[1], sys.argv[2]) as file:
        try:
            read(file["x"])
        except h5fast.UnsupportedError as error:
            assert str(error) == sys.argv[3], f"{name}: {error}"
        else:
            raise AssertionError(name)
with h5fast.File(sys.argv[1], sys.argv[2]) as file:
    print(file["x"].reader)
"""
    lack = "filter zstd (32015) needs hdf5plugin: pip install 'h5fast[plugins]'"
    done = files.run_python(script, path, mode, f"{path}: dataset '/x': {lack}")
    assert done.stdout.strip() == f"general: {lack}"


def test_h5py_keeps_its_own_error_while_patched(path: Path) -> None:
    script = WITHOUT_PLUGINS + """
import h5fast, h5py
def error():
    try:
        h5py.File(sys.argv[1])["x"][0]
    except Exception as error:
        return type(error), str(error)
plain = error()
with h5fast.patched():
    assert error() == plain, error()
"""
    files.run_python(script, path)


def test_what_is_readable_without_the_plugin_is_read(tmp_path: Path) -> None:
    """Chunks that were never written, or whose mask says that the filter was skipped, need no plugin."""
    path = files.write(tmp_path / "f.h5", DATA, "x", chunks=(60, 10), pipeline=PLUGINS["zstd"])
    files.write_chunk(path, (0, 0), DATA.tobytes(), name="x", mask=1)
    script = WITHOUT_PLUGINS + "import h5fast\nprint(h5fast.File(sys.argv[1])['x'][3, 4])"
    assert files.run_python(script, path).stdout.split() == [str(DATA[3, 4])]


def test_info_and_bench_name_the_missing_plugin(path: Path) -> None:
    script = WITHOUT_PLUGINS + "from h5fast.cli import main\nsys.exit(main(sys.argv[1:]))"
    lack = "filter zstd (32015) needs hdf5plugin: pip install 'h5fast[plugins]'"
    text = files.run_python(script, "info", path).stdout
    assert f"  reader   general: {lack}\n" in text and "HDF5 itself reads it" not in text
    for target in (path, f"{path}::x"):
        done = files.run_python(script, "bench", target, expect=1)
        assert done.stderr == f"h5fast: {path}: dataset '/x': {lack}\n" and done.stdout == ""


@pytest.mark.parametrize("name", sorted(PLUGINS))
def test_bench_reads_every_plugin(tmp_path: Path, name: str) -> None:
    path = files.write(tmp_path / "f.h5", DATA, "x", chunks=(7, 10), pipeline=PLUGINS[name])
    script = "import sys\nfrom h5fast.cli import main\nsys.exit(main(sys.argv[1:]))"
    done = files.run_python(script, "bench", f"{path}::x", "--batch", "9", "--rounds", "3")
    assert ", reader direct\n" in done.stdout


def test_an_unknown_filter_is_called_by_its_own_name(tmp_path: Path) -> None:
    path = files.write(tmp_path / "f.h5", DATA, "x", chunks=(7, 10), pipeline=[(files.DEFLATE, (4,))])
    content = path.read_bytes()
    head = content.index(struct.pack("<HHHH", 1, 8, 1, 1) + b"deflate\0")
    files.patch_bytes(path, head, struct.pack("<H", 32099))
    with h5fast.File(path) as file:
        assert file["x"].reader.startswith("general: filter deflate (32099) has no plugin that HDF5 can find")
        with pytest.raises(h5fast.UnsupportedError, match=r"dataset '/x': filter deflate \(32099\) has no plugin"):
            file["x"][0]
