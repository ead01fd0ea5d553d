"""Run h5py's own test-suite with and without ``h5fast.patch()``, and compare the outcome of every test.

::

    python tests/h5py_suite.py                                # this interpreter's h5py and h5fast
    python tests/h5py_suite.py --python /venv-3.14/bin/python # another one, which has h5fast, h5py and pytest
    python tests/h5py_suite.py --swap                         # instead of patch(): import h5fast as h5py, in every test
    python tests/h5py_suite.py -- -k dataset                  # what follows -- goes to pytest

A test that fails either way (as root, without MPI …) is no difference. Exit status: 0 if all outcomes are equal, 1 if some
differ, 2 if a run broke off or if no read went through h5fast, so that nothing was compared. With ``--swap`` the tests that
demand an error where h5fast has numpy's answer must differ (they are listed below), and no others.

The same file is the pytest plugin of both runs (``-p h5py_suite``), told by the environment what to do. pytest does not
collect it. Needs nothing beyond pytest and h5py, and runs on every version of both that h5fast supports.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

# What the parent tells the plugin: the file to write the outcomes to, and how to use h5fast ("no", "patch" or "swap").
_RECORD = "H5PY_SUITE_RECORD"
_USE = "H5PY_SUITE_USE"

# Tests that ask for an error which h5fast's own classes do not raise, or not as that type: numpy's meaning is theirs for
# what h5py refuses. Not every version of h5py has all of them.
_NUMPY_INSTEAD = (
    "test_dataset_getitem.py::Test1DFloat::test_index_illegal",  # IndexError, as numpy, for what is no index at all
    "test_dataset_getitem.py::Test1DFloat::test_index_none",  # newaxis
    "test_dataset_getitem.py::Test1DFloat::test_indexlist_monotonic_negative",
    "test_dataset_getitem.py::Test1DFloat::test_indexlist_nonmonotonic",
    "test_dataset_getitem.py::Test1DFloat::test_indexlist_repeated",
    "test_dataset_getitem.py::Test1DFloat::test_mask_wrongsize",  # IndexError, as numpy
    "test_dataset_getitem.py::Test1DFloat::test_slice_backwards",
    "test_dataset_getitem.py::TestBoolIndex::test_wrong_size",  # IndexError, as numpy
    "test_dataset_getitem.py::test_error_newaxis",
)


# ---- in the child: the pytest plugin ----


class _Recorder:
    """Writes one JSON line an event, at once, so that a crash of the interpreter leaves what came before it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, **event: Any) -> None:
        self._stream.write(json.dumps(event) + "\n")
        self._stream.flush()

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.write(test=report.nodeid or "(collection)", outcome="collect failed", why=str(report.longrepr)[-2000:])

    def pytest_runtest_logreport(self, report: Any) -> None:
        if hasattr(report, "wasxfail"):
            outcome = "xpassed" if report.passed else "xfailed"
        elif report.passed:
            outcome = "passed" if report.when == "call" else ""
        else:
            outcome = f"{report.when} {report.outcome}"
        if outcome:
            why = "" if report.passed else str(report.longrepr)[-2000:]
            self.write(test=report.nodeid, outcome=outcome, why=why)

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        self.write(exitstatus=int(exitstatus), reads=dict(_reads))


_reads: Counter[str] = Counter()


def pytest_configure(config: Any) -> None:
    """Hook of pytest: record the outcomes, and patch h5py if told so."""
    record = os.environ.get(_RECORD)
    if record is None:
        return
    config.pluginmanager.register(_Recorder(open(record, "a", encoding="utf-8")))  # noqa: SIM115  (as long as pytest)
    use = os.environ.get(_USE)
    if use == "patch":
        import h5fast

        _count("read_patched")
        h5fast.patch()
    elif use == "swap":
        _count("read")


def pytest_collection_modifyitems() -> None:
    """Hook of pytest: all test modules are imported. For "swap", do to each what ``import h5fast as h5py`` does."""
    if os.environ.get(_USE) != "swap":
        return
    import h5py

    import h5fast

    swaps = {id(h5py): h5fast, **{id(getattr(h5py, name)): getattr(h5fast, name) for name in ("File", "Group", "Dataset")}}
    for module in [module for name, module in sys.modules.items() if name.startswith("h5py.tests")]:
        for name, value in list(vars(module).items()):
            if id(value) in swaps:
                setattr(module, name, swaps[id(value)])


def _count(method: str) -> None:
    """Count the calls of this method of h5fast's readers, and how many of them are left to h5py."""
    from h5fast.reading import DatasetReader

    original = getattr(DatasetReader, method)

    def counted(self: Any, key: Any) -> Any:
        result = original(self, key)
        _reads["left to h5py" if result is NotImplemented else "served"] += 1
        return result

    setattr(DatasetReader, method, counted)


# ---- in the parent: two runs and their comparison ----


@dataclass
class Run:
    """The outcomes of one run of the suite."""

    outcomes: dict[str, str] = field(default_factory=dict)  # test id: "passed", "call failed", "setup failed" …
    reasons: dict[str, str] = field(default_factory=dict)  # test id: end of the traceback, if it did not pass
    reads: dict[str, int] = field(default_factory=dict)  # "served", "left to h5py": calls, in the run with h5fast
    finished: bool = False  # False if the interpreter died on the way
    output: str = ""

    def summary(self) -> str:
        """The outcomes counted, the commonest first."""
        counts = Counter(self.outcomes.values())
        return ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common()) or "no tests"


def run_suite(python: str, *, use: str, arguments: list[str]) -> Run:
    """Run h5py's tests in a fresh interpreter `python`, outside any project, and return what became of each."""
    with tempfile.TemporaryDirectory(prefix="h5py-suite-") as folder:
        record = Path(folder, "outcomes.jsonl")
        command = [python, "-m", "pytest", "-p", "h5py_suite", "-p", "no:cacheprovider", "-c", os.devnull, "-q"]
        command += ["--rootdir", folder, "--pyargs", "h5py", *arguments]
        done = subprocess.run(
            command, cwd=folder, env=_environment(record, use), text=True, errors="replace", check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        return _load(record, done.stdout)


def _environment(record: Path, use: str) -> dict[str, str]:
    """The environment of a run: this file can be imported, and no plugin is loaded but what pytest itself brings."""
    paths = [str(Path(__file__).resolve().parent), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        _RECORD: str(record),
        _USE: use,
    }


def _load(record: Path, output: str) -> Run:
    run = Run(output=output)
    for line in record.read_text(encoding="utf-8").splitlines() if record.exists() else ():
        event = json.loads(line)
        if "exitstatus" in event:
            # 0 and 1: all ran. 2 and more: interrupted, internal error, wrong usage, nothing collected.
            run.finished, run.reads = event["exitstatus"] in (0, 1), event["reads"]
            continue
        test = event["test"]
        earlier = run.outcomes.get(test)  # a test may pass and then fail in its teardown
        run.outcomes[test] = f"{earlier}, {event['outcome']}" if earlier else event["outcome"]
        run.reasons[test] = run.reasons.get(test, "") + event["why"]
    return run


def differences(plain: Run, fast: Run) -> list[tuple[str, str, str]]:
    """(test, outcome without, outcome with) for every test whose outcomes differ, in the order of the ids."""
    tests = sorted(plain.outcomes.keys() | fast.outcomes.keys())
    rows = [(test, plain.outcomes.get(test, "not run"), fast.outcomes.get(test, "not run")) for test in tests]
    return [row for row in rows if row[1] != row[2]]


def unexpected(plain: Run, fast: Run, allowed: tuple[str, ...]) -> list[tuple[str, str, str]]:
    """The differences, without the tests in `allowed` that differ by failing, and with those that do not."""
    rows = differences(plain, fast)
    expected = [row for row in rows if row[0].endswith(allowed) and row[1:] == ("passed", "call failed")]
    missing = {test for test in plain.outcomes if test.endswith(allowed)} - {row[0] for row in expected}
    return [row for row in rows if row not in expected] + [(test, "passed", "no error") for test in sorted(missing)]


def report(plain: Run, fast: Run, allowed: tuple[str, ...]) -> int:
    """Print both runs and every difference but those of the tests in `allowed`; return the exit status."""
    print(f"without h5fast: {plain.summary()}")
    print(f"with h5fast:    {fast.summary()}")
    served = fast.reads.get("served", 0)
    print(f"reads:          {served} served by h5fast, {fast.reads.get('left to h5py', 0)} left to h5py")
    for name, run in (("without h5fast", plain), ("with h5fast", fast)):
        if not run.finished:
            print(f"\nthe run {name} broke off; the end of its output:\n{run.output[-4000:]}")
            return 2
    different = unexpected(plain, fast, allowed)
    for test, before, after in different:
        print(f"\nDIFFERENT {test}: {before} without, {after} with h5fast")
        print((fast.reasons.get(test) or plain.reasons.get(test, "")).rstrip())
    if different:
        print(f"\n{len(different)} of {len(plain.outcomes)} tests differ")
        return 1
    if not served:
        print("h5fast served no read, so nothing was compared")
        return 2
    known = f", but for {len(differences(plain, fast))} that ask for an error where numpy has an answer" if allowed else ""
    print(f"all {len(plain.outcomes)} tests have the same outcome{known}")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Command line; see the docstring of the file."""
    parser = argparse.ArgumentParser(description="Compare h5py's test-suite with and without h5fast.patch().")
    parser.add_argument("--python", default=sys.executable, help="the interpreter to test (default: this one)")
    parser.add_argument("--swap", action="store_true", help="import h5fast as h5py, instead of h5fast.patch()")
    parser.add_argument("pytest", nargs="*", help="further arguments for pytest, after --")
    options = parser.parse_args(arguments)
    versions = "import h5py, sys; v = h5py.version; print('h5py', v.version, 'HDF5', v.hdf5_version, 'Python', sys.version)"
    subprocess.run([options.python, "-c", versions], check=True)
    plain = run_suite(options.python, use="no", arguments=options.pytest)
    fast = run_suite(options.python, use="swap" if options.swap else "patch", arguments=options.pytest)
    return report(plain, fast, _NUMPY_INSTEAD if options.swap else ())


if __name__ == "__main__":
    sys.exit(main())
