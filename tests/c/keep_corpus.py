"""Keeps what fuzzing found: the smallest inputs that together reach all of it, and every input that once failed, in one archive a target.

``python tests/c/keep_corpus.py lzf FOLDER...`` needs ``make fuzz``; the folders hold inputs, files called ``crash-…`` among them.
The ordinary tests replay ``corpora/*.zip``.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).parent


def keep(target: str, folders: list[Path]) -> tuple[int, int]:
    """How many inputs are kept, and of those how many once failed."""
    with tempfile.TemporaryDirectory() as merged:
        subprocess.run([HERE / "build" / f"fuzz_{target}", "-merge=1", "-max_len=4096", merged, *folders], check=True,
                       stderr=subprocess.DEVNULL)
        inputs = {path.name: path.read_bytes() for path in Path(merged).iterdir()}
    archive = HERE / "corpora" / f"{target}.zip"
    failed = {path.name: path.read_bytes() for folder in folders for path in [*folder.glob("crash-*"), *folder.parent.glob("crash-*")]}
    if archive.exists():
        with zipfile.ZipFile(archive) as former:
            failed |= {name: former.read(name) for name in former.namelist() if name.startswith("crash-")}
    archive.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as made:
        for name, content in sorted((inputs | failed).items()):
            made.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)  # without times: the same inputs, the same archive
    return len(inputs), len(failed)


if __name__ == "__main__":
    print("{} inputs, {} that once failed".format(*keep(sys.argv[1], [Path(folder) for folder in sys.argv[2:]])))
