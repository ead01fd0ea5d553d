#include "gather.h"

#include <stdlib.h>
#include <string.h>

#include "box.h"
#include "shuffle.h"

/* Jobs are planned in windows, so that a dataset of a hundred million chunks needs no table of them. */
enum { WINDOW_JOBS = 16384 };
/* Stored chunks closer than a page are read together, up to a size that stays in the second-level cache. */
static const uint64_t UNIT_GAP = 4096, UNIT_BYTES = 256u << 10;
/* Unfiltered chunks above this are read row by row, not with their neighbours. */
static const uint64_t SMALL_RAW_CHUNK = 16u << 10;
/* Waking a helper costs 10 to 100 µs; below this much work, in bytes copied, the caller is done sooner alone. */
static const uint64_t INLINE_WORK = 768u << 10;
/* Finding scattered bytes costs a job about as much as copying this many. */
static const uint64_t JOB_WORK = 1024;
/* One pread serves bytes up to this far apart; a longer gap is cheaper skipped. */
static const uint64_t SKIP_BYTES = 16u << 10;
/* Longest piece that is staged in scratch on its way to scattered places. */
static const uint64_t STAGE_BYTES = 1u << 20;
/* What a thread takes on at a time. */
static const uint64_t HELPING_BYTES = 1u << 20;
static const uint64_t NO_ERROR = UINT64_MAX;

/* One thread at work on one job. */
typedef struct {
    h5fast_gather *gather;
    h5fast_scratch *scratch;
    const h5fast_job *job;
    const h5fast_group *group;
    uint64_t strides[H5FAST_MAX_RANK];     /* of a chunk's axes, in bytes */
    uint64_t coordinates[H5FAST_MAX_RANK]; /* of the job's chunk */
    h5fast_box box;
    int sys_errno;
    int filter;
} worker;

static int64_t point_at(const worker *w, uint64_t i)
{
    const int64_t *order = w->gather->plan.order;
    uint64_t at = w->group->first + i;
    return order != NULL ? order[at] : (int64_t)at;
}

/* Byte offset, within its chunk, that a point adds to the box. */
static uint64_t point_offset(const worker *w, int64_t point)
{
    const h5fast_storage *storage = w->gather->storage;
    uint64_t offset = 0;
    for (int axis = 0; axis < storage->rank; axis++) {
        const int64_t *coords = w->gather->selection->coords[axis];
        if (coords != NULL)
            offset += ((uint64_t)coords[point] - w->coordinates[axis] * storage->chunk[axis]) * w->strides[axis];
    }
    return offset;
}

static uint8_t *point_out(const worker *w, int64_t point)
{
    return w->gather->out + point * w->gather->selection->point_stride;
}

/* Hands one point's share of the chunk to the output. `chunk` is where the chunk's byte 0 lies or would lie. */
static void emit(const worker *w, const uint8_t *chunk, uint64_t offset, uint8_t *out)
{
    const h5fast_cast *cast = w->gather->cast;
    if (cast != NULL)
        cast->kernel(cast, chunk + offset + w->box.from, out + w->box.to);
    else
        h5fast_box_copy(&w->box, chunk + offset, out);
}

static void emit_all(const worker *w, const uint8_t *chunk)
{
    for (uint64_t i = 0; i < w->group->count; i++) {
        int64_t point = point_at(w, i);
        emit(w, chunk, point_offset(w, point), point_out(w, point));
    }
}

/* The smallest range of the chunk that holds every point's share. */
static h5fast_want wanted(const worker *w)
{
    h5fast_want want = {UINT64_MAX, 0};
    for (uint64_t i = 0; i < w->group->count; i++) {
        uint64_t offset = point_offset(w, point_at(w, i)) + w->box.from;
        want.first = offset < want.first ? offset : want.first;
        want.end = offset > want.end ? offset : want.end;
    }
    want.end += w->box.extent;
    return want;
}

static h5fast_status fill_job(worker *w)
{
    const h5fast_gather *g = w->gather;
    const h5fast_cast *cast = g->cast;
    if (cast == NULL) {
        for (uint64_t i = 0; i < w->group->count; i++)
            h5fast_box_fill(&w->box, g->storage, point_out(w, point_at(w, i)));
        return H5FAST_OK;
    }
    h5fast_status status = h5fast_buffer_reserve(&w->scratch->staged, w->box.run);
    if (status != H5FAST_OK)
        return status;
    h5fast_fill_run(g->storage, 0, w->box.run, w->scratch->staged.bytes);
    for (uint64_t i = 0; i < w->group->count; i++)
        cast->kernel(cast, w->scratch->staged.bytes, point_out(w, point_at(w, i)) + w->box.to);
    return H5FAST_OK;
}

/* Rows out of shuffled planes, without unshuffling the rows between them. */
static h5fast_status emit_planes(const worker *w, const h5fast_decoded *decoded)
{
    const h5fast_cast *cast = w->gather->cast;
    uint64_t size = decoded->element_size, count = w->box.run / size;
    uint8_t *staged = NULL;
    if (cast != NULL) {
        h5fast_status status = h5fast_buffer_reserve(&w->scratch->staged, w->box.run);
        if (status != H5FAST_OK)
            return status;
        staged = w->scratch->staged.bytes;
    }
    for (uint64_t i = 0; i < w->group->count; i++) {
        int64_t point = point_at(w, i);
        uint64_t first = (point_offset(w, point) + w->box.from) / size;
        uint8_t *out = point_out(w, point) + w->box.to;
        h5fast_unshuffle(decoded->planes, decoded->elements, size, first, count, staged != NULL ? staged : out);
        if (staged != NULL)
            cast->kernel(cast, staged, out);
    }
    return H5FAST_OK;
}

/* 1 where the stored bytes of this chunk went through no filter. */
static int stored_raw(const worker *w)
{
    const h5fast_storage *storage = w->gather->storage;
    if (storage->filter_count == 0)
        return 1;
    if (storage->raw_edges)
        for (int axis = 0; axis < storage->rank; axis++)
            if ((w->coordinates[axis] + 1) * storage->chunk[axis] > storage->shape[axis])
                return 1;
    return 0;
}

/* The whole chunk, in order, is one point's share: it decodes straight into the output. */
static uint8_t *output_as_target(const worker *w, h5fast_want want)
{
    const h5fast_gather *g = w->gather;
    if (g->cast != NULL || w->group->count != 1 || w->box.loops != 0 || want.first != 0 ||
        w->box.run != g->storage->chunk_bytes)
        return NULL;
    return point_out(w, point_at(w, 0)) + w->box.to;
}

static h5fast_status decode_job(worker *w, const uint8_t *stored)
{
    const h5fast_storage *storage = w->gather->storage;
    h5fast_want want = wanted(w);
    uint32_t mask = stored_raw(w) ? UINT32_MAX : w->job->chunk.mask;
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

static h5fast_status read_bytes(worker *w, uint64_t address, uint64_t size, uint8_t *out)
{
    h5fast_source *source = w->gather->source;
    const uint8_t *resident = h5fast_source_resident(source, address, size);
    if (resident != NULL) {
        memcpy(out, resident, size);
        return H5FAST_OK;
    }
    return h5fast_source_read(source, address, size, out, &w->sys_errno);
}

/* Reads [first, end) of the unfiltered chunk into the scratch; *chunk is where the chunk's byte 0 would then lie. */
static h5fast_status stage(worker *w, h5fast_want want, const uint8_t **chunk)
{
    h5fast_buffer *buffer = &w->scratch->encoded;
    h5fast_status status = h5fast_buffer_reserve(buffer, want.end - want.first);
    if (status == H5FAST_OK)
        status = h5fast_source_read(w->gather->source, w->job->chunk.address + want.first, want.end - want.first,
                                    buffer->bytes, &w->sys_errno);
    *chunk = (const uint8_t *)((uintptr_t)buffer->bytes - (uintptr_t)want.first);
    return status;
}

/* Reads the part of a box below loop `depth`, whose first run lies at `from` in the chunk, into the output. */
static h5fast_status read_nest(worker *w, int depth, uint64_t from, uint8_t *to)
{
    const h5fast_box *box = &w->box;
    if (depth == box->loops)
        return h5fast_source_read(w->gather->source, w->job->chunk.address + from, box->run, to, &w->sys_errno);
    uint64_t extent = box->run;
    for (int i = depth; i < box->loops; i++)
        extent += (box->count[i] - 1) * box->from_stride[i];
    if (extent <= STAGE_BYTES && box->from_stride[box->loops - 1] <= SKIP_BYTES + box->run) {
        const uint8_t *chunk;
        h5fast_status status = stage(w, (h5fast_want){from, from + extent}, &chunk);
        if (status != H5FAST_OK)
            return status;
        h5fast_box part = *box;
        part.loops = box->loops - depth;
        part.from = from;
        part.to = 0;
        memmove(part.count, part.count + depth, (size_t)part.loops * sizeof *part.count);
        memmove(part.from_stride, part.from_stride + depth, (size_t)part.loops * sizeof *part.from_stride);
        memmove(part.to_stride, part.to_stride + depth, (size_t)part.loops * sizeof *part.to_stride);
        h5fast_box_copy(&part, chunk, to);
        return H5FAST_OK;
    }
    for (uint64_t i = 0; i < box->count[depth]; i++) {
        h5fast_status status =
            read_nest(w, depth + 1, from + i * box->from_stride[depth], to + (int64_t)i * box->to_stride[depth]);
        if (status != H5FAST_OK)
            return status;
    }
    return H5FAST_OK;
}

static h5fast_status read_point(worker *w, int64_t point)
{
    uint64_t offset = point_offset(w, point);
    uint8_t *out = point_out(w, point);
    if (w->gather->cast == NULL)
        return read_nest(w, 0, offset + w->box.from, out + w->box.to);
    const uint8_t *chunk;
    h5fast_want want = {offset + w->box.from, offset + w->box.from + w->box.extent};
    h5fast_status status = stage(w, want, &chunk);
    if (status == H5FAST_OK)
        emit(w, chunk, offset, out);
    return status;
}

/* An unfiltered chunk: only the wanted bytes are read. From the mapping where they are in memory; in one read where they
 * lie close together; point by point else. */
static h5fast_status raw_job(worker *w)
{
    h5fast_want want = wanted(w);
    const h5fast_chunk *stored = &w->job->chunk;
    if (want.end > stored->size)
        return H5FAST_SHORT;
    uint64_t length = want.end - want.first;
    if (w->group->count == 1 || length <= STAGE_BYTES) {
        const uint8_t *resident = h5fast_source_resident(w->gather->source, stored->address + want.first, length);
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
        h5fast_status status = read_point(w, point_at(w, i));
        if (status != H5FAST_OK)
            return status;
    }
    return H5FAST_OK;
}

static void fail(h5fast_gather *g, h5fast_error error)
{
    pthread_mutex_lock(&g->error_lock);
    if (error.address < atomic_load(&g->error_at) || g->error.status == H5FAST_OK) {
        g->error = error;
        atomic_store(&g->error_at, error.address);
    }
    pthread_mutex_unlock(&g->error_lock);
}

static void record(worker *w, h5fast_status status)
{
    const h5fast_chunk *chunk = &w->job->chunk;
    fail(w->gather, (h5fast_error){status, w->sys_errno, w->filter, w->job->number, chunk->address, chunk->size});
}

static void begin_job(worker *w, const h5fast_job *job)
{
    const h5fast_plan *plan = &w->gather->plan;
    w->job = job;
    w->group = &plan->groups[job->job / plan->chunks_per_group];
    w->filter = 0;
    w->sys_errno = 0;
    h5fast_plan_locate(plan, job->job, w->coordinates);
    h5fast_box_make(&w->box, plan, w->coordinates);
}

static h5fast_status single_job(worker *w)
{
    const h5fast_chunk *chunk = &w->job->chunk;
    if (chunk->address == 0)
        return fill_job(w);
    /* Of contiguous data only what is wanted needs to be there, but it starts in the file: adding to it cannot wrap. */
    uint64_t size = w->gather->index->kind == H5FAST_INDEX_CONTIGUOUS ? 0 : chunk->size;
    if (!h5fast_source_holds(w->gather->source, chunk->address, size))
        return H5FAST_TRUNCATED;
    if (w->gather->storage->filter_count == 0)
        return raw_job(w);
    h5fast_status status = h5fast_buffer_reserve(&w->scratch->encoded, chunk->size);
    if (status == H5FAST_OK)
        status = read_bytes(w, chunk->address, chunk->size, w->scratch->encoded.bytes);
    return status == H5FAST_OK ? decode_job(w, w->scratch->encoded.bytes) : status;
}

static void advise_job(worker *w)
{
    const h5fast_gather *g = w->gather;
    const h5fast_chunk *chunk = &w->job->chunk;
    if (chunk->address == 0)
        return;
    if (g->storage->filter_count > 0) {
        h5fast_source_advise(g->source, chunk->address, chunk->size);
        return;
    }
    for (uint64_t i = 0; i < w->group->count; i++)
        h5fast_source_advise(g->source, chunk->address + point_offset(w, point_at(w, i)) + w->box.from, w->box.extent);
}

/* The first thread that meets bytes which are not in memory announces all later reads of the window, so that the disk
 * works on many at once; the others go on meanwhile. Each helping of units is looked at once. */
static void advise_window(const worker *w, uint64_t from)
{
    h5fast_gather *g = w->gather;
    worker reader = *w;
    if (atomic_load_explicit(&g->advised, memory_order_relaxed))
        return;
    begin_job(&reader, &g->jobs[g->units[from].first]);
    const h5fast_chunk *chunk = &reader.job->chunk;
    uint64_t first = chunk->address + (g->storage->filter_count > 0 ? 0 : wanted(&reader).first);
    if (chunk->address == 0 || !h5fast_source_is_cold(g->source, first) || atomic_exchange(&g->advised, 1))
        return;
    for (uint32_t i = g->units[from].first; i < g->job_count; i++) {
        begin_job(&reader, &g->jobs[i]);
        advise_job(&reader);
    }
}

/* One read for several neighbouring chunks. Where it fails, each is tried alone, so that the error names the right one. */
static const uint8_t *read_unit(worker *w, const h5fast_job *jobs, uint32_t count)
{
    const h5fast_chunk *last = &jobs[count - 1].chunk;
    uint64_t begin = jobs[0].chunk.address, size = last->address + last->size - begin;
    h5fast_buffer *buffer = &w->scratch->encoded;
    if (count == 1 || h5fast_buffer_reserve(buffer, size) != H5FAST_OK ||
        read_bytes(w, begin, size, buffer->bytes) != H5FAST_OK)
        return NULL;
    return buffer->bytes;
}

static void run_unit(worker *w, const h5fast_unit *unit)
{
    h5fast_gather *g = w->gather;
    const h5fast_job *jobs = g->jobs + unit->first;
    if (jobs[0].chunk.address > atomic_load_explicit(&g->error_at, memory_order_relaxed))
        return;
    w->job = jobs;
    const uint8_t *together = read_unit(w, jobs, unit->count);
    for (uint32_t i = 0; i < unit->count; i++) {
        begin_job(w, &jobs[i]);
        h5fast_status status = together != NULL ? decode_job(w, together + (jobs[i].chunk.address - jobs[0].chunk.address))
                                                : single_job(w);
        if (status != H5FAST_OK)
            record(w, status);
    }
}

/* How many jobs ahead, and how many lines of how many pages of how many rows of one. 256 rows of 12 KB took 0.41 ms with
 * these and 0.50 without, 1,024 of 400 bytes 0.31 and 0.42; twice the lines were slower again. */
enum { PREFETCH_LINES = 8, PREFETCH_PAGES = 4, PREFETCH_ROWS = 4, PREFETCH_AHEAD = 4 };

static void prefetch_row(const uint8_t *from, uint64_t size)
{
    const uint8_t *page = from;
    for (int i = 0; i < PREFETCH_PAGES && page < from + size; i++) {
        for (int line = 0; line < PREFETCH_LINES; line++)
            __builtin_prefetch(page + 64 * line);
        page = (const uint8_t *)(((uintptr_t)page + 4096) & ~(uintptr_t)4095);
    }
}

/* Rows of a mapped file are scattered over pages that neither the caches nor the TLB know, and hardware prefetchers stop at
 * the end of a page. So the start of each page of a later job is touched while this one is copied. */
static void prefetch_unit(const worker *w, const h5fast_unit *unit)
{
    const h5fast_source *source = w->gather->source;
    worker next = *w;
    begin_job(&next, &w->gather->jobs[unit->first]);
    const h5fast_chunk *chunk = &next.job->chunk;
    if (chunk->address == 0 || !h5fast_source_holds(source, chunk->address, chunk->size))
        return;
    for (uint64_t i = 0; i < next.group->count && i < PREFETCH_ROWS; i++) {
        uint64_t first = point_offset(&next, point_at(&next, i)) + next.box.from;
        if (first < chunk->size)
            prefetch_row(source->map + chunk->address + first, next.box.extent);
    }
}

/* What each thread does. A page that vanishes under the mapping lands at the sigsetjmp. What must survive the jump is
 * volatile, or in w, whose address is known outside and which therefore lies in memory. */
static void work(h5fast_task *task, void *context)
{
    h5fast_gather *g = context;
    worker w;
    memset(&w, 0, sizeof w);
    w.gather = g;
    w.scratch = h5fast_scratch_take();
    if (w.scratch == NULL) {
        fail(g, (h5fast_error){H5FAST_MEMORY, 0, 0, 0, 0, 0});
        h5fast_pool_cancel(task);
        return;
    }
    h5fast_chunk_strides(g->storage, w.strides);
    int submitter = h5fast_task_is_submitter(task);
    int prefetching = g->source->map != NULL && g->storage->filter_count == 0;
    volatile uint64_t at = 0, end = 0;
    h5fast_guard guard;
    guard.begin = g->source->map;
    guard.end = g->source->map != NULL ? g->source->map + g->source->size : NULL;
    if (sigsetjmp(guard.place, 0) != 0) {
        record(&w, H5FAST_TRUNCATED);
        at++;
    }
    h5fast_guard_arm(&guard);
    for (;;) {
        if (at >= end) {
            uint64_t first, last;
            if (!h5fast_task_next(task, submitter, &first, &last))
                break;
            at = first;
            end = last;
            advise_window(&w, first);
        }
        if (prefetching && at + PREFETCH_AHEAD < g->unit_count)
            prefetch_unit(&w, &g->units[at + PREFETCH_AHEAD]);
        run_unit(&w, &g->units[at]);
        at++;
    }
    h5fast_guard_disarm();
    h5fast_scratch_return(w.scratch);
}

static int compare_jobs(const void *a, const void *b)
{
    const h5fast_job *x = a, *y = b;
    return x->chunk.address < y->chunk.address ? -1 : x->chunk.address > y->chunk.address;
}

/* Does a stepped range jump over this chunk on some axis? */
static int is_skipped(const h5fast_gather *g, const uint64_t *coordinates)
{
    for (int axis = 0; axis < g->storage->rank; axis++)
        if (g->selection->coords[axis] == NULL && g->selection->step[axis] > 1 &&
            h5fast_plan_span(&g->plan, axis, coordinates[axis]).count == 0)
            return 1;
    return 0;
}

static int joins(const h5fast_gather *g, const h5fast_job *previous, const h5fast_job *next, uint64_t unit_begin)
{
    if (g->storage->filter_count == 0 && g->storage->chunk_bytes > SMALL_RAW_CHUNK)
        return 0;
    /* Sizes and addresses come from the file: within it, no sum of theirs can wrap. */
    if (!h5fast_source_holds(g->source, previous->chunk.address, previous->chunk.size) ||
        !h5fast_source_holds(g->source, next->chunk.address, next->chunk.size))
        return 0;
    uint64_t end = previous->chunk.address + previous->chunk.size;
    return previous->chunk.address != 0 && next->chunk.address >= end && next->chunk.address - end <= UNIT_GAP &&
           next->chunk.address - unit_begin <= UNIT_BYTES && next->chunk.size <= UNIT_BYTES;
}

static void make_units(h5fast_gather *g)
{
    g->unit_count = 0;
    for (uint32_t i = 0; i < g->job_count; i++) {
        h5fast_unit *unit = g->unit_count > 0 ? &g->units[g->unit_count - 1] : NULL;
        if (unit != NULL && joins(g, &g->jobs[i - 1], &g->jobs[i], g->jobs[unit->first].chunk.address))
            unit->count++;
        else
            g->units[g->unit_count++] = (h5fast_unit){i, 1};
    }
}

/* Plans the next window: finds its chunks, puts them in file order, joins neighbours. */
static void make_window(h5fast_gather *g)
{
    uint64_t coordinates[H5FAST_MAX_RANK], previous = 0;
    int ascending = 1;
    g->job_count = 0;
    while (g->next_job < g->plan.job_count && g->job_count < WINDOW_JOBS) {
        uint64_t number = h5fast_plan_locate(&g->plan, g->next_job, coordinates);
        if (!is_skipped(g, coordinates)) {
            h5fast_chunk chunk = h5fast_index_find(g->storage, g->index, number, coordinates);
            g->jobs[g->job_count++] = (h5fast_job){chunk, g->next_job, number};
            ascending &= chunk.address >= previous;
            previous = chunk.address;
        }
        g->next_job++;
    }
    if (!ascending)
        qsort(g->jobs, g->job_count, sizeof *g->jobs, compare_jobs);
    make_units(g);
    atomic_store(&g->advised, g->unit_count < 2);
}

/* Bytes that the window's jobs decode or move: decoding costs about ten times a copy. */
static uint64_t window_work(const h5fast_gather *g)
{
    if (g->storage->filter_count > 0)
        return 10 * g->job_count * g->storage->chunk_bytes;
    uint64_t row = g->storage->itemsize;
    for (int axis = 0; axis < g->storage->rank; axis++)
        if (g->selection->coords[axis] == NULL)
            row *= (uint64_t)g->selection->count[axis];
    uint64_t whole = g->job_count * g->storage->chunk_bytes;
    uint64_t asked = row * (uint64_t)g->selection->point_count;
    return (asked < whole ? asked : whole) + JOB_WORK * g->job_count;
}

static void submit_window(h5fast_gather *g)
{
    memset(&g->task, 0, sizeof g->task);
    g->task.work = work;
    g->task.context = g;
    g->task.count = g->unit_count;
    g->task.max_threads = window_work(g) <= INLINE_WORK ? 1 : g->threads;
    /* Eight helpings a thread keep the last one busy with less than an eighth of its share; a helping of some MiB is done
     * in milliseconds, before Ctrl-C is felt to be late. */
    uint64_t grain = g->unit_count / ((uint64_t)g->task.max_threads * 8);
    uint64_t most = HELPING_BYTES / g->storage->chunk_bytes;
    grain = grain < most ? grain : most;
    g->task.grain = grain < 1 ? 1 : grain;
    h5fast_pool_submit(&g->task);
    g->running = 1;
}

h5fast_status h5fast_gather_begin(h5fast_gather *g)
{
    g->next_job = 0;
    g->running = 0;
    g->jobs = NULL;
    g->units = NULL;
    g->error = (h5fast_error){H5FAST_OK, 0, 0, 0, 0, 0};
    atomic_init(&g->error_at, NO_ERROR);
    pthread_mutex_init(&g->error_lock, NULL);
    if (g->source->windows != NULL)
        h5fast_guard_install();
    h5fast_status status = h5fast_plan_make(&g->plan, g->storage, g->selection);
    if (status != H5FAST_OK)
        return status;
    uint64_t jobs = g->plan.job_count < WINDOW_JOBS ? g->plan.job_count : WINDOW_JOBS;
    g->jobs = malloc((jobs > 0 ? jobs : 1) * sizeof *g->jobs);
    g->units = malloc((jobs > 0 ? jobs : 1) * sizeof *g->units);
    return g->jobs != NULL && g->units != NULL ? H5FAST_OK : H5FAST_MEMORY;
}

static int stopped(const h5fast_gather *g)
{
    return g->error.status != H5FAST_OK || g->next_job >= g->plan.job_count;
}

int h5fast_gather_run(h5fast_gather *g, double seconds)
{
    if (!g->running) {
        if (stopped(g))
            return 1;
        make_window(g);
        submit_window(g);
    }
    int done = h5fast_pool_help(&g->task, seconds);
    if (!done)
        return 0;
    g->running = 0;
    if (atomic_load(&g->task.cancelled))
        h5fast_gather_cancel(g); /* the pool was lost in a fork */
    return stopped(g);
}

void h5fast_gather_cancel(h5fast_gather *g)
{
    pthread_mutex_lock(&g->error_lock);
    if (g->error.status == H5FAST_OK)
        g->error.status = H5FAST_CANCELLED;
    pthread_mutex_unlock(&g->error_lock);
    if (g->running)
        h5fast_pool_cancel(&g->task);
}

void h5fast_gather_end(h5fast_gather *g)
{
    if (g->source->windows != NULL)
        h5fast_guard_remove();
    pthread_mutex_destroy(&g->error_lock);
    h5fast_plan_free(&g->plan);
    free(g->jobs);
    free(g->units);
}

int h5fast_gather_can_cast(const h5fast_storage *storage, const h5fast_selection *selection)
{
    int64_t row = (int64_t)storage->itemsize;
    for (int axis = storage->rank - 1; axis > 0; axis--) {
        if (selection->coords[axis] != NULL || selection->start[axis] != 0 || selection->step[axis] != 1 ||
            (uint64_t)selection->count[axis] != storage->shape[axis] || storage->chunk[axis] != storage->shape[axis])
            return 0;
        row *= selection->count[axis];
    }
    return row > 0;
}
