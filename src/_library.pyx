# cython: language_level=3
"""C functions out of the libraries that Python has loaded already.

The one place that knows how to find them: the HDF5 C API in h5py's own libhdf5, libdeflate in the extension module of the
package ``deflate``, zlib behind Python's ``zlib``, and filter plugins in ``hdf5plugin``. Each is looked up on the handle
of the module that loaded it, never globally: PyTables or netCDF4 bring further copies of libhdf5 into a process, whose
identifiers mean something else.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

import importlib.util
import os
import tempfile
import zlib

import h5py
import h5py.defs


cdef extern from "dlfcn.h" nogil:
    void *dlopen(const char *path, int flags)
    void *dlsym(void *handle, const char *name)
    char *dlerror()
    int RTLD_LAZY, RTLD_LOCAL, RTLD_NOLOAD

cdef class Library:
    """A loaded shared library; symbols are found in it and what it was linked with."""
    cdef void *handle
    cdef readonly str path

    def __init__(self, path, *, bint loaded=True):
        self.path = os.fspath(path)
        encoded = os.fsencode(self.path)
        self.handle = dlopen(encoded, RTLD_LAZY | RTLD_LOCAL | (RTLD_NOLOAD if loaded else 0))
        if self.handle == NULL:
            reason = dlerror()
            raise ImportError(f"cannot open {self.path}: {reason.decode() if reason != NULL else 'it is not loaded'}")

    cdef void *find(self, str name):
        return dlsym(self.handle, name.encode())

    cdef void *require(self, str name) except NULL:
        cdef void *symbol = self.find(name)
        if symbol == NULL:
            raise ImportError(f"h5fast needs the function {name}, which {self.path} does not offer "
                              f"(h5py {h5py.version.version}, HDF5 {h5py.version.hdf5_version})")
        return symbol


cdef h5fast_hdf5_api hdf5
cdef list kept_open = []  # never closed again: other threads may be inside them


cdef int resolve_hdf5() except -1:
    cdef Library library = Library(h5py.defs.__file__)
    hdf5.chunk_iter = <int (*)(h5_hid, h5_hid, h5_chunk_callback, void *) noexcept>library.require("H5Dchunk_iter")
    hdf5.get_chunk_index_type = <int (*)(h5_hid, int *) noexcept>library.require("H5Dget_chunk_index_type")
    hdf5.get_chunk_opts = <int (*)(h5_hid, unsigned *) noexcept>library.require("H5Pget_chunk_opts")
    hdf5.set_fill_value = <int (*)(h5_hid, h5_hid, const void *) noexcept>library.require("H5Pset_fill_value")
    hdf5.get_chunk_storage_size = (
        <int (*)(h5_hid, const uint64_t *, uint64_t *) noexcept>
        library.require("H5Dget_chunk_storage_size"))
    hdf5.read_chunk2 = (
        <int (*)(h5_hid, h5_hid, const uint64_t *, uint32_t *, void *, size_t *) noexcept>
        library.find("H5Dread_chunk2"))
    cdef void *older = library.find("H5Dread_chunk1")
    if older == NULL:
        older = library.require("H5Dread_chunk")
    hdf5.read_chunk1 = (
        <int (*)(h5_hid, h5_hid, const uint64_t *, uint32_t *, void *) noexcept>older)
    hdf5.write_chunk = (
        <int (*)(h5_hid, h5_hid, uint32_t, const uint64_t *, size_t, const void *) noexcept>library.require("H5Dwrite_chunk"))
    resolve_objects(library)
    return 0


cdef int resolve_objects(Library library) except -1:
    """What looks through groups and at the datasets in them."""
    hdf5.link_iterate = <int (*)(h5_hid, int, int, uint64_t *, h5_link_callback, void *) noexcept>library.require("H5Literate2")
    hdf5.object_open = <h5_hid (*)(h5_hid, const char *, h5_hid) noexcept>library.require("H5Oopen")
    hdf5.object_open_by_token = <h5_hid (*)(h5_hid, h5_token) noexcept>library.require("H5Oopen_by_token")
    hdf5.object_close = <int (*)(h5_hid) noexcept>library.require("H5Oclose")
    hdf5.object_info = <int (*)(h5_hid, h5_object *, unsigned) noexcept>library.require("H5Oget_info3")
    hdf5.link_info = <int (*)(h5_hid, const char *, h5_link *, h5_hid) noexcept>library.require("H5Lget_info2")
    hdf5.dataset_type = <h5_hid (*)(h5_hid) noexcept>library.require("H5Dget_type")
    hdf5.dataset_space = <h5_hid (*)(h5_hid) noexcept>library.require("H5Dget_space")
    hdf5.dataset_offset = <uint64_t (*)(h5_hid) noexcept>library.require("H5Dget_offset")
    hdf5.type_class = <int (*)(h5_hid) noexcept>library.require("H5Tget_class")
    hdf5.type_size = <size_t (*)(h5_hid) noexcept>library.require("H5Tget_size")
    hdf5.type_sign = <int (*)(h5_hid) noexcept>library.require("H5Tget_sign")
    hdf5.type_precision = <size_t (*)(h5_hid) noexcept>library.require("H5Tget_precision")
    hdf5.type_close = <int (*)(h5_hid) noexcept>library.require("H5Tclose")
    hdf5.space_rank = <int (*)(h5_hid) noexcept>library.require("H5Sget_simple_extent_ndims")
    hdf5.space_points = <int64_t (*)(h5_hid) noexcept>library.require("H5Sget_simple_extent_npoints")
    hdf5.space_close = <int (*)(h5_hid) noexcept>library.require("H5Sclose")
    hdf5.space_extents = <int (*)(h5_hid, uint64_t *, uint64_t *) noexcept>library.require("H5Sget_simple_extent_dims")
    hdf5.type_equal = <int (*)(h5_hid, h5_hid) noexcept>library.require("H5Tequal")
    hdf5.dataset_properties = <h5_hid (*)(h5_hid) noexcept>library.require("H5Dget_create_plist")
    hdf5.properties_close = <int (*)(h5_hid) noexcept>library.require("H5Pclose")
    hdf5.properties_layout = <int (*)(h5_hid) noexcept>library.require("H5Pget_layout")
    hdf5.properties_chunk = <int (*)(h5_hid, int, uint64_t *) noexcept>library.require("H5Pget_chunk")
    hdf5.properties_filters = <int (*)(h5_hid) noexcept>library.require("H5Pget_nfilters")
    hdf5.properties_filter = <int (*)(h5_hid, unsigned, unsigned *, size_t *, unsigned *, size_t, char *, unsigned *) noexcept>library.require("H5Pget_filter2")
    hdf5.attribute_exists = <int (*)(h5_hid, const char *) noexcept>library.require("H5Aexists")
    hdf5.attribute_open = <h5_hid (*)(h5_hid, const char *, h5_hid) noexcept>library.require("H5Aopen")
    hdf5.attribute_space = <h5_hid (*)(h5_hid) noexcept>library.require("H5Aget_space")
    hdf5.attribute_read = <int (*)(h5_hid, h5_hid, void *) noexcept>library.require("H5Aread")
    hdf5.attribute_close = <int (*)(h5_hid) noexcept>library.require("H5Aclose")
    return 0


cdef bint find_libdeflate(h5fast_inflate_api *inflating, h5fast_deflate_api *deflating):
    """libdeflate from the package ``deflate``; False where that does not export the C functions."""
    if importlib.util.find_spec("deflate") is None:
        return False
    spec = importlib.util.find_spec("deflate._deflate")
    if spec is None or spec.origin is None:
        return False
    try:
        library = Library(spec.origin, loaded=False)
    except ImportError:
        return False
    cdef Library found = library
    inflating.alloc_decompressor = <void *(*)() noexcept nogil>found.find("libdeflate_alloc_decompressor")
    inflating.free_decompressor = <void (*)(void *) noexcept nogil>found.find("libdeflate_free_decompressor")
    inflating.zlib_decompress_ex = (
        <int (*)(void *, const void *, size_t, void *, size_t, size_t *, size_t *) noexcept nogil>
        found.find("libdeflate_zlib_decompress_ex"))
    deflating.alloc_compressor = <void *(*)(int) noexcept nogil>found.find("libdeflate_alloc_compressor")
    deflating.free_compressor = <void (*)(void *) noexcept nogil>found.find("libdeflate_free_compressor")
    deflating.zlib_compress = (
        <size_t (*)(void *, const void *, size_t, void *, size_t) noexcept nogil>found.find("libdeflate_zlib_compress"))
    kept_open.append(library)
    if (inflating.alloc_decompressor != NULL and inflating.free_decompressor != NULL and inflating.zlib_decompress_ex != NULL
            and deflating.alloc_compressor != NULL and deflating.free_compressor != NULL and deflating.zlib_compress != NULL):
        return True
    inflating.alloc_decompressor = NULL
    deflating.alloc_compressor = NULL
    return False


cdef int find_zlib(h5fast_inflate_api *inflating, h5fast_deflate_api *deflating) except -1:
    """zlib: what libhdf5 itself decodes and encodes with, else what Python's ``zlib`` module was linked with."""
    cdef Library found
    paths = [h5py.defs.__file__]
    if getattr(zlib, "__file__", None):
        paths.append(zlib.__file__)
    for path in paths:
        found = Library(path)
        inflating.inflate_init = <int (*)(void *, const char *, int) noexcept nogil>found.find("inflateInit_")
        inflating.inflate = <int (*)(void *, int) noexcept nogil>found.find("inflate")
        inflating.inflate_end = <int (*)(void *) noexcept nogil>found.find("inflateEnd")
        deflating.compress2 = (
            <int (*)(uint8_t *, unsigned long *, const uint8_t *, unsigned long, int) noexcept nogil>found.find("compress2"))
        if (inflating.inflate_init != NULL and inflating.inflate != NULL and inflating.inflate_end != NULL
                and deflating.compress2 != NULL):
            return 0
    raise ImportError("h5fast found neither libdeflate (pip install deflate) nor zlib to decode and encode gzip with")


resolve_hdf5()


# --- filter plugins ---------------------------------------------------------------------------------------------------

ctypedef struct plugin_class:  # H5Z_class2_t
    int version
    int id
    unsigned encoder_present
    unsigned decoder_present
    const char *name
    void *can_apply
    void *set_local
    void *filter

ALLOWED_PLUGINS: dict = {
    307: "bzip2",
    32001: "blosc",
    32004: "lz4",
    32008: "bshuf",
    32015: "zstd",
    32026: "blosc2",
}
"""Filter id and hdf5plugin's library of the plugins that are known to decode correctly outside libhdf5's lock."""

cdef dict plugins = {}  # id -> (Library, address of the filter function) or None


cdef object load_private(str path):
    """A copy of a plugin's library that is not the one h5py uses.

    hdf5plugin hands its own copies libhdf5's functions, and then their error paths call H5Epush2 without libhdf5's lock.
    A copy under another inode is a library of its own, whose HDF5 calls do nothing.
    """
    with open(path, "rb") as file:
        content = file.read()
    if hasattr(os, "memfd_create"):
        # Stays open: the dynamic loader knows libraries by path, and a number used again would bring back this one.
        descriptor = os.memfd_create(os.path.basename(path), os.MFD_CLOEXEC)
        with open(descriptor, "wb", closefd=False) as copy:
            copy.write(content)
        return Library(f"/proc/self/fd/{descriptor}", loaded=False)
    with tempfile.NamedTemporaryFile(suffix=os.path.basename(path)) as copy:
        copy.write(content)
        copy.flush()
        return Library(copy.name, loaded=False)


cdef object load_plugin(int filter_id):
    if filter_id not in ALLOWED_PLUGINS:
        return None
    spec = importlib.util.find_spec("hdf5plugin")
    if spec is None or spec.origin is None:
        return None
    path = os.path.join(os.path.dirname(spec.origin), "plugins", f"libh5{ALLOWED_PLUGINS[filter_id]}.so")
    try:
        library = load_private(path)
    except (OSError, ImportError):
        return None  # not built for this platform: HDF5 reads the chunks
    cdef plugin_class *(*get_info)() noexcept
    get_info = <plugin_class *(*)() noexcept>(<Library>library).find("H5PLget_plugin_info")
    if get_info == NULL:
        return None
    cdef plugin_class *info = get_info()
    if info == NULL or info.version != 1 or info.id != filter_id or info.filter == NULL:
        return None
    return library, <size_t>info.filter


cdef void *plugin_filter(int filter_id):
    """The decoder of an allowed plugin, NULL where there is none. Needs the GIL."""
    if filter_id not in plugins:
        plugins[filter_id] = load_plugin(filter_id)
    found = plugins[filter_id]
    return <void *><size_t>found[1] if found is not None else NULL


def has_plugin(int filter_id) -> bool:
    """Whether chunks of this filter are decoded by a private copy of its plugin."""
    return plugin_filter(filter_id) != NULL
