"""No framework is imported before it is asked for: ``import h5fast`` stays as quick as h5py."""

from __future__ import annotations

import hdf5_files as files

FRAMEWORKS = ["torch", "torchdata", "tensorflow", "keras", "tf_keras", "jax", "grain", "PIL"]


def test_importing_h5fast_imports_no_framework() -> None:
    done = files.run_python("import sys, h5fast; print([name for name in sys.argv[1:] if name in sys.modules])", *FRAMEWORKS)
    assert done.stdout.strip() == "[]"
