"""HDF5 files as what Keras 3 trains on, with the jax, torch and tensorflow backends; see docs/keras.md.

Importing this module imports Keras. Raises ``ImportError`` where that is not Keras 3, or lacks its backend.
"""

from h5fast.keras.classic import install, uninstall
from h5fast.keras.fitting import fit_data
from h5fast.keras.images import HDF5MatrixCacheIterator, ImageDataGenerator, flow_hdf5
from h5fast.keras.sequence import HDF5DataGenerator, HDF5Sequence

__all__ = [
    "HDF5DataGenerator",
    "HDF5MatrixCacheIterator",
    "HDF5Sequence",
    "ImageDataGenerator",
    "fit_data",
    "flow_hdf5",
    "install",
    "uninstall",
]
