"""The process that parses a file, seen from the one that started it: it is asked, and however it fails is told in one error.

Nothing here knows what is asked or answered. A process that failed once is not asked again: the error stays.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from dataclasses import dataclass
from typing import Any, NoReturn

from h5fast.errors import CorruptFileError, H5FastError, ReadError
from h5fast.untrusted.messages import HEAD_BYTES, Nonsense, begin, lengths, parse

__all__ = ["Limits", "Process"]

# The interpreter imports only what the process needs: the packages' own modules would import all of h5fast, for 0.15 s more.
_START = (
    "import json, sys, types\n"
    "path, root, arguments = json.loads(sys.argv[1])\n"
    "sys.path[:] = path\n"
    "for name in ('h5fast', 'h5fast.untrusted'):\n"
    "    package = sys.modules[name] = types.ModuleType(name)\n"
    "    package.__path__ = [root + '/' + name.replace('.', '/')]\n"
    "from h5fast.untrusted.child import main\n"
    "main(*arguments)\n"
)
_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# What of the environment decides how libraries are found and, in a sanitized build, checked.
_KEPT_VARIABLES = ("LD_LIBRARY_PATH", "LD_PRELOAD", "DYLD_LIBRARY_PATH", "ASAN_OPTIONS", "LSAN_OPTIONS", "UBSAN_OPTIONS")
_OWN_VARIABLES = {"HDF5_PLUGIN_PRELOAD": "::", "HDF5_PLUGIN_PATH": "", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

# Starting imports NumPy and h5py, which a busy machine takes seconds for; the file is not touched meanwhile.
_START_SECONDS = 120.0
_TOLD_BYTES = 2000  # of what it wrote to standard error


@dataclass(frozen=True)
class Limits:
    """What the process may use for one question.

    Attributes:
        seconds: on the clock
        cpu_seconds: of processor time
        memory: bytes beyond those it begins with
    """

    seconds: float = 6.0
    cpu_seconds: int = 5
    memory: int = 1 << 30

    @classmethod
    def given(cls) -> Limits:
        """Those that apply: ``H5FAST_UNTRUSTED_SECONDS`` may give larger files more time, in whole seconds.

        Raises:
            ValueError: it is no number of at least 1.
        """
        told = os.environ.get("H5FAST_UNTRUSTED_SECONDS")
        if told is None:
            return cls()
        if not told.isascii() or not told.isdigit() or int(told) < 1:
            raise ValueError(f"H5FAST_UNTRUSTED_SECONDS={told!r} is not a whole number of seconds of at least 1")
        return cls(seconds=float(told), cpu_seconds=int(told))


class Process:
    """One process, for one file.

    Args:
        descriptor: the file, open for reading; it stays the caller's
        name: of the file, for errors of the operating system

    Raises:
        ReadError: it does not start.
    """

    def __init__(self, descriptor: int, name: str, limits: Limits) -> None:
        self._name, self._limits = name, limits
        self._failure: str | None = None
        self._interrupted = False
        self._asking = threading.Lock()
        self._owner = os.getpid()
        self._child, self._questions, self._answers = _start(descriptor, limits)
        self._finalizer = weakref.finalize(self, _end, self._child, (self._questions, self._answers), self._owner)
        try:
            self._receive(1 << 10, time.monotonic() + _START_SECONDS, "was started")
        except CorruptFileError as error:  # it has not looked at the file yet
            raise ReadError(errno.ECHILD, f"{name}: {error}") from None

    def ask(self, question: dict[str, Any], most: int) -> tuple[dict[str, Any], bytes]:
        """What it answers: JSON, and bytes behind it, at most `most` of both.

        Raises:
            CorruptFileError: it crashed, took too long or too much, answered nonsense, or says that the file cannot be read so.
                The message does not name the file, which the caller does.
            ReadError: the operating system did not let it open the file.
        """
        with self._asking:
            if self._failure is not None:
                raise CorruptFileError(self._failure)
            deadline = time.monotonic() + self._limits.seconds
            try:
                self._send(begin(question), deadline)
                content, payload = self._receive(most, deadline, f"was asked for the {question['ask']}")
            except H5FastError:
                raise
            except BaseException:
                self._interrupted = True  # what it still has to say would be taken for the next answer
                self._finalizer()
                raise
        if "error" in content:
            self._refused(content)
        return content, payload

    def close(self) -> None:
        """Ends the process, once a question that is under way has its answer. It must not be asked afterwards."""
        if self._owner == os.getpid():
            with self._asking:  # whoever waits for an answer would read from another file's descriptor
                self._finalizer()
        else:
            self._finalizer()

    @property
    def is_usable(self) -> bool:
        """Whether it may be asked: not by a fork of the process that started it, and not after an answer was not waited for."""
        return self._owner == os.getpid() and not self._interrupted

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._child.pid

    def _refused(self, content: dict[str, Any]) -> NoReturn:
        number = content.get("errno")
        reason = "".join(c for c in str(content["error"])[:400] if c.isprintable())
        if type(number) is int and number in (errno.EAGAIN, errno.EACCES, errno.EPERM, errno.ENOENT):
            raise ReadError(number, f"{self._name}: {reason}")
        raise CorruptFileError(reason)

    def _fail(self, what: str) -> NoReturn:
        self._failure = what
        self._finalizer()
        raise CorruptFileError(what)

    def _send(self, message: bytes, deadline: float) -> None:
        try:
            os.write(self._questions, message)  # some dozen bytes: a pipe takes them whole
        except BrokenPipeError:
            self._dead("was to be asked", deadline)

    def _receive(self, most: int, deadline: float, doing: str) -> tuple[dict[str, Any], bytes]:
        try:
            text, payload = lengths(self._read(HEAD_BYTES, deadline, doing), most)
            return parse(self._read(text, deadline, doing)), self._read(payload, deadline, doing)
        except Nonsense as error:
            self._fail(f"the process that reads its metadata gave {error}")

    def _read(self, size: int, deadline: float, doing: str) -> bytes:
        found = bytearray()
        while len(found) < size:
            left = deadline - time.monotonic()
            if left <= 0 or not _readable(self._answers, left):
                self._late(doing)
            part = os.read(self._answers, min(size - len(found), 1 << 20))
            if not part:
                self._dead(doing, deadline)
            found += part
        return bytes(found)

    def _late(self, doing: str) -> NoReturn:
        self._fail(f"the process that reads its metadata {doing} and gave no answer in "
                   f"{self._limits.seconds:g} s. If the file is that large, H5FAST_UNTRUSTED_SECONDS gives it longer; "
                   "if you trust it, open it without untrusted=True")

    def _dead(self, doing: str, deadline: float) -> NoReturn:
        try:
            status = self._child.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._late(doing)
        self._fail(f"the process that reads its metadata {doing} and died: "
                   f"{_cause(status, self._limits)}{self._told()}")

    def _told(self) -> str:
        """The last line it wrote to standard error, if it is no more than words."""
        errors = self._child.stderr
        if errors is None or errors.closed or not _readable(errors.fileno(), 0.0):
            return ""
        lines = os.read(errors.fileno(), 1 << 16)[-_TOLD_BYTES:].decode(errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "")
        return f" ({''.join(c for c in last.strip()[:200] if c.isprintable())})" if last else ""


def _start(descriptor: int, limits: Limits) -> tuple[subprocess.Popen[bytes], int, int]:
    """The process, and the ends of the pipes for questions and answers."""
    path = [os.path.abspath(entry) for entry in sys.path if entry]
    answers, theirs = os.pipe()
    heard, questions = os.pipe()
    arguments = json.dumps([path, _ROOT, [descriptor, theirs, limits.memory, limits.cpu_seconds]])
    environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ} | _OWN_VARIABLES
    try:
        child = subprocess.Popen(
            [sys.executable, "-I", "-B", "-S", "-c", _START, arguments], env=environment, pass_fds=(descriptor, theirs),
            stdin=heard, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd="/", bufsize=0,
            start_new_session=True,  # Ctrl-C is for this process
        )
    except BaseException:
        os.close(answers)
        os.close(questions)
        raise
    finally:
        os.close(theirs)
        os.close(heard)
    return child, questions, answers


def _end(child: subprocess.Popen[bytes], pipes: tuple[int, int], owner: int) -> None:
    """Ends the process and gives back what it held; in a fork of its owner, only the descriptors."""
    if os.getpid() == owner:
        if child.poll() is None:
            child.kill()
        child.wait()
    else:
        child.returncode = 0  # not a child of this process: nothing to wait for, nothing to warn of
    if child.stderr is not None:
        child.stderr.close()
    for pipe in pipes:
        os.close(pipe)


def _readable(descriptor: int, seconds: float) -> bool:
    """Whether there is something to read, or the end, within so many seconds."""
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    return bool(waiting.poll(seconds * 1000))


def _cause(status: int, limits: Limits) -> str:
    if status >= 0:
        return f"exit status {status}"
    if -status == signal.SIGXCPU:
        return f"it had used {limits.cpu_seconds} s of processor time"
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:
        return f"signal {-status}"
