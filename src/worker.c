#include "worker.h"

#include <string.h>

#include "shuffle.h"

/* One pread serves bytes up to this far apart; a longer gap is cheaper skipped. */
static const uint64_t SKIP_BYTES = 16u << 10;
/* Longest piece that is staged in scratch on its way to scattered places. */
static const uint64_t STAGE_BYTES = 1u << 20;

static uint8_t *point_out(const h5fast_worker *w, int64_t point)
{
    const h5fast_selection *selection = w->plan->selection;
    return selection->targets != NULL ? selection->targets[point] : w->out + point * selection->point_stride;
}

/* What a point's share goes through on its way out; NULL: it is moved as it is. */
static const h5fast_cast *cast_of(const h5fast_worker *w, int64_t point)
{
    const uint8_t *uncast = w->plan->selection->uncast;
    return uncast != NULL && uncast[point] ? NULL : w->cast;
}

/* Hands one point's share of the chunk to the output. `chunk` is where the chunk's byte 0 lies or would lie. */
static void emit(const h5fast_worker *w, int64_t point, const uint8_t *chunk)
{
    const h5fast_cast *cast = cast_of(w, point);
    uint64_t offset = h5fast_worker_offset(w, point);
    uint8_t *out = point_out(w, point);
    if (cast != NULL)
        cast->kernel(cast, chunk + offset + w->box.from, out + w->box.to);
    else
        h5fast_box_copy(&w->box, chunk + offset, out);
}

static void emit_all(const h5fast_worker *w, const uint8_t *chunk)
{
    for (uint64_t i = 0; i < w->group->count; i++)
        emit(w, h5fast_worker_point(w, i), chunk);
}

static h5fast_status fill_job(h5fast_worker *w)
{
    const h5fast_storage *storage = w->plan->storage;
    uint8_t *row = NULL; /* of fill values, for the cast */
    if (w->cast != NULL) {
        h5fast_status status = h5fast_buffer_reserve(&w->scratch->staged, w->box.run);
        if (status != H5FAST_OK)
            return status;
        row = w->scratch->staged.bytes;
        h5fast_fill_run(storage, 0, w->box.run, row);
    }
    for (uint64_t i = 0; i < w->group->count; i++) {
        int64_t point = h5fast_worker_point(w, i);
        const h5fast_cast *cast = cast_of(w, point);
        if (cast != NULL)
            cast->kernel(cast, row, point_out(w, point) + w->box.to);
        else
            h5fast_box_fill(&w->box, storage, point_out(w, point));
    }
    return H5FAST_OK;
}

/* Rows out of shuffled planes, without unshuffling the rows between them. */
static h5fast_status emit_planes(const h5fast_worker *w, const h5fast_decoded *decoded)
{
    uint64_t size = decoded->element_size, count = w->box.run / size;
    uint8_t *staged = NULL;
    if (w->cast != NULL) {
        h5fast_status status = h5fast_buffer_reserve(&w->scratch->staged, w->box.run);
        if (status != H5FAST_OK)
            return status;
        staged = w->scratch->staged.bytes;
    }
    for (uint64_t i = 0; i < w->group->count; i++) {
        int64_t point = h5fast_worker_point(w, i);
        uint64_t first = (h5fast_worker_offset(w, point) + w->box.from) / size;
        uint8_t *out = point_out(w, point) + w->box.to;
        const h5fast_cast *cast = cast_of(w, point);
        h5fast_unshuffle(decoded->planes, decoded->elements, size, first, count, cast != NULL ? staged : out);
        if (cast != NULL)
            cast->kernel(cast, staged, out);
    }
    return H5FAST_OK;
}

/* 1 where the stored bytes of this chunk went through no filter. */
static int stored_raw(const h5fast_worker *w)
{
    const h5fast_storage *storage = w->plan->storage;
    if (storage->filter_count == 0)
        return 1;
    if (storage->raw_edges)
        for (int axis = 0; axis < storage->rank; axis++)
            if ((w->coordinates[axis] + 1) * storage->chunk[axis] > storage->shape[axis])
                return 1;
    return 0;
}

/* The whole chunk, in order, is one point's share: it decodes straight into the output. */
static uint8_t *output_as_target(const h5fast_worker *w, h5fast_want want)
{
    int64_t point = h5fast_worker_point(w, 0);
    if (w->group->count != 1 || cast_of(w, point) != NULL || w->box.loops != 0 || want.first != 0 ||
        w->box.run != w->plan->storage->chunk_bytes)
        return NULL;
    return point_out(w, point) + w->box.to;
}

/* Decodes all of the chunk to the place that is kept for it. 0 where it does not decode: the part that is asked for may. */
static int fill_hold(h5fast_worker *w, const uint8_t *stored, uint32_t mask)
{
    const h5fast_storage *storage = w->plan->storage;
    h5fast_want all = {0, storage->chunk_bytes};
    h5fast_decoded decoded;
    if (h5fast_decode_chunk(storage, w->scratch, stored, w->job->chunk.size, mask, all, w->hold->bytes, 0, &decoded) !=
        H5FAST_OK)
        return 0;
    if (decoded.chunk != w->hold->bytes)
        memcpy(w->hold->bytes, decoded.chunk, storage->chunk_bytes);
    w->hold->is_filled = 1;
    return 1;
}

h5fast_status h5fast_worker_decode(h5fast_worker *w, const uint8_t *stored)
{
    const h5fast_storage *storage = w->plan->storage;
    uint32_t mask = stored_raw(w) ? UINT32_MAX : w->job->chunk.mask;
    if (w->hold != NULL && w->hold->bytes != NULL && fill_hold(w, stored, mask)) {
        emit_all(w, w->hold->bytes);
        return H5FAST_OK;
    }
    h5fast_want want = h5fast_worker_wanted(w);
    uint8_t *target = output_as_target(w, want);
    h5fast_decoded decoded;
    h5fast_status status = h5fast_decode_chunk(storage, w->scratch, stored, w->job->chunk.size, mask, want, target,
                                               w->box.loops == 0, &decoded);
    w->filter = decoded.filter;
    if (status != H5FAST_OK)
        return status;
    if (decoded.chunk == NULL)
        return emit_planes(w, &decoded);
    if (decoded.chunk != target)
        emit_all(w, decoded.chunk);
    return H5FAST_OK;
}

static h5fast_status read_bytes(h5fast_worker *w, uint64_t address, uint64_t size, uint8_t *out)
{
    h5fast_source *source = w->source;
    const uint8_t *resident = h5fast_source_resident(source, address, size);
    if (resident != NULL) {
        memcpy(out, resident, size);
        return H5FAST_OK;
    }
    return h5fast_source_read(source, address, size, out, &w->sys_errno);
}

/* Reads [first, end) of the unfiltered chunk into the scratch; *chunk is where the chunk's byte 0 would then lie. */
static h5fast_status stage(h5fast_worker *w, h5fast_want want, const uint8_t **chunk)
{
    h5fast_buffer *buffer = &w->scratch->encoded;
    h5fast_status status = h5fast_buffer_reserve(buffer, want.end - want.first);
    if (status == H5FAST_OK)
        status = h5fast_source_read(w->source, w->job->chunk.address + want.first, want.end - want.first,
                                    buffer->bytes, &w->sys_errno);
    *chunk = (const uint8_t *)((uintptr_t)buffer->bytes - (uintptr_t)want.first);
    return status;
}

static h5fast_status read_loop(h5fast_worker *w, int depth, uint64_t from, uint8_t *to);

/* Reads the part of a box below `depth` loops, whose first run lies at `from` in the chunk, into the output. */
static h5fast_status read_nest(h5fast_worker *w, int depth, uint64_t from, uint8_t *to)
{
    if (depth == w->box.loops)
        return h5fast_source_read(w->source, w->job->chunk.address + from, w->box.run, to, &w->sys_errno);
    return read_loop(w, depth, from, to);
}

/* The same where loops are left: in one read through the scratch if the runs lie close together. */
static h5fast_status read_loop(h5fast_worker *w, int depth, uint64_t from, uint8_t *to)
{
    const h5fast_box *box = &w->box;
    h5fast_box inner;
    h5fast_box_inner(box, depth, from, &inner);
    if (inner.extent <= STAGE_BYTES && box->from_stride[box->loops - 1] <= SKIP_BYTES + box->run) {
        const uint8_t *chunk;
        h5fast_status status = stage(w, (h5fast_want){from, from + inner.extent}, &chunk);
        if (status == H5FAST_OK)
            h5fast_box_copy(&inner, chunk, to);
        return status;
    }
    for (uint64_t i = 0; i < box->count[depth]; i++) {
        h5fast_status status =
            read_nest(w, depth + 1, from + i * box->from_stride[depth], to + (int64_t)i * box->to_stride[depth]);
        if (status != H5FAST_OK)
            return status;
    }
    return H5FAST_OK;
}

static h5fast_status read_point(h5fast_worker *w, int64_t point)
{
    uint64_t offset = h5fast_worker_offset(w, point);
    if (cast_of(w, point) == NULL)
        return read_nest(w, 0, offset + w->box.from, point_out(w, point) + w->box.to);
    const uint8_t *chunk;
    h5fast_want want = {offset + w->box.from, offset + w->box.from + w->box.extent};
    h5fast_status status = stage(w, want, &chunk);
    if (status == H5FAST_OK)
        emit(w, point, chunk);
    return status;
}

/* An unfiltered chunk: only the wanted bytes are read. From the mapping where they are in memory; in one read where they
 * lie close together; point by point else. */
static h5fast_status raw_job(h5fast_worker *w)
{
    h5fast_want want = h5fast_worker_wanted(w);
    const h5fast_chunk *stored = &w->job->chunk;
    if (want.end > stored->size)
        return H5FAST_SHORT;
    uint64_t length = want.end - want.first;
    if (w->group->count == 1 || length <= STAGE_BYTES) {
        const uint8_t *resident = h5fast_source_resident(w->source, stored->address + want.first, length);
        if (resident != NULL) {
            emit_all(w, (const uint8_t *)((uintptr_t)resident - (uintptr_t)want.first));
            return H5FAST_OK;
        }
    }
    if (w->group->count > 1 && length <= STAGE_BYTES && length <= w->group->count * (w->box.extent + SKIP_BYTES)) {
        const uint8_t *chunk;
        h5fast_status status = stage(w, want, &chunk);
        if (status == H5FAST_OK)
            emit_all(w, chunk);
        return status;
    }
    for (uint64_t i = 0; i < w->group->count; i++) {
        h5fast_status status = read_point(w, h5fast_worker_point(w, i));
        if (status != H5FAST_OK)
            return status;
    }
    return H5FAST_OK;
}

h5fast_status h5fast_worker_run(h5fast_worker *w)
{
    const h5fast_chunk *chunk = &w->job->chunk;
    if (chunk->address == 0)
        return fill_job(w);
    if (w->hold != NULL && w->hold->bytes != NULL && w->hold->is_filled) {
        emit_all(w, w->hold->bytes);
        return H5FAST_OK;
    }
    /* Of contiguous data only what is wanted needs to be there, but it starts in the file: adding to it cannot wrap. */
    uint64_t size = w->kind == H5FAST_INDEX_CONTIGUOUS ? 0 : chunk->size;
    if (!h5fast_source_holds(w->source, chunk->address, size))
        return H5FAST_TRUNCATED;
    if (w->plan->storage->filter_count == 0)
        return raw_job(w);
    h5fast_status status = h5fast_buffer_reserve(&w->scratch->encoded, chunk->size);
    if (status == H5FAST_OK)
        status = read_bytes(w, chunk->address, chunk->size, w->scratch->encoded.bytes);
    return status == H5FAST_OK ? h5fast_worker_decode(w, w->scratch->encoded.bytes) : status;
}

const uint8_t *h5fast_worker_read_unit(h5fast_worker *w, const h5fast_job *jobs, uint32_t count)
{
    const h5fast_chunk *last = &jobs[count - 1].chunk;
    uint64_t begin = jobs[0].chunk.address, size = last->address + last->size - begin;
    h5fast_buffer *buffer = &w->scratch->encoded;
    if (count == 1 || h5fast_buffer_reserve(buffer, size) != H5FAST_OK ||
        read_bytes(w, begin, size, buffer->bytes) != H5FAST_OK)
        return NULL;
    return buffer->bytes;
}
