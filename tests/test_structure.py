"""The shape of the package: what it exports, and that its modules form no cycle."""

from __future__ import annotations

import ast
from pathlib import Path

import h5fast

PACKAGE = Path(h5fast.__file__).parent
SOURCES = Path(__file__).parent.parent / "src"

PUBLIC = {
    "CorruptChunkError", "CorruptFileError", "Dataset", "File", "Group", "H5FastError", "HDF5Matrix", "Normalize",
    "ReadError", "UnsupportedError", "__version__", "get_num_threads", "patch", "patched", "set_num_threads", "unpatch",
}


def _imports(path: Path) -> set[str]:
    """Names of this package's modules that a module imports anywhere: at the top, in a function, cimported."""
    if path.suffix == ".pyx":
        words = [line.split() for line in path.read_text().splitlines()]
        return {w[1].removeprefix("h5fast.").split(".")[0] for w in words
                if len(w) > 2 and w[0] == "from" and w[1].startswith("h5fast.") and w[2] in ("import", "cimport")}
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "h5fast":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("h5fast."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("h5fast.")}
    return found


def _modules() -> dict[str, set[str]]:
    files = [*PACKAGE.glob("*.py"), *SOURCES.glob("*.pyx")]
    names = {file.stem for file in files}
    return {file.stem: _imports(file) & names - {file.stem} for file in files}


def test_public_names_are_these() -> None:
    assert set(h5fast.__all__) == PUBLIC
    assert all(hasattr(h5fast, name) for name in PUBLIC)


def test_no_import_cycle() -> None:
    modules = _modules()
    assert len(modules) > 15
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
