#include "header.h"

#include <string.h>

/* A header of a plain dataset with two attributes takes some 500 bytes. More blocks than these are read by libhdf5. */
enum { BLOCK_BYTES = 1024, MOST_BLOCKS = 4, PREFIX_BYTES = 16, MESSAGE_BYTES = 8 };
/* Of a B-tree node, its head, two keys and the child between them. */
enum { NODE_HEAD = 24, KEY_BYTES = 8 + 8 * (H5FAST_HEADER_RANK + 1), NODE_BYTES = NODE_HEAD + 2 * KEY_BYTES + 8 };

enum { DATASPACE = 1, DATATYPE = 3, FILL_VALUE = 5, LAYOUT = 8, FILTERS = 11, ATTRIBUTE = 12, CONTINUATION = 16,
       MODIFICATION_TIME = 18 };
enum { CONTIGUOUS = 1, CHUNKED = 2 };
static const uint64_t UNDEFINED = UINT64_MAX; /* HADDR_UNDEF */
static const uint64_t MOST_BYTES = (uint64_t)1 << 59;

/* Bytes that are left of a message. */
typedef struct {
    const uint8_t *at;
    size_t left;
} bytes;

typedef struct {
    h5fast_fetch fetch;
    void *context;
    const h5fast_stored_type *types;
    int type_count;
    h5fast_header *out;
    uint32_t seen; /* a bit for each type of message */
    uint64_t next, next_size; /* the block that a continuation message names; 0: none */
    int class, chunk_rank;
    uint64_t tree;            /* the address of the chunks' B-tree */
    uint32_t chunk[H5FAST_HEADER_RANK + 1];
    uint64_t contiguous_bytes;
} parser;

static int skip(bytes *from, size_t count)
{
    if (count > from->left)
        return 0;
    from->at += count;
    from->left -= count;
    return 1;
}

/* A little-endian number of so many bytes; the caller has made sure that they are there. */
static uint64_t number_at(const uint8_t *at, int size)
{
    uint64_t value = 0;
    for (int i = size - 1; i >= 0; i--)
        value = value << 8 | at[i];
    return value;
}

static int take(bytes *from, int size, uint64_t *value)
{
    if ((size_t)size > from->left)
        return 0;
    *value = number_at(from->at, size);
    return skip(from, size);
}

static int is_zero(const uint8_t *at, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (at[i] != 0)
            return 0;
    return 1;
}

/* The rank of a simple dataspace, its extents noted; 0 for a scalar; -1 for any other, or one of too many axes. */
static int read_dataspace(bytes from, uint64_t *extents)
{
    if (from.left < 8)
        return -1;
    int version = from.at[0], rank = from.at[1], flags = from.at[2];
    if (rank > H5FAST_HEADER_RANK || flags > 1)
        return -1;
    if (version == 2 ? from.at[3] != (rank > 0) : version != 1 || !is_zero(from.at + 3, 5))
        return -1;
    if (!skip(&from, version == 1 ? 8 : 4) || from.left < (size_t)rank * 8 * (flags + 1))
        return -1;
    for (int axis = 0; axis < rank; axis++) {
        extents[axis] = number_at(from.at + 8 * axis, 8);
        if (flags && extents[axis] > number_at(from.at + 8 * (rank + axis), 8))
            return -1;
    }
    return rank;
}

static int read_type(const parser *p, bytes from)
{
    for (int i = 0; i < p->type_count; i++)
        if (from.left >= p->types[i].length && memcmp(from.at, p->types[i].message, p->types[i].length) == 0)
            return i;
    return -1;
}

/* Version 2: when room is made, when the value is written, whether there is one. Where all is stored it matters no more. */
static int read_fill_value(bytes from)
{
    if (from.left < 4 || from.at[0] != 2 || from.at[1] < 1 || from.at[1] > 3 || from.at[2] > 2 || from.at[3] > 1)
        return 0;
    uint64_t size = 0;
    return from.at[3] == 0 || (skip(&from, 4) && take(&from, 4, &size) && size <= from.left);
}

static int read_layout(parser *p, bytes from)
{
    if (from.left < 2 || from.at[0] != 3)
        return 0;
    p->class = from.at[1];
    (void)skip(&from, 2);
    if (p->class == CONTIGUOUS)
        return take(&from, 8, &p->out->address) && take(&from, 8, &p->contiguous_bytes);
    uint64_t rank, size;
    if (p->class != CHUNKED || !take(&from, 1, &rank) || rank < 2 || rank > H5FAST_HEADER_RANK + 1 || !take(&from, 8, &p->tree))
        return 0;
    p->chunk_rank = (int)rank - 1; /* the last axis is the element's bytes */
    for (int axis = 0; axis <= p->chunk_rank; axis++) {
        if (!take(&from, 4, &size))
            return 0;
        p->chunk[axis] = (uint32_t)size;
    }
    return 1;
}

static int read_filter(bytes *from, uint64_t version, h5fast_header_filter *filter)
{
    uint64_t id, name = 0, flags, count, value;
    if (!take(from, 2, &id) || ((version == 1 || id >= 256) && !take(from, 2, &name)) || !take(from, 2, &flags) ||
        !take(from, 2, &count))
        return 0;
    if (id == 0 || flags > 1 || count > H5FAST_HEADER_VALUES || (version == 1 && name % 8 != 0) || !skip(from, name))
        return 0;
    filter->id = (uint32_t)id;
    filter->count = (uint32_t)count;
    for (uint64_t i = 0; i < count; i++) {
        if (!take(from, 4, &value))
            return 0;
        filter->values[i] = (uint32_t)value;
    }
    return version != 1 || count % 2 == 0 || skip(from, 4);
}

static int read_filters(parser *p, bytes from)
{
    uint64_t version, count;
    if (!take(&from, 1, &version) || !take(&from, 1, &count) || version < 1 || version > 2 || count < 1 ||
        count > H5FAST_HEADER_FILTERS || (version == 1 && !skip(&from, 6)))
        return 0;
    for (uint64_t i = 0; i < count; i++)
        if (!read_filter(&from, version, &p->out->filters[i]))
            return 0;
    p->out->filter_count = (uint32_t)count;
    return 1;
}

/* One whole number: little-endian, of 4 or 8 bytes, as H5VFS and this project write them. */
static int read_whole_number(bytes type, bytes space, bytes data, int64_t *value)
{
    static const uint8_t integer[] = {0x10, 0, 0, 0};
    uint64_t extent = 1;
    if (type.left < 12 || type.at[0] != integer[0] || (type.at[1] & ~8) != 0 || !is_zero(type.at + 2, 2))
        return 0;
    uint64_t size = number_at(type.at + 4, 4), precision = number_at(type.at + 10, 2);
    int is_signed = type.at[1] == 8, rank = read_dataspace(space, &extent);
    if ((size != 4 && size != 8) || precision != 8 * size || number_at(type.at + 8, 2) != 0 || rank < 0 || rank > 1 ||
        extent != 1 || data.left < size)
        return 0;
    uint64_t stored = number_at(data.at, (int)size);
    if (size == 8 && !is_signed && stored > INT64_MAX)
        return 0;
    *value = size == 4 && is_signed ? (int64_t)(int32_t)stored : (int64_t)stored;
    return 1;
}

static size_t padded(uint64_t size)
{
    return (size_t)(size + 7) / 8 * 8;
}

/* Notes the two attributes that matter; version 1, in which each part is filled up to 8 bytes. */
static int read_attribute(parser *p, bytes from)
{
    static const char modified[] = "Modified", permissions[] = "Permissions";
    p->out->has_attributes = 1;
    if (from.left < 8 || from.at[0] != 1)
        return 0;
    uint64_t name_size = number_at(from.at + 2, 2), type_size = number_at(from.at + 4, 2);
    uint64_t space_size = number_at(from.at + 6, 2);
    (void)skip(&from, 8);
    const uint8_t *name = from.at;
    if (name_size < 1 || !skip(&from, padded(name_size)) || memchr(name, 0, name_size) != name + name_size - 1)
        return 0;
    int is_modified = name_size == sizeof modified && memcmp(name, modified, sizeof modified) == 0;
    int is_permissions = name_size == sizeof permissions && memcmp(name, permissions, sizeof permissions) == 0;
    bytes type = {from.at, type_size}, space = {from.at + padded(type_size), space_size};
    if (padded(type_size) > from.left || padded(space_size) > from.left - padded(type_size))
        return 0;
    (void)skip(&from, padded(type_size) + padded(space_size));
    int64_t value;
    if (!is_modified && !is_permissions)
        return 1;
    if (!read_whole_number(type, space, from, &value))
        return 0;
    if (is_modified)
        p->out->modified = value;
    else if (value >= 0 && value <= UINT32_MAX)
        p->out->permissions = (uint32_t)value;
    return 1;
}

static int read_message(parser *p, unsigned type, bytes from)
{
    static const uint32_t once = 1u << DATASPACE | 1u << DATATYPE | 1u << FILL_VALUE | 1u << LAYOUT | 1u << FILTERS;
    if (type > MODIFICATION_TIME || (p->seen & once & 1u << type) != 0)
        return 0;
    p->seen |= 1u << type;
    switch (type) {
    case 0: /* nothing */
    case MODIFICATION_TIME:
        return 1;
    case DATASPACE:
        p->out->rank = read_dataspace(from, p->out->extents);
        return p->out->rank > 0;
    case DATATYPE:
        p->out->type = read_type(p, from);
        return p->out->type >= 0;
    case FILL_VALUE:
        return read_fill_value(from);
    case LAYOUT:
        return read_layout(p, from);
    case FILTERS:
        return read_filters(p, from);
    case ATTRIBUTE:
        return read_attribute(p, from);
    case CONTINUATION:
        return p->next == 0 /* each block may name one */ && take(&from, 8, &p->next) && take(&from, 8, &p->next_size) && p->next != 0;
    }
    return 0;
}

/* The messages of a block, which fill it; how many they are, -1 for what is not understood. */
static int read_block(parser *p, bytes from)
{
    int count = 0;
    while (from.left > 0) {
        if (from.left < MESSAGE_BYTES)
            return -1;
        unsigned type = (unsigned)number_at(from.at, 2), flags = from.at[4];
        uint64_t size = number_at(from.at + 2, 2);
        /* Flag 1: the message is constant. Others: it lies elsewhere, or there is more to it. */
        if (flags > 1 || size % 8 != 0 || !is_zero(from.at + 5, 3) || !skip(&from, MESSAGE_BYTES) || size > from.left)
            return -1;
        if (!read_message(p, type, (bytes){from.at, size}))
            return -1;
        (void)skip(&from, size);
        count++;
    }
    return count;
}

static int read_blocks(parser *p, uint64_t address)
{
    uint8_t block[BLOCK_BYTES];
    size_t there = p->fetch(p->context, address, sizeof block, block);
    if (there < PREFIX_BYTES || block[0] != 1 || block[1] != 0 || !is_zero(block + 12, 4))
        return 0;
    uint64_t messages = number_at(block + 2, 2), links = number_at(block + 4, 4), size = number_at(block + 8, 4);
    if (links == 0 || size > there - PREFIX_BYTES)
        return 0;
    int count = read_block(p, (bytes){block + PREFIX_BYTES, size}), found = count;
    for (int blocks = 1; count >= 0 && p->next != 0; blocks++) {
        uint64_t from = p->next;
        p->next = 0;
        if (blocks == MOST_BLOCKS || p->next_size > sizeof block ||
            p->fetch(p->context, from, p->next_size, block) != p->next_size)
            return 0;
        count = read_block(p, (bytes){block, p->next_size});
        found += count;
    }
    return count >= 0 && (uint64_t)found == messages;
}

/* The one chunk of a dataset, of which the B-tree is one leaf with one entry. */
static int find_chunk(parser *p)
{
    h5fast_header *out = p->out;
    uint8_t node[NODE_BYTES];
    size_t key = 8 + 8 * ((size_t)out->rank + 1), size = NODE_HEAD + 2 * key + 8;
    if (p->tree == 0 || p->tree == UNDEFINED || p->fetch(p->context, p->tree, size, node) != size)
        return 0;
    static const uint8_t head[] = {'T', 'R', 'E', 'E', 1 /* of chunks */, 0 /* a leaf */, 1, 0 /* one entry */};
    if (memcmp(node, head, sizeof head) != 0 || number_at(node + 8, 8) != UNDEFINED || number_at(node + 16, 8) != UNDEFINED)
        return 0;
    const uint8_t *first = node + NODE_HEAD, *last = first + key + 8;
    if (!is_zero(first + 8, key - 8))
        return 0;
    for (int axis = 0; axis <= out->rank; axis++) /* the key behind it: one chunk further on each axis */
        if (number_at(last + 8 + 8 * axis, 8) != p->chunk[axis])
            return 0;
    out->stored = number_at(first, 4);
    out->mask = (uint32_t)number_at(first + 4, 4);
    out->address = number_at(first + key, 8);
    return out->filter_count > 0 ? out->stored > 0 : out->stored == out->bytes;
}

static int find_bytes(parser *p)
{
    h5fast_header *out = p->out;
    uint64_t itemsize = p->types[out->type].size;
    out->bytes = itemsize;
    for (int axis = 0; axis < out->rank; axis++) {
        if (out->extents[axis] == 0 || out->extents[axis] > MOST_BYTES / out->bytes)
            return 0;
        out->bytes *= out->extents[axis];
    }
    if (p->class == CONTIGUOUS) {
        out->stored = out->bytes;
        return out->filter_count == 0 && p->contiguous_bytes == out->bytes;
    }
    if (p->chunk_rank != out->rank || p->chunk[out->rank] != itemsize || out->bytes > UINT32_MAX)
        return 0;
    for (int axis = 0; axis < out->rank; axis++)
        if (p->chunk[axis] != out->extents[axis])
            return 0;
    return find_chunk(p);
}

int h5fast_header_read(h5fast_fetch fetch, void *context, uint64_t file_bytes, uint64_t address,
                       const h5fast_stored_type *types, int type_count, h5fast_header *out)
{
    static const uint32_t needed = 1u << DATASPACE | 1u << DATATYPE | 1u << FILL_VALUE | 1u << LAYOUT;
    parser p = {.fetch = fetch, .context = context, .types = types, .type_count = type_count, .out = out};
    memset(out, 0, sizeof *out);
    out->modified = INT64_MIN;
    if (!read_blocks(&p, address) || (p.seen & needed) != needed || !find_bytes(&p))
        return 0;
    return out->address != 0 && out->stored <= file_bytes && out->address <= file_bytes - out->stored;
}
