"""The soak of benchmarks/soak_loader.py, in short.

Prevents: a thread, a descriptor or memory that stays each time an iteration is given up, fails or forks.
"""

from __future__ import annotations

from pathlib import Path

import hdf5_files as files

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "soak_loader.py"


def test_nothing_is_left_after_twenty_seconds() -> None:
    done = files.run_python("import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')",
                            SCRIPT, 20, timeout=120)
    assert "forks" in done.stdout and "closed" in done.stdout, done.stdout
