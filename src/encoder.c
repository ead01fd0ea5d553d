#include "encoder.h"

#include <pthread.h>
#include <stdlib.h>

#include "encode.h"
#include "pool.h"

/* The buffers of one thread at work; those of idle ones are in a list. */
typedef struct place {
    h5fast_encode_scratch scratch;
    struct place *next;
} place;

struct h5fast_encoder {
    const h5fast_storage *storage;
    uint64_t most;
    size_t stride; /* bytes of `out` for each chunk */
    uint8_t *out;
    h5fast_encoded *chunks;
    const uint8_t *rows;
    int effort; /* of gzip, as deflate.h has it */
    int running; /* a task was submitted and is not known to be done */
    h5fast_task task;
    pthread_mutex_t lock; /* of `idle` */
    place *idle;
};

size_t h5fast_encoder_bytes(const h5fast_storage *storage, uint64_t most)
{
    size_t each = h5fast_encode_bound(storage) + sizeof(h5fast_encoded);
    return most > SIZE_MAX / each ? SIZE_MAX : (size_t)most * each;
}

h5fast_encoder *h5fast_encoder_make(const h5fast_storage *storage, uint64_t most)
{
    h5fast_encoder *encoder = calloc(1, sizeof *encoder);
    if (encoder == NULL || h5fast_encoder_bytes(storage, most) == SIZE_MAX) {
        free(encoder);
        return NULL;
    }
    encoder->storage = storage;
    encoder->most = most;
    encoder->stride = h5fast_encode_bound(storage);
    encoder->out = storage->filter_count > 0 ? malloc((size_t)most * encoder->stride) : NULL;
    encoder->chunks = calloc((size_t)most, sizeof *encoder->chunks);
    pthread_mutex_init(&encoder->lock, NULL);
    if ((encoder->out == NULL && storage->filter_count > 0) || encoder->chunks == NULL) {
        h5fast_encoder_free(encoder);
        return NULL;
    }
    return encoder;
}

void h5fast_encoder_free(h5fast_encoder *encoder)
{
    if (encoder == NULL)
        return;
    while (encoder->idle != NULL) {
        place *next = encoder->idle->next;
        h5fast_encode_scratch_clear(&encoder->idle->scratch);
        free(encoder->idle);
        encoder->idle = next;
    }
    pthread_mutex_destroy(&encoder->lock);
    free(encoder->chunks);
    free(encoder->out);
    free(encoder);
}

static place *take_place(h5fast_encoder *encoder)
{
    pthread_mutex_lock(&encoder->lock);
    place *found = encoder->idle;
    if (found != NULL)
        encoder->idle = found->next;
    pthread_mutex_unlock(&encoder->lock);
    return found != NULL ? found : calloc(1, sizeof *found);
}

static void return_place(h5fast_encoder *encoder, place *used)
{
    pthread_mutex_lock(&encoder->lock);
    used->next = encoder->idle;
    encoder->idle = used;
    pthread_mutex_unlock(&encoder->lock);
}

static void encode_one(h5fast_encoder *encoder, place *here, uint64_t number)
{
    h5fast_encoded *chunk = &encoder->chunks[number];
    const uint8_t *in = encoder->rows + number * encoder->storage->chunk_bytes;
    uint8_t *out = encoder->out != NULL ? encoder->out + number * encoder->stride : NULL;
    chunk->status = here == NULL ? H5FAST_MEMORY
                                 : h5fast_encode_chunk(encoder->storage, &here->scratch, in, out, &chunk->bytes,
                                                       &chunk->size, &chunk->mask);
}

static void work(h5fast_task *task, void *context)
{
    h5fast_encoder *encoder = context;
    int submitter = h5fast_task_is_submitter(task);
    place *here = take_place(encoder);
    if (here != NULL)
        here->scratch.deflate.effort = encoder->effort;
    uint64_t begin, end;
    while (h5fast_task_next(task, submitter, &begin, &end))
        for (uint64_t number = begin; number < end; number++)
            encode_one(encoder, here, number);
    if (here != NULL)
        return_place(encoder, here);
}

void h5fast_encoder_start(h5fast_encoder *encoder, const uint8_t *rows, uint64_t count, int threads, int effort)
{
    for (uint64_t number = 0; number < count; number++)
        encoder->chunks[number].status = H5FAST_CANCELLED;
    encoder->rows = rows;
    encoder->effort = effort;
    encoder->task = (h5fast_task){.work = work, .context = encoder, .count = count, .grain = 1, .max_threads = threads};
    encoder->running = 1;
    h5fast_pool_submit(&encoder->task);
}

int h5fast_encoder_help(h5fast_encoder *encoder, double seconds)
{
    if (encoder->running && h5fast_pool_help(&encoder->task, seconds))
        encoder->running = 0;
    return !encoder->running;
}

void h5fast_encoder_cancel(h5fast_encoder *encoder)
{
    if (encoder->running)
        h5fast_pool_cancel(&encoder->task);
}

const h5fast_encoded *h5fast_encoder_chunk(const h5fast_encoder *encoder, uint64_t number)
{
    return &encoder->chunks[number];
}
