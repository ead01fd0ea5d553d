#include "filler.h"

#include <string.h>

/* Copying less than this is done sooner alone than with help. */
static const uint64_t INLINE_BYTES = 768u << 10;

typedef struct {
    const h5fast_move *moves;
    const h5fast_field *field;
    uint64_t count;
} copy_task;

static void copy_rows(h5fast_task *task, void *context)
{
    const copy_task *t = context;
    const h5fast_cast *cast = t->field->cast;
    uint64_t at, end, size = t->field->row_bytes;
    int submitter = h5fast_task_is_submitter(task);
    while (h5fast_task_next(task, submitter, &at, &end))
        for (; at < end; at++) {
            if (at + 2 < t->count) /* rows of a store lie anywhere; what follows their start the processor finds itself */
                for (uint64_t line = 0; line < 1024 && line < size; line += 64)
                    __builtin_prefetch(t->moves[at + 2].from + line);
            if (cast != NULL)
                cast->kernel(cast, t->moves[at].from, t->moves[at].to);
            else
                memcpy(t->moves[at].to, t->moves[at].from, size);
        }
}

h5fast_status h5fast_moves_run(h5fast_filler *f, const h5fast_field *field, uint64_t count)
{
    if (count == 0)
        return H5FAST_OK;
    copy_task context = {f->moves, field, count};
    uint64_t bytes = count * (field->row_bytes + field->out_bytes) / 2;
    h5fast_task task = {.work = copy_rows, .context = &context, .count = count, .grain = 1 + count / 16,
                        .max_threads = bytes <= INLINE_BYTES ? 1 : f->given.threads};
    h5fast_status status = h5fast_filler_run(f, &task);
    return status == H5FAST_OK ? H5FAST_OK : h5fast_filler_gave_up(f, status);
}
