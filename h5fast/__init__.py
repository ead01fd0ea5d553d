"""Read HDF5 training data at the speed of the memory and the cores.

::

    import h5fast                   # or: import h5fast as h5py; what h5fast does not define comes from h5py

    with h5fast.File("train.h5") as f:
        batch = f["image"][[7, 3, 3, -1]]           # any order, repeats, negatives
    with h5fast.patched():                          # existing h5py code, same answers
        ...
    for x, y in h5fast.Loader("train.h5", ("image", "label"), batch_size=256, shuffle=True):
        ...                                         # shuffled epochs, read ahead

Layers, each of which imports only what stands below it::

    keras, torch, tensorflow, grain                     a framework each, imported when first asked for: h5fast.keras …
    tree                FileTree                        files in a file (a package of its own layers)
    packing             pack(), partition()             folders, archives, tables become files (a package of its own layers)
    mixing              mix()                           batches of several loaders
    loader              Loader                          shuffled epochs of batches, made ahead
    epoch, keeping                                      one iteration; decoded rows, from one to the next
    state               Identity                        where training stands, and of which data in which order
    single                                              one batch of an epoch by itself
    staging, pipeline, memory                           the thread that makes them; what may be kept of what is decoded
    lookahead           Lookahead                       fields read in Python, for several batches at once
    planning            Plan                            what an epoch will cost, and how well an order mixes
    selecting, ordering                                 which rows an epoch draws, and in which order
    columns             Table                           the fields of a batch, and who reads them
    samples             samples_column()                fields whose rows are datasets of their own, found by a pattern
    sliding             window_column()                 fields that are windows over longer datasets
    sparse              csr_column()                    fields that are CSR matrices
    images_column                                       fields that are image files
    imaging             Decoder                         the bytes of an image file become an array
    runs                Runs                            runs of consecutive rows, gathered at random
    python_column       PythonColumn                    a field that is read in Python
    engine_column       EngineColumn                    a field that the engine reads
    kept_rows, costs    KeptRows, Costs                 rows that were read in Python, up to a number of bytes; what that costs
    generators          write_generator() …             batches of a generator, or what a model makes of them, become files
    asking              Batches                         batches of a generator, asked for ahead
    tuning              tune()                              which chunks and codec suit a dataset, measured on a part of it
    cache_trial         measure_cache()                     what a chunk cache brings to h5py, measured on a part of a dataset
    repacking           repack()                            a file with the same contents, stored in another way
    copying, comparing  TreeCopy, Comparison                objects and links of a file, made anew in another; compared
    recoding, boxes     recode(), boxes()                   one dataset in other chunks or filters; cut into what fits the memory
    writer              Writer                          batches of rows become a file
    target, outputs     AtomicTarget, Output            where they go: whole files or live ones; the way of a field into one
    transaction         Transaction                     a file that changes from one consistent state to the next
    arriving, specs     check_batch(), Spec             batches, checked; what a field that is written is
    sampling            choose_codec()                  which codec suits a field
    chunking, codec     choose_rows(), resolve_codec()  how many rows a chunk holds, and why; what codecs are called
    splits, fields      split(), write_split(), Field   parts of the rows, kept in the file; what a field is
    patching            patch(), unpatch(), patched()   h5py's own classes, read through h5fast
    matrix              HDF5Matrix, Normalize           a range of rows that reads like an array
    sources, window                                     where the rows of a matrix lie, and which a key names
    verifying           validate()                      every chunk of a file, read and decoded
    objects             File, Group, Dataset            h5py's classes, adopted
    addresses                                           where another process finds them
    untrusted           UntrustedFile                   files that another process parses (a package of its own layers)
    caching             chunk_cache(), ChunkCache           the chunk cache that suits a dataset, or a file, and a way of reading
    methods             reader_of(), read_as() …        what their reading methods do, and those of h5py while patched
    reading             DatasetReader                   one dataset: the direct path, or the general one and why
    virtual, general                                    reading through sources of a virtual dataset; through h5py
    stored              Stored                          the chunks of a dataset: looked up, indexed, kept
    transform           Transform                       what take() does to rows on their way out
    opened, layout                                      open files; how a dataset is stored
    plugins                                             what filters are called, and which plugins they need
    threads             set_num_threads()               how many native threads a read may use
    class_numbers       write_labels()                  numbers of a file's classes, kept beside it
    own_groups                                          groups of a file that are h5fast's own
    progress            with_bar()                      how far a loop has come
    sizes               parse_bytes(), format_bytes()   numbers of bytes, as people write and read them
    effort              choose_effort()                 how hard to search for a stream as small as zlib's
    _encode             (src/)                          chunks, encoded by native threads
    _paged              (src/)                          the file that libhdf5 writes to, through h5py
    _claim              (src/)                          places of a list that processes share
    _spans, _members    (src/)                          files in a file: read many at once; found in their groups
    _feed               (src/)                          the loader's engine: schedules, rows that are kept, the ring of batches
    _gather             (src/)                          the engine: reads, decodes and scatters without the GIL
    _storage, _cast, _blocks  (src/)                    how a dataset is stored; what a row becomes; memory of results
    _index, _selection, _key  (src/)                    where the chunks lie; which elements a key names; its entries
    _library            (src/)                          C functions of the libraries that Python has loaded
    errors              H5FastError and its kin
    h5py                                                opens and describes the files

Importing h5fast imports h5py and numpy, no framework, and does no work beyond that.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import h5py as _h5py

try:
    from h5fast import _library as _library  # the compiled module that all others need
except ImportError as error:
    from importlib.util import find_spec

    if find_spec("h5fast._library") is not None:
        raise
    raise ImportError(
        f"{__path__[0]} holds the sources of h5fast, and its compiled modules are not there. Is this a checkout? Start Python "
        "in another folder to use the h5fast that is installed, or build this one: python setup.py build_ext --inplace"
    ) from error

from h5fast.caching import ChunkCache, chunk_cache
from h5fast.errors import CorruptChunkError, CorruptFileError, H5FastError, ReadError, UnsupportedError
from h5fast.fields import Field
from h5fast.generators import write_generator, write_predict_generator
from h5fast.loader import Loader
from h5fast.matrix import HDF5Matrix, Normalize
from h5fast.mixing import mix
from h5fast.objects import Dataset, File, Group
from h5fast.packing.pack import pack
from h5fast.packing.partition import partition
from h5fast.patching import patch, patched, unpatch
from h5fast.repacking import RepackReport, repack
from h5fast.specs import Spec
from h5fast.splits import split, write_split
from h5fast.threads import get_num_threads, set_num_threads
from h5fast.tree.filetree import FileTree
from h5fast.tuning import TuneReport, tune
from h5fast.verifying import Verified, validate
from h5fast.writer import Writer

__all__ = [
    "ChunkCache",
    "CorruptChunkError",
    "CorruptFileError",
    "Dataset",
    "Field",
    "File",
    "FileTree",
    "Group",
    "H5FastError",
    "HDF5Matrix",
    "Loader",
    "Normalize",
    "ReadError",
    "RepackReport",
    "Spec",
    "TuneReport",
    "UnsupportedError",
    "Verified",
    "Writer",
    "__version__",
    "chunk_cache",
    "get_num_threads",
    "mix",
    "pack",
    "partition",
    "patch",
    "patched",
    "repack",
    "set_num_threads",
    "split",
    "tune",
    "unpatch",
    "validate",
    "write_generator",
    "write_predict_generator",
    "write_split",
]

__version__: str

# Modules for frameworks, each of which imports its own: not before somebody asks for one.
_FRAMEWORKS = ("grain", "keras", "tensorflow", "torch")


def __getattr__(name: str) -> Any:
    """Names that h5fast does not define come from h5py: ``h5fast.string_dtype``, ``h5fast.h5t``, ``h5fast.version`` …

    ``h5fast.keras`` and its like are imported here. Raises ``ImportError`` if their framework is not installed.
    """
    if name == "__version__":
        return _version()
    if name in _FRAMEWORKS:
        try:
            return importlib.import_module(f"{__name__}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{__name__}.{name}":
                raise
    # Python looks for names of its own (__wrapped__, __path__ …) on any module: they must not be answered by another one.
    if not name.startswith("__"):
        try:
            return getattr(_h5py, name)
        except AttributeError:
            pass
    raise AttributeError(f"neither h5fast nor h5py has the attribute {name!r}", name=name, obj=sys.modules[__name__])


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in dir(_h5py) if not name.startswith("_"))})


def _version() -> str:
    """The version of the installed distribution, which is the only place that states it."""
    from importlib.metadata import PackageNotFoundError, version  # here, because it takes longer than the rest of h5fast

    try:
        return version("h5fast")
    except PackageNotFoundError:  # run from a source tree
        return "0+unknown"
