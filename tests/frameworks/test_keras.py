"""h5fast.keras on each backend: one process each, since Keras has the one that it was imported with.

The checks are the tests in keras_checks/. Skips name the framework that is missing.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).parent
BACKENDS = ("jax", "torch", "tensorflow")


def require(*frameworks: str) -> None:
    for framework in frameworks:
        if find_spec(framework) is None:
            pytest.skip(f"{framework} is not installed")


def environment(backend: str) -> dict[str, str]:
    paths = os.pathsep.join(map(str, (HERE.parent.parent, HERE.parent)))
    return {**os.environ, "PYTHONPATH": paths, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu"}


def run_checks(name: str, backend: str) -> None:
    """Runs the tests in a file of keras_checks: all of them must pass."""
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / "keras_checks" / name)],
                          cwd=HERE.parent.parent, env=environment(backend), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert " passed" in done.stdout and " skipped" not in done.stdout, done.stdout[-2000:]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", sorted(path.name for path in (HERE / "keras_checks").glob("check_*.py")))
def test_checks(name: str, backend: str) -> None:
    require("keras", backend, "PIL")
    run_checks(name, backend)


def test_legacy() -> None:
    require("keras", "tensorflow", "tf_keras")
    run_checks("legacy.py", "tensorflow")
