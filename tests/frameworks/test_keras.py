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
    # Small models: torch's threads would wait for each other longer than they compute: 291 s instead of 41 on a busy machine.
    return {**os.environ, "PYTHONPATH": paths, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu",
            "OMP_NUM_THREADS": "1"}


def run_checks(name: str, backend: str, **variables: str) -> None:
    """Runs the tests in a file of keras_checks: all of them must pass."""
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / "keras_checks" / name)],
                          cwd=HERE.parent.parent, env={**environment(backend), **variables}, capture_output=True, text=True,
                          check=False)
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


def test_distribution() -> None:
    require("keras", "jax")
    run_checks("distribution.py", "jax", XLA_FLAGS="--xla_force_host_platform_device_count=4")


# The backends that a program is tried on, and what it must print at its end: the accuracy that the program itself demands.
EXAMPLES = {
    "keras_hdf5matrix.py": "Test accuracy: ",
    "keras_data_generator.py": "Test accuracy: ",
    "keras_flow_hdf5.py": "Validation accuracy: ",
}
ACCURACY = 0.95
WARNINGS = (
    "error",
    "ignore:Do not pass an `input_shape`:UserWarning",  # of Keras 3, about how the program was always written
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning",  # of Keras' torch backend and numpy 2
)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("program", EXAMPLES)
def test_examples(program: str, backend: str, tmp_path: Path) -> None:
    require("keras", backend, "sklearn")
    options = [option for warning in WARNINGS for option in ("-W", warning)]
    done = subprocess.run([sys.executable, *options, str(HERE.parent.parent / "examples" / program), str(tmp_path)],
                          env=environment(backend), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    accuracy = float(done.stdout.rpartition(EXAMPLES[program])[2])
    assert accuracy >= ACCURACY
