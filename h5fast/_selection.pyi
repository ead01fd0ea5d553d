from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from h5fast._key import Unhandled as Unhandled

@final
class Selection:
    """What a key selects: numbers only, immutable, made by :func:`select` and :func:`select_rows`.

    For every point ``p`` and every combination of range indices ``i``, the element of the result at
    ``out_offset + p*point_stride + sum(i[a]*out_stride[a])`` (counted in a C-contiguous result) comes from the element of
    the dataset at ``coordinates[a][p]`` on the point axes and ``start[a] + i[a]*step[a]`` on the others.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Raises ``TypeError``: see the functions."""

    @property
    def rank(self) -> int:
        """Number of axes of the dataset."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the result."""

    @property
    def size(self) -> int:
        """Number of elements of the result; where it is 0 the other numbers may point nowhere."""

    @property
    def scalar(self) -> bool:
        """Whether the result is a numpy scalar rather than an array of shape ``()``."""

    @property
    def axes(self) -> tuple[tuple[int, int, int, int, bool], ...]:
        """For each axis of the dataset ``(start, count, step, out_stride, is_point)``, strides in elements."""

    @property
    def coordinates(self) -> tuple[NDArray[np.int64] | None, ...]:
        """For each axis of the dataset a copy of its ``npoints`` coordinates, ``None`` where the axis is a range."""

    @property
    def npoints(self) -> int:
        """Number of points, 1 where only ranges are selected."""

    @property
    def point_stride(self) -> int:
        """Elements of the result per point."""

    @property
    def out_offset(self) -> int:
        """The element of the result that the first point and the first index of every range give."""

    @property
    def fields(self) -> tuple[str, ...]:
        """Field names found in the key, in its order; ``()`` without any."""

    @property
    def record(self) -> bool:
        """Whether ``fields`` came as one list, as numpy has it: then even a single field stays a record."""

    @property
    def h5py(self) -> bool:
        """Whether h5py itself surely gives this same result, provided that the dataset has the ``fields``."""

def select(key: Any, shape: tuple[int, ...] | None, numpy_only: bool = False) -> Selection:
    """Return what ``dataset[key]`` selects from a dataset of ``shape``.

    h5py's meaning where h5py has one, else numpy's; ``numpy_only`` gives numpy's throughout. Raises what numpy raises:
    ``IndexError`` for an index out of range (with the index and the size), too many or wrong indices and masks of the wrong
    shape, ``TypeError`` and ``ValueError`` for impossible slices, ``ValueError`` for a result of more than 2**63-1
    elements. Raises ``Unhandled`` for keys that only h5py can interpret.
    """

def select_rows(rows: Any, n: int, shape: tuple[int, ...]) -> Selection:
    """Return the selection of ``rows`` on axis 0, which has ``n`` rows, and of everything on the other axes of ``shape``.

    ``rows`` is a slice, a range, or anything one-dimensional that numpy takes for an index: integers in any order,
    repeats and negative ones included, or a mask of length ``n``. Raises ``IndexError`` as :func:`select` does, and
    ``TypeError`` where ``rows`` is not one-dimensional.
    """

def h5py_accepts(key: Any, shape: tuple[int, ...] | None) -> bool:
    """Return whether h5py surely answers ``dataset[key]`` itself, and with the very result that :func:`select` describes.

    False for whatever is doubtful: field names, which need the dtype, and what some supported version of h5py refuses.
    """
