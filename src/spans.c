#include "spans.h"

#include <stdlib.h>
#include <string.h>

#include "decode.h"

/* Waking a helper costs more than copying this much (see gather.c); a span costs about as much as copying SPAN_WORK. */
static const uint64_t INLINE_WORK = 768u << 10;
static const uint64_t SPAN_WORK = 1u << 10;
/* Spans with a gap of at most this many bytes between them are announced to the kernel as one range. */
static const uint64_t JOINED_GAP = 64u << 10;
/* Spans that are handed to a thread at a time, at most. */
enum { MOST_GRAIN = 256 };

/* One thread's part. Its address is known outside, so that what it holds survives a jump out of the guard. */
typedef struct {
    h5fast_spans *read;
    h5fast_scratch *scratch;
    h5fast_storage storage; /* of the present pipeline, with the chunk size of the present span */
    uint32_t pipeline;
    int has_storage;
    int sys_errno, filter;
} reader;

static const h5fast_slice *span_at(const h5fast_spans *read, uint64_t place)
{
    return &read->spans[read->order[place]];
}

static int is_filtered(const h5fast_spans *read, const h5fast_slice *span)
{
    return read->storages[span->pipeline]->filter_count > 0;
}

/* Whether the span at this place lies in the same filtered chunk as the one before it, whose reader then serves both. */
static int goes_with_previous(const h5fast_spans *read, uint64_t place)
{
    const h5fast_slice *span = span_at(read, place);
    if (place == 0 || span->address == 0 || !is_filtered(read, span))
        return 0;
    const h5fast_slice *previous = span_at(read, place - 1);
    return previous->address == span->address && previous->pipeline == span->pipeline &&
           previous->chunk_bytes == span->chunk_bytes && previous->mask == span->mask && previous->stored == span->stored;
}

static void fail(h5fast_spans *read, h5fast_status status, uint64_t span, int sys_errno, int filter)
{
    uint64_t address = status == H5FAST_MEMORY ? 0 : read->spans[span].address;
    if (read->outcomes != NULL && status != H5FAST_MEMORY) {
        read->outcomes[span] = (uint8_t)status;
        return;
    }
    pthread_mutex_lock(&read->error_lock);
    uint64_t at = atomic_load(&read->error_at);
    if (read->status == H5FAST_OK || address < at || (address == at && span < read->failed)) {
        read->status = status;
        read->failed = span;
        read->sys_errno = sys_errno;
        read->filter = filter;
        atomic_store(&read->error_at, address);
    }
    pthread_mutex_unlock(&read->error_lock);
}

static h5fast_status read_bytes(reader *r, uint64_t address, uint64_t size, uint8_t *out)
{
    h5fast_source *source = r->read->source;
    if (!h5fast_source_holds(source, address, size))
        return H5FAST_TRUNCATED;
    const uint8_t *resident = h5fast_source_resident(source, address, size);
    if (resident == NULL)
        return h5fast_source_read(source, address, size, out, &r->sys_errno);
    memcpy(out, resident, size);
    return H5FAST_OK;
}

static h5fast_status copy_raw(reader *r, const h5fast_slice *span, uint8_t *out)
{
    if (out == NULL) {
        h5fast_status status = h5fast_buffer_reserve(&r->scratch->encoded, span->length);
        if (status != H5FAST_OK)
            return status;
        out = r->scratch->encoded.bytes;
    }
    if (span->first + span->length > span->stored)
        return H5FAST_SHORT;
    if (!h5fast_source_holds(r->read->source, span->address, span->stored))
        return H5FAST_TRUNCATED;
    return read_bytes(r, span->address + span->first, span->length, out);
}

static uint8_t *target_of(const h5fast_spans *read, uint64_t number)
{
    return read->targets != NULL ? read->targets[number] : NULL;
}

/* The filters of a span's chunk, and its size. */
static const h5fast_storage *storage_of(reader *r, const h5fast_slice *span)
{
    if (!r->has_storage || r->pipeline != span->pipeline) {
        r->storage = *r->read->storages[span->pipeline];
        r->pipeline = span->pipeline;
        r->has_storage = 1;
    }
    r->storage.chunk_bytes = span->chunk_bytes;
    return &r->storage;
}

/* Decodes the chunk of the spans at [place, end), for all of them. */
static h5fast_status decode(reader *r, uint64_t place, uint64_t end)
{
    h5fast_spans *read = r->read;
    const h5fast_slice *head = span_at(read, place);
    h5fast_want want = {head->first, head->first + head->length};
    for (uint64_t i = place + 1; i < end; i++) {
        const h5fast_slice *span = span_at(read, i);
        want.first = span->first < want.first ? span->first : want.first;
        want.end = span->first + span->length > want.end ? span->first + span->length : want.end;
    }
    if (want.first == want.end)
        return H5FAST_OK;
    if (!h5fast_source_holds(read->source, head->address, head->stored))
        return H5FAST_TRUNCATED; /* before a buffer of that size is made */
    h5fast_status status = h5fast_buffer_reserve(&r->scratch->encoded, head->stored);
    if (status == H5FAST_OK)
        status = read_bytes(r, head->address, head->stored, r->scratch->encoded.bytes);
    if (status != H5FAST_OK)
        return status;
    uint8_t *whole = end - place == 1 && head->length == head->chunk_bytes ? target_of(read, read->order[place]) : NULL;
    h5fast_decoded decoded = {0};
    status = h5fast_decode_chunk(storage_of(r, head), r->scratch, r->scratch->encoded.bytes, head->stored, head->mask, want,
                                 whole, 0, &decoded);
    r->filter = decoded.filter;
    if (status != H5FAST_OK || decoded.chunk == whole || read->targets == NULL)
        return status;
    for (uint64_t i = place; i < end; i++)
        memcpy(read->targets[read->order[i]], decoded.chunk + span_at(read, i)->first, span_at(read, i)->length);
    return H5FAST_OK;
}

/* Not inlined: what it keeps in registers would not survive a jump out of the guard, and need not. */
static __attribute__((noinline)) void run_span(reader *r, uint64_t place)
{
    h5fast_spans *read = r->read;
    const h5fast_slice *span = span_at(read, place);
    uint64_t number = read->order[place], end = place + 1;
    h5fast_status status = H5FAST_OK;
    if (span->address > atomic_load_explicit(&read->error_at, memory_order_relaxed))
        return;
    r->sys_errno = r->filter = 0;
    if (span->address == 0) {
        if (read->targets != NULL)
            memset(read->targets[number], 0, span->length);
    } else if (!is_filtered(read, span)) {
        status = copy_raw(r, span, target_of(read, number));
    } else if (!goes_with_previous(read, place)) {
        while (end < read->count && goes_with_previous(read, end))
            end++;
        status = decode(r, place, end);
    }
    if (status != H5FAST_OK)
        fail(read, status, number, r->sys_errno, r->filter);
}

/* Tells the kernel of every range, where the first one would wait for the disk. */
static void advise(const h5fast_spans *read, uint64_t place, uint64_t end)
{
    if (!h5fast_source_is_cold(read->source, span_at(read, place)->address))
        return;
    uint64_t from = 0, to = 0;
    for (uint64_t i = place; i < end; i++) {
        const h5fast_slice *span = span_at(read, i);
        int raw = !is_filtered(read, span);
        uint64_t first = span->address + (raw ? span->first : 0), size = raw ? span->length : span->stored;
        if (span->address == 0 || !h5fast_source_holds(read->source, first, size))
            continue;
        if (to == 0 || first > to + JOINED_GAP) {
            if (to > from)
                h5fast_source_advise(read->source, from, to - from);
            from = first;
            to = first;
        }
        to = first + size > to ? first + size : to;
    }
    if (to > from)
        h5fast_source_advise(read->source, from, to - from);
}

/* What each thread does. A page that vanishes under the mapping lands at the sigsetjmp. */
static void work(h5fast_task *task, void *context)
{
    h5fast_spans *read = context;
    reader r;
    memset(&r, 0, sizeof r);
    r.read = read;
    r.scratch = h5fast_scratch_take();
    if (r.scratch == NULL) {
        fail(read, H5FAST_MEMORY, 0, 0, 0);
        h5fast_pool_cancel(task);
        return;
    }
    int submitter = h5fast_task_is_submitter(task);
    volatile uint64_t at = 0, end = 0;
    h5fast_guard guard;
    guard.begin = read->source->map;
    guard.end = read->source->map != NULL ? read->source->map + read->source->size : NULL;
    if (sigsetjmp(guard.place, 0) != 0) {
        fail(read, H5FAST_TRUNCATED, read->order[at], 0, 0);
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
            advise(read, first, last);
        }
        run_span(&r, at);
        at++;
    }
    h5fast_guard_disarm();
    h5fast_scratch_return(r.scratch);
}

/* qsort has no context: pairs of address and number are sorted, chunks by address, spans of one chunk by their number. */
typedef struct {
    uint64_t address, number;
} placed;

static int by_address(const void *a, const void *b)
{
    const placed *x = a, *y = b;
    if (x->address != y->address)
        return x->address < y->address ? -1 : 1;
    return x->number < y->number ? -1 : x->number > y->number;
}

static int is_ascending(const h5fast_spans *read)
{
    for (uint64_t i = 1; i < read->count; i++)
        if (read->spans[i].address < read->spans[i - 1].address)
            return 0;
    return 1;
}

static h5fast_status sort(h5fast_spans *read)
{
    for (uint64_t i = 0; i < read->count; i++)
        read->order[i] = i;
    if (is_ascending(read))
        return H5FAST_OK;
    placed *places = malloc(read->count * sizeof *places);
    if (places == NULL)
        return H5FAST_MEMORY;
    for (uint64_t i = 0; i < read->count; i++)
        places[i] = (placed){read->spans[i].address, i};
    qsort(places, read->count, sizeof *places, by_address);
    for (uint64_t i = 0; i < read->count; i++)
        read->order[i] = places[i].number;
    free(places);
    return H5FAST_OK;
}

h5fast_status h5fast_spans_begin(h5fast_spans *read)
{
    read->running = 0;
    read->status = H5FAST_OK;
    read->sys_errno = read->filter = 0;
    read->failed = 0;
    atomic_init(&read->error_at, UINT64_MAX);
    pthread_mutex_init(&read->error_lock, NULL);
    if (read->source->windows != NULL)
        h5fast_guard_install();
    read->order = NULL;
    if (read->count <= SIZE_MAX / sizeof *read->order)
        read->order = malloc((read->count > 0 ? read->count : 1) * sizeof *read->order);
    return read->order == NULL ? H5FAST_MEMORY : sort(read);
}

static void submit(h5fast_spans *read)
{
    uint64_t bytes = 0;
    for (uint64_t i = 0; i < read->count; i++) {
        const h5fast_slice *span = &read->spans[i];
        bytes += SPAN_WORK + (is_filtered(read, span) && span->address != 0 ? 8 * span->stored : span->length);
    }
    memset(&read->task, 0, sizeof read->task);
    read->task.work = work;
    read->task.context = read;
    read->task.count = read->count;
    read->task.max_threads = bytes <= INLINE_WORK ? 1 : read->threads;
    uint64_t grain = read->count / ((uint64_t)read->task.max_threads * 8);
    read->task.grain = grain < 1 ? 1 : grain > MOST_GRAIN ? MOST_GRAIN : grain;
    h5fast_pool_submit(&read->task);
    read->running = 1;
}

int h5fast_spans_run(h5fast_spans *read, double seconds)
{
    if (!read->running) {
        if (read->status != H5FAST_OK || read->count == 0)
            return 1;
        submit(read);
    }
    if (!h5fast_pool_help(&read->task, seconds))
        return 0;
    read->running = 0;
    if (atomic_load(&read->task.cancelled) && read->status == H5FAST_OK)
        read->status = H5FAST_CANCELLED; /* the pool was lost in a fork */
    return 1;
}

void h5fast_spans_cancel(h5fast_spans *read)
{
    pthread_mutex_lock(&read->error_lock);
    if (read->status == H5FAST_OK)
        read->status = H5FAST_CANCELLED;
    pthread_mutex_unlock(&read->error_lock);
    if (read->running)
        h5fast_pool_cancel(&read->task);
}

void h5fast_spans_end(h5fast_spans *read)
{
    if (read->source->windows != NULL)
        h5fast_guard_remove();
    pthread_mutex_destroy(&read->error_lock);
    free(read->order);
}
