"""The shape of the package: what it exports, and that its modules form no cycle."""

from __future__ import annotations

import ast
import inspect
import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import hdf5_files as files
import numpy as np
import pytest

import h5fast

PACKAGE = Path(h5fast.__file__).parent
SOURCES = Path(__file__).parent.parent / "src"

PUBLIC = {
    "ChunkCache", "CorruptChunkError", "CorruptFileError", "Dataset", "Field", "File", "FileTree", "Group",
    "H5FastError", "HDF5Matrix", "Loader", "Normalize", "ReadError", "RepackReport", "Spec", "TuneReport",
    "UnsupportedError", "Verified", "Writer", "__version__", "chunk_cache", "get_num_threads", "mix", "pack", "partition", "patch",
    "patched", "repack", "set_num_threads", "split", "tune", "unpatch", "validate", "write_generator", "write_predict_generator",
    "write_split",
}


def _name(path: Path) -> str:
    """Of a module, below the package: ``loader``, ``keras.sequence``; a package's own is the package's."""
    if path.suffix == ".pyx":
        return path.stem
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


def _imports(path: Path) -> set[str]:
    """What of this package a module imports anywhere (at the top, in a function, cimported): modules, or names in them."""
    if path.suffix == ".pyx":
        words = [line.split() for line in path.read_text().splitlines()]
        return {w[1].removeprefix("h5fast.") for w in words
                if len(w) > 2 and w[0] == "from" and w[1].startswith("h5fast.") and w[2] in ("import", "cimport")}
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith("h5fast."):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module or ""}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name.removeprefix("h5fast.") for name in found if name.startswith("h5fast.")}


def _modules() -> dict[str, set[str]]:
    files = [*PACKAGE.rglob("*.py"), *SOURCES.glob("*.pyx")]
    names = {_name(file) for file in files}
    return {_name(file): _imports(file) & names - {_name(file)} for file in files}


def test_public_names_are_these() -> None:
    assert set(h5fast.__all__) == PUBLIC
    assert all(hasattr(h5fast, name) for name in PUBLIC)


def test_no_module_hides_one_of_h5pys() -> None:
    """``import h5fast as h5py`` and then ``h5py.filters``: a module of that name here would be found instead."""
    assert not [path.stem for path in PACKAGE.iterdir() if not path.stem.startswith("_") and hasattr(h5py, path.stem)]


def test_frameworks_are_imported_when_asked_for() -> None:
    """And a module that is not there is an attribute that is not there, whichever framework is installed."""
    code = "import sys, h5fast; before = set(sys.modules); frameworks = {'keras', 'torch', 'tensorflow', 'grain', 'jax'}\n" \
           "assert not frameworks & before, frameworks & before\n" \
           "assert not frameworks & set(dir(h5fast))\n" \
           "h5fast._FRAMEWORKS += ('absent',)\n" \
           "assert not hasattr(h5fast, 'absent')\n" \
           "sys.modules['h5fast.absent'] = here = object()\n" \
           "assert h5fast.absent is here"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)})


@pytest.mark.parametrize("found", ["None", "types.ModuleType('keras')"], ids=["missing", "Keras 2"])
def test_a_framework_that_is_missing_is_said_with_its_remedy(found: str) -> None:
    code = f"import sys, types, h5fast; sys.modules['keras'] = {found}\n" \
           "try:\n    h5fast.keras\nexcept ImportError as error:\n    assert 'h5fast.keras needs Keras 3' in str(error), error\n" \
           "else:\n    raise AssertionError('it was imported')"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)})


def test_no_import_cycle() -> None:
    modules = _modules()
    assert len(modules) > 15
    assert "keeping" in modules["loader"]
    assert "_gather" in modules["stored"]
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path, name))
        if name not in done:
            for other in modules[name]:
                visit(other, (*path, name))
            done.add(name)

    for name in modules:
        visit(name, ())


def test_every_extension_has_a_stub() -> None:
    assert {path.stem for path in SOURCES.glob("*.pyx")} == {path.stem for path in PACKAGE.glob("*.pyi")}


# What Cython adds to a module, and h5py's lock, which one of them imports.
NOT_IN_STUBS = r"h5fast\._\w+\.(__pyx_capi__|__reduce_cython__|__setstate_cython__|__test__|phil)"


@pytest.mark.parametrize("tool", ["mypy", "mypy.stubtest"])
def test_types(tool: str, tmp_path: Path) -> None:
    """A stub that lacks a function, or promises another signature, is believed by every editor."""
    pytest.importorskip("mypy")
    if int(np.__version__.split(".")[0]) < 2:
        pytest.skip("numpy 1 has other annotations")
    root = SOURCES.parent
    (tmp_path / "allowed").write_text(NOT_IN_STUBS)
    stubs = [f"h5fast.{path.stem}" for path in PACKAGE.glob("*.pyi")]
    check = [tool, "h5fast"] if tool == "mypy" else [tool, *stubs, "--allowlist", str(tmp_path / "allowed")]
    done = subprocess.run([sys.executable, "-m", *check], cwd=root, capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": str(root), "MYPY_CACHE_DIR": str(tmp_path)})
    assert done.returncode == 0, done.stdout + done.stderr


def test_everything_public_has_a_docstring() -> None:
    """Also what a public class does with ``[]``, ``with`` and ``len``: help() shows it, and its errors are not obvious."""
    silent = []
    for name in PUBLIC - {"__version__"}:
        thing = getattr(h5fast, name)
        members = vars(thing).items() if inspect.isclass(thing) else ()
        silent += [f"{name}.{member}" for member, value in members
                   if (inspect.isfunction(value) or isinstance(value, property)) and not inspect.getdoc(value)
                   and (not member.startswith("_") or member.startswith("__"))]
        silent += [] if inspect.getdoc(thing) else [name]
    assert not [name for name in silent if not name.endswith(("__init__", "__post_init__", "__hash__", "__eq__", "__repr__"))]


def test_unbuilt_sources_say_so(tmp_path: Path) -> None:
    """Python started in a checkout finds its sources before an installed h5fast: it was called a circular import."""
    shutil.copytree(PACKAGE, tmp_path / "h5fast", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    # An editable install finds modules that a package lacks in the checkout it was made from; other installs do not.
    start = "import sys; sys.path.insert(0, sys.argv[1]); " \
            "sys.meta_path[:] = [f for f in sys.meta_path if 'Editable' not in str(f)]; import h5fast"
    done = files.run_python(start, tmp_path, expect=1)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: ") and str(tmp_path / "h5fast") in last
    assert "another folder" in last and "python setup.py build_ext --inplace" in last
