"""The examples for the frameworks run as they stand, on real digits, and reach the accuracy that they state."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize(("script", "needs"), [("torch_dataset.py", "torch sklearn")])
def test_example(script: str, needs: str) -> None:
    for module in needs.split():
        pytest.importorskip(module)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
    done = subprocess.run([sys.executable, ROOT / "examples" / script], capture_output=True, text=True, check=False,
                          env=environment, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "wanted" in done.stdout.splitlines()[-1]
