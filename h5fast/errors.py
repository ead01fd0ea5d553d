"""The exceptions that h5fast raises of itself.

::

    H5FastError
    ├── CorruptChunkError   also a ValueError           the bytes of one chunk are wrong
    ├── CorruptFileError    also an OSError             the structure of the file is wrong
    ├── ReadError           also an OSError             the file could not be read, or changed while it was read
    └── UnsupportedError    also a NotImplementedError  a valid request that h5fast cannot serve

Each inherits from the builtin that a caller would catch. Wrong indices are plain ``IndexError`` and ``TypeError``,
as numpy raises them; a missing file or dataset raises what h5py raises.
"""

from __future__ import annotations

__all__ = ["H5FastError", "CorruptChunkError", "CorruptFileError", "ReadError", "UnsupportedError"]


class H5FastError(Exception):
    """Base of every exception that h5fast defines."""


class CorruptChunkError(H5FastError, ValueError):
    """The stored bytes of a chunk do not decode to the chunk; the message names file, dataset, chunk, offset and filter.

    Other chunks of the same dataset stay readable.
    """


class CorruptFileError(H5FastError, OSError):
    """The structure of the file contradicts itself, for example a chunk that lies outside the file."""


class ReadError(H5FastError, OSError):
    """The operating system refused a read, or the file was truncated or replaced while it was open.

    ``errno`` is set where the operating system gave one.
    """


class UnsupportedError(H5FastError, NotImplementedError):
    """The request is valid HDF5 but neither h5fast nor h5py can serve it; the message says what and why."""
