# cython: language_level=3
"""The members of a group: what each link leads to and, of the usual file (contiguous, or one chunk), where its bytes lie.

One pass of libhdf5 over the group, without an h5py object for each member. It reads metadata only. What the headers of plain
datasets say is read from the file's bytes (src/header.h) where these may be read, which takes a tenth of the time; libhdf5 is
asked of all others.
"""

from h5py import h5t
from h5py._objects import phil
import numpy as np

from h5fast.errors import CorruptFileError

cimport numpy as cnp
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport INT64_MIN, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset, strlen
from posix.unistd cimport pread

from h5fast._library cimport (H5_INDEX_BY_NAME, H5_INFO_ATTRIBUTES, H5_INFO_BASIC, H5_ITERATE_UPWARDS, H5_LINK_HARD,
                              H5_LAYOUT_CHUNKED, H5_OBJECT_DATASET, H5_OBJECT_GROUP,
                              H5_SIGN_NONE, H5_TYPE_INTEGER, h5_hid, h5_link, h5_object, hdf5)

from h5fast._gather cimport Source

cnp.import_array()

cdef extern from "header.h":
    enum: H5FAST_HEADER_RANK
    ctypedef size_t (*h5fast_fetch)(void *context, uint64_t offset, size_t size, uint8_t *out) noexcept
    ctypedef struct h5fast_stored_type:
        const uint8_t *message
        size_t length
        uint32_t size
    ctypedef struct h5fast_header_filter:
        uint32_t id, count
        uint32_t *values
    ctypedef struct h5fast_header:
        int rank
        uint64_t *extents
        int type
        uint64_t bytes, address, stored
        uint32_t mask, filter_count
        h5fast_header_filter *filters
        int has_attributes
        int64_t modified
        uint32_t permissions
    bint h5fast_header_read(h5fast_fetch fetch, void *context, uint64_t file_bytes, uint64_t address,
                            const h5fast_stored_type *types, int type_count, h5fast_header *out)

MEMBER: np.dtype = np.dtype([
    ("object", "<u8"), ("size", "<u8"), ("address", "<u8"), ("stored", "<u8"), ("chunk_bytes", "<u8"), ("offset", "<u8"),
    ("modified", "<i8"), ("permissions", "<u4"), ("mask", "<u4"), ("chunks", "<u4"), ("pipeline", "<i4"), ("head", "<u4"),
    ("kind", "u1"), ("attributes", "u1"), ("reserved", "<u2"),
])
"""What is known of a member of a file, in 80 bytes.

object       address of its header in the file; 0 where it has none of its own
size         bytes of its content without head; UNKNOWN until the dataset is looked at
address      of its first stored byte; where `chunks` is above 1, the first of its chunks' places in the table of chunks
stored       bytes that its chunk takes in the file
chunk_bytes  bytes of a decoded chunk
offset       where in the first chunk it begins
modified     seconds since 1970, NO_TIME where nothing tells
permissions  as stat has them, 0 where nothing tells
mask         filter mask of its chunk
chunks       stored chunks that it lies in
pipeline     which of the pipelines decodes its chunks; BY_HDF5 where only HDF5 reads it, NOT_LOOKED_AT before that is known
head         which of the heads comes before its content, 0 for none
kind         FOLDER, FILE, LINK or OTHER
attributes   1 where it has attributes
"""

FOLDER: int = 0
FILE: int = 1
LINK: int = 2
OTHER: int = 3
BY_HDF5: int = -1
NOT_LOOKED_AT: int = -2
UNKNOWN: int = 2**64 - 1
NO_TIME: int = -2**63

ctypedef packed struct h5_member:
    uint64_t object, size, address, stored, chunk_bytes, offset
    int64_t modified
    uint32_t permissions, mask, chunks
    int32_t pipeline
    uint32_t head
    uint8_t kind, attributes
    char reserved[2]

cdef enum:
    IS_FOLDER = 0, IS_FILE = 1, IS_LINK = 2, IS_OTHER = 3
    IS_NOT_LOOKED_AT = -2

cdef uint64_t NOWHERE = <uint64_t>-1  # HADDR_UNDEF

if MEMBER.itemsize != sizeof(h5_member):
    raise ImportError(f"MEMBER has {MEMBER.itemsize} bytes in NumPy and {sizeof(h5_member)} in C")

# libhdf5's numbers of what attributes are read as.
cdef h5_hid NATIVE_INT64 = h5t.NATIVE_INT64.id
cdef const char *MODIFIED = b"Modified"
cdef const char *PERMISSIONS = b"Permissions"


cdef class _Found:
    """What a pass collects."""
    cdef list names, forms
    cdef h5_member *members
    cdef size_t count, capacity
    cdef bint user_block
    cdef int descriptor  # of the file, where headers may be read from it; else -1
    cdef uint64_t file_bytes
    cdef object error

    def __dealloc__(self):
        free(self.members)

    cdef h5_member *add(self) except NULL:
        cdef h5_member *grown
        if self.count == self.capacity:
            self.capacity = 2 * self.capacity if self.capacity > 0 else 64
            grown = <h5_member *>realloc(self.members, self.capacity * sizeof(h5_member))
            if grown == NULL:
                raise MemoryError(f"no memory for more than {self.count} members")
            self.members = grown
        memset(&self.members[self.count], 0, sizeof(h5_member))
        self.members[self.count].modified = INT64_MIN
        self.count += 1
        return &self.members[self.count - 1]

    cdef object array(self):
        cdef cnp.ndarray result = np.empty(self.count, MEMBER)
        if self.count > 0:
            memcpy(cnp.PyArray_DATA(result), self.members, self.count * sizeof(h5_member))
        return result


cdef bint read_number(h5_hid object, const char *name, int64_t *value) noexcept:
    """The value of an attribute that is one whole number."""
    cdef h5_hid attribute, space
    cdef int64_t points = 0
    cdef int status = -1
    if hdf5.attribute_exists(object, name) <= 0:
        return False
    attribute = hdf5.attribute_open(object, name, 0)
    if attribute < 0:
        return False
    space = hdf5.attribute_space(attribute)
    if space >= 0:
        points = hdf5.space_points(space)
        hdf5.space_close(space)
    if points == 1:  # else it would be read beyond the one number; other types than numbers do not convert
        status = hdf5.attribute_read(attribute, NATIVE_INT64, value)
    hdf5.attribute_close(attribute)
    return status >= 0


cdef bint is_bytes(h5_hid type) noexcept:
    return (type >= 0 and hdf5.type_class(type) == H5_TYPE_INTEGER and hdf5.type_size(type) == 1
            and hdf5.type_sign(type) == H5_SIGN_NONE and hdf5.type_precision(type) == 8)


# Types that a dataset of numbers may be stored as, and NumPy's names for them: their elements are the same bytes.
STORED_TYPES: tuple = tuple(np.dtype(name) for name in (
    "|u1", "|i1", "<f4", "<f8", "<i4", "<i8", "<i2", "<u2", "<u4", "<u8", "<f2", ">f4", ">f8", ">i2", ">i4", ">i8"))
"""By their numbers in Form."""

cdef enum:
    MOST_TYPES = 16
    MOST_VALUES = 64  # numbers that a filter has as options; more are left to the slow way
    MOST_FILTERS = 8
    MOST_RANK = 32

cdef h5_hid[MOST_TYPES] stored_types
cdef list type_objects = [h5t.py_create(dtype) for dtype in STORED_TYPES]  # keeps the identifiers alive


cdef int note_types() except -1:
    for number, object in enumerate(type_objects):
        stored_types[number] = object.id
    return 0


note_types()

# The same as datatype messages: what H5Tencode gives has two bytes in front.
cdef h5fast_stored_type[MOST_TYPES] type_messages
cdef list encoded_types = [object.encode()[2:] for object in type_objects]


cdef int note_messages() except -1:
    for number, message in enumerate(encoded_types):
        type_messages[number].message = <const uint8_t *><const char *>message
        type_messages[number].length = len(message)
        type_messages[number].size = STORED_TYPES[number].itemsize
    return 0


note_messages()


cdef int number_of_type(h5_hid type) noexcept:
    """Which of STORED_TYPES it is; -1 for none."""
    cdef int number
    if is_bytes(type):
        return 0
    for number in range(1, MOST_TYPES):
        if hdf5.type_equal(type, stored_types[number]) > 0:
            return number
    return -1


ctypedef struct h5_only_chunk:
    uint64_t address, size
    unsigned mask
    uint64_t count


cdef int take_chunk(const uint64_t *offset, unsigned mask, uint64_t address, uint64_t size, void *context) noexcept:
    cdef h5_only_chunk *chunk = <h5_only_chunk *>context
    chunk.count += 1
    chunk.address, chunk.size, chunk.mask = address, size, mask
    return 0


cdef object filters_of(h5_hid properties):
    """(id, options) of each filter; None where they do not fit."""
    cdef unsigned values[MOST_VALUES]
    cdef unsigned flags
    cdef size_t count
    cdef int number, total = hdf5.properties_filters(properties), place
    found = []
    if total < 0 or total > MOST_FILTERS:
        return None
    for place in range(total):
        count = MOST_VALUES
        number = hdf5.properties_filter(properties, <unsigned>place, &flags, &count, values, 0, NULL, NULL)
        if number < 0 or count > MOST_VALUES:
            return None
        found.append((number, tuple([values[i] for i in range(count)])))
    return tuple(found)


cdef object find_chunk(h5_hid dataset, int rank, const uint64_t *extents, h5_member *member):
    """The filters of a dataset that is one chunk of just its size, which is noted; None for any other."""
    cdef uint64_t chunk[MOST_RANK]
    cdef uint64_t origin[MOST_RANK]
    cdef uint64_t size = 0
    cdef h5_only_chunk only
    cdef h5_hid properties = hdf5.dataset_properties(dataset)
    cdef int axis
    cdef bint fits
    if properties < 0:
        return None
    try:
        if (hdf5.properties_layout(properties) != H5_LAYOUT_CHUNKED
                or hdf5.properties_chunk(properties, MOST_RANK, chunk) != rank):
            return None
        fits = True
        for axis in range(rank):
            fits = fits and chunk[axis] == extents[axis]
            origin[axis] = 0
        filters = filters_of(properties) if fits else None
    finally:
        hdf5.properties_close(properties)
    memset(&only, 0, sizeof(only))
    if filters is None or hdf5.chunk_iter(dataset, 0, take_chunk, &only) < 0 or only.count != 1:
        return None
    # A damaged index may list a chunk that a search does not find, and libhdf5 then reads as if it were not there.
    if (only.address == NOWHERE or only.address == 0 or hdf5.get_chunk_storage_size(dataset, origin, &size) < 0
            or size != only.size):
        return None
    member.address, member.stored, member.mask = only.address, only.size, only.mask
    return filters


cdef object describe_dataset(h5_hid dataset, bint user_block, h5_member *member):
    """How long its content is and, of what is contiguous or one chunk, where it lies: (number of its type, shape, filters), or
    None where that says no more than a row of plain bytes, or where it has to be looked at in another way."""
    cdef uint64_t extents[MOST_RANK]
    cdef h5_hid type = hdf5.dataset_type(dataset), space
    cdef int number = number_of_type(type) if type >= 0 else -1, rank = -1, axis
    cdef int64_t points = -1
    member.kind = IS_FILE
    member.size = NOWHERE
    member.pipeline = IS_NOT_LOOKED_AT
    size = hdf5.type_size(type) if type >= 0 else 0
    if type >= 0:
        hdf5.type_close(type)
    space = hdf5.dataset_space(dataset) if number >= 0 else -1
    if space >= 0:
        rank = hdf5.space_rank(space)
        points = hdf5.space_points(space)
        if not 0 < rank <= MOST_RANK or hdf5.space_extents(space, extents, NULL) != rank:
            points = -1
        hdf5.space_close(space)
    if points < 0 or points > (<int64_t>1 << 59):
        return None
    if number == 0 and rank == 1:
        member.size = points
    if points == 0:
        member.pipeline = 0 if number == 0 and rank == 1 else IS_NOT_LOOKED_AT
        return None
    # Not of a file with a user block: libhdf5 then adds its size to the address even where there is none.
    member.address = NOWHERE if user_block else hdf5.dataset_offset(dataset)
    filters = ()
    if member.address == NOWHERE or member.address == 0:  # chunked, compact, external, virtual or not written yet
        member.address = 0
        filters = None if user_block else find_chunk(dataset, rank, extents, member)
        if filters is None:
            return None
    else:
        member.stored = points * size
    member.size = member.chunk_bytes = points * size
    member.chunks = 1
    if number == 0 and rank == 1 and filters == ():
        member.pipeline = 0
        return None
    return number, tuple([extents[axis] for axis in range(rank)]), filters


cdef size_t fetch(void *context, uint64_t offset, size_t size, uint8_t *out) noexcept:
    """Of what cannot be read in one go, nothing: libhdf5 is asked then."""
    cdef Py_ssize_t count
    if offset > <uint64_t>1 << 62:
        return 0
    count = pread((<int *>context)[0], out, size, <int64_t>offset)
    return <size_t>count if count > 0 else 0


cdef bint read_header(_Found found, uint64_t address, h5_member *member) except -1:
    """Notes a plain dataset from its header; False where libhdf5 has to be asked."""
    cdef h5fast_header header
    cdef uint32_t place, i
    cdef int axis
    if not h5fast_header_read(fetch, &found.descriptor, found.file_bytes, address, type_messages, MOST_TYPES, &header):
        return False
    member.kind = IS_FILE
    member.object, member.address, member.stored, member.mask = address, header.address, header.stored, header.mask
    member.size = member.chunk_bytes = header.bytes
    member.chunks = 1
    member.attributes = header.has_attributes
    member.modified, member.permissions = header.modified, header.permissions
    if header.type == 0 and header.rank == 1 and header.filter_count == 0:
        member.pipeline = 0
        return True
    member.pipeline = IS_NOT_LOOKED_AT
    filters = []
    for place in range(header.filter_count):
        values = [header.filters[place].values[i] for i in range(header.filters[place].count)]
        filters.append((header.filters[place].id, tuple(values)))
    shape = tuple([header.extents[axis] for axis in range(header.rank)])
    found.forms.append((found.count - 1, header.type, shape, tuple(filters)))
    return True


cdef int describe_object(_Found found, h5_hid object, h5_member *member) except -1:
    cdef h5_object info
    cdef int64_t value = 0
    memset(&info, 0, sizeof(info))
    member.kind = IS_OTHER
    if object < 0 or hdf5.object_info(object, &info, H5_INFO_BASIC | H5_INFO_ATTRIBUTES) < 0:
        return 0
    memcpy(&member.object, info.token.bytes, sizeof(member.object))
    if info.type == H5_OBJECT_GROUP:
        member.kind = IS_FOLDER
    elif info.type == H5_OBJECT_DATASET:
        form = describe_dataset(object, found.user_block, member)
        if form is not None:
            found.forms.append((found.count - 1, *form))
    else:
        return 0
    if info.attributes > 0:
        member.attributes = 1
        if read_number(object, MODIFIED, &value):
            member.modified = value
        if read_number(object, PERMISSIONS, &value) and 0 <= value <= 0xffffffff:
            member.permissions = <uint32_t>value
    return 0


cdef int note(_Found found, h5_hid group, const char *name, const h5_link *link) except -1:
    cdef h5_member *member = found.add()
    cdef h5_hid object
    cdef uint64_t address
    found.names.append(PyUnicode_DecodeUTF8(name, strlen(name), "surrogateescape"))
    if link.type != H5_LINK_HARD:
        member.kind = IS_LINK
        return 0
    if found.descriptor >= 0:
        memcpy(&address, link.target.token.bytes, sizeof(address))
        if read_header(found, address, member):
            return 0
        memset(member, 0, sizeof(h5_member))
        member.modified = INT64_MIN
    object = hdf5.object_open_by_token(group, link.target.token)
    describe_object(found, object, member)
    if object >= 0:
        hdf5.object_close(object)
    return 0


cdef int visit(h5_hid group, const char *name, const h5_link *link, void *context) noexcept:
    cdef _Found found = <_Found>context
    try:
        return note(found, group, name, link)
    except BaseException as error:
        found.error = error
        return -1


cdef _Found begin(bint user_block, Source source):
    cdef _Found found = _Found.__new__(_Found)
    found.names = []
    found.forms = []
    found.user_block = user_block
    found.descriptor = -1 if source is None or user_block else source.source.fd
    found.file_bytes = 0 if source is None else source.source.size
    return found


def scan(group_id, user_block: bool = False, Source source = None):
    """All members of an open group, in the order of their names' bytes.

    Args:
        group_id: h5py.h5g.GroupID
        user_block: whether the file has one
        source: its bytes, where headers may be read from them: addresses and lengths take 8 bytes, and nobody writes the file

    Returns:
        The names, bytes that are no UTF-8 escaped as the operating system's are; an array of MEMBER; and, of those that are
        one chunk or an array, (place in it, number of STORED_TYPES, shape, filters as (id, options)): the caller gives them
        their pipeline and head.

    Raises:
        CorruptFileError: libhdf5 cannot list the group.
    """
    cdef _Found found = begin(user_block, source)
    cdef uint64_t position = 0
    cdef int status = -1
    with phil:
        status = hdf5.link_iterate(group_id.id, H5_INDEX_BY_NAME, H5_ITERATE_UPWARDS, &position, visit, <void *>found)
    if found.error is not None:
        raise found.error
    if status < 0:
        raise CorruptFileError("libhdf5 cannot list the members of the group")
    return found.names, found.array(), found.forms


def look_up(group_id, list names, user_block: bool = False, Source source = None):
    """Some members of an open group, as :func:`scan` has them, without the names; `kind` is OTHER where there is none."""
    cdef _Found found = begin(user_block, source)
    cdef h5_link link
    for name in names:
        encoded = name.encode("utf-8", "surrogateescape")
        memset(&link, 0, sizeof(link))
        with phil:
            # An empty name, "." and one with a slash would be paths.
            if encoded in (b"", b".") or b"/" in encoded or b"\0" in encoded or \
                    hdf5.link_info(group_id.id, encoded, &link, 0) < 0:
                found.add().kind = IS_OTHER
            else:
                note(found, group_id.id, encoded, &link)
    return found.array(), found.forms
