"""The C tests of the decoders (tests/c), run as part of the Python tests.

Prevents: a wheel whose LZF, shuffle or Fletcher-32 code was never run against its reference and guard pages here.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

C_TESTS = Path(__file__).parent / "c"


def test_decoders_in_c(tmp_path):
    compiler = os.environ.get("CC", "cc").split()[0]
    for tool in (compiler, "make"):
        if shutil.which(tool) is None:
            pytest.skip(f"the C tests need {tool}, which is not installed")
    run = subprocess.run(
        ["make", "-C", str(C_TESTS), "test", f"BUILD={tmp_path}"], capture_output=True, text=True, timeout=600
    )
    assert run.returncode == 0, run.stdout + run.stderr
