"""The C tests of the decoders and the engine (tests/c), and what fuzzing them found, run as part of the Python tests.

Prevents: a wheel whose LZF, shuffle or Fletcher-32 code was never run against its reference and guard pages here; a fault that
fuzzing found once and that comes back.
"""

import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

C_TESTS = Path(__file__).parent / "c"


def require_compiler():
    compiler = os.environ.get("CC", "cc").split()[0]
    for tool in (compiler, "make"):
        if shutil.which(tool) is None:
            pytest.skip(f"the C tests need {tool}, which is not installed")


def test_decoders_in_c(tmp_path):
    require_compiler()
    run = subprocess.run(
        ["make", "-C", str(C_TESTS), "test", f"BUILD={tmp_path}"], capture_output=True, text=True, timeout=600
    )
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("target", [path.stem for path in sorted((C_TESTS / "corpora").glob("*.zip"))])
def test_inputs_that_fuzzing_kept(target, tmp_path):
    require_compiler()
    subprocess.run(["make", "-s", "-C", str(C_TESTS), f"{tmp_path}/replay_{target}", f"BUILD={tmp_path}"], check=True, timeout=300)
    with zipfile.ZipFile(C_TESTS / "corpora" / f"{target}.zip") as archive:
        archive.extractall(tmp_path / "inputs")
    inputs = list((tmp_path / "inputs").iterdir())
    run = subprocess.run([tmp_path / f"replay_{target}", *inputs], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0 and run.stdout == f"{len(inputs)} files\n", run.stdout + run.stderr
