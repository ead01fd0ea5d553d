/* What the filling of a batch consists of; for fill.c, points.c, moves.c, rowstore.c, groups.c and damage.c alone.
 *
 * A filler is one thread's at a time, all of these functions are that thread's, and no pointer may be NULL. Functions that
 * return a status have said in *filler->error what failed and where.
 */
#ifndef H5FAST_FILLER_H
#define H5FAST_FILLER_H

#include "fill.h"

/* Rows to read: the engine's points. */
typedef struct {
    uint64_t count, capacity;
    int64_t *rows;     /* of the dataset of its part */
    uint8_t **targets;
    uint8_t *uncast;
    uint32_t *parts;
} h5fast_points;

/* A row that was given a slot of the cache in this batch. */
typedef struct {
    uint32_t slot;
    uint64_t time;     /* that it is kept for; another one took the slot if the cache says otherwise */
    uint64_t row;
} h5fast_pending;

typedef struct {
    const uint8_t *from;
    uint8_t *to;
} h5fast_move;

/* Groups of a field that do not decode, as far as they were met. */
typedef struct {
    uint64_t *groups;
    uint64_t count;
} h5fast_damage;

struct h5fast_filler {
    h5fast_filling given;
    _Atomic int *stop;
    h5fast_fill_error *error;
    /* The batch: */
    uint64_t first, count;    /* positions */
    int64_t *items;           /* the batch's own */
    uint64_t *rows;           /* of the loader */
    uint8_t *is_missing;      /* by row: it has to be read for the field at hand */
    uint8_t *is_damaged;      /* by row: some field of it does not decode */
    uint64_t *groups;         /* of the field at hand: those that are decoded for the batch */
    h5fast_move *moves;
    uint8_t *staged;          /* rows on their way to a cast that the engine cannot run; NULL: no field needs that */
    h5fast_points points, sorted;    /* in order of parts, where there are several */
    uint64_t *part_first;     /* first of `sorted` of each part that is read */
    uint32_t *part_numbers;
    uint64_t part_limit;      /* places in these two */
    h5fast_pending *pending;
    uint64_t pending_count, pending_capacity;
    h5fast_damage *damage;    /* of each field */
    _Atomic uint64_t bytes;   /* that the filler holds */
};

/* --- fill.c ----------------------------------------------------------------------------------------------------------- */

/* Notes what failed, and returns its status. The second: no memory, or stopped; of no field in particular. */
h5fast_status h5fast_filler_failed(h5fast_filler *f, uint32_t field, uint32_t part, h5fast_error what) H5FAST_CHECKED;
h5fast_status h5fast_filler_gave_up(h5fast_filler *f, h5fast_status status) H5FAST_CHECKED;

/* Runs a task with the pool's help, until it is done or the filler is stopped. */
h5fast_status h5fast_filler_run(h5fast_filler *f, h5fast_task *task) H5FAST_CHECKED;

/* What to read of one part, and where to. */
typedef struct {
    const h5fast_selection *selection;
    const h5fast_cast *cast;  /* or NULL */
    uint8_t *out;             /* NULL: the selection's points have targets */
    uint64_t rows;            /* that it is */
    int threads;
} h5fast_reading;

/* Reads it, unless the filler is stopped meanwhile. Says what failed only by what it returns; in any thread. */
h5fast_error h5fast_filler_gather(const h5fast_filler *f, h5fast_field *field, uint32_t part, const h5fast_reading *reading)
    H5FAST_CHECKED;

/* When an item is needed next, counted over all epochs, from this position of the present one on; H5FAST_NEVER. */
uint64_t h5fast_filler_next_time(const h5fast_filler *f, uint64_t item, uint64_t from);

/* The groups that the missing rows are in, each once, ascending, into f->groups. Returns how many. */
uint64_t h5fast_filler_missing_groups(h5fast_filler *f, const h5fast_field *field);

/* --- points.c --------------------------------------------------------------------------------------------------------- */

/* One more row to be read to `target`, which stays the caller's: as stored (`uncast`), or as the field's fused cast makes
 * it. H5FAST_MEMORY says so only by its status. */
h5fast_status h5fast_points_add(h5fast_filler *f, const h5fast_field *field, uint64_t row, uint8_t *target, int uncast)
    H5FAST_CHECKED;

/* Reads the points of a field, from all of its files. */
h5fast_status h5fast_points_read(h5fast_filler *f, uint32_t field) H5FAST_CHECKED;

void h5fast_points_free(h5fast_points *points);

/* --- moves.c ---------------------------------------------------------------------------------------------------------- */

/* Copies, or casts, the first `count` of f->moves: rows as stored, to the batch. */
h5fast_status h5fast_moves_run(h5fast_filler *f, const h5fast_field *field, uint64_t count) H5FAST_CHECKED;

/* --- rowstore.c ------------------------------------------------------------------------------------------------------- */

/* Marks in f->is_missing what the field's store does not have; what a cache has is copied to `out`. */
h5fast_status h5fast_rowstore_find(h5fast_filler *f, h5fast_field *field, uint8_t *out) H5FAST_CHECKED;

/* Reads what is missing, and keeps what is worth it. May be called again after a failure. */
h5fast_status h5fast_rowstore_read(h5fast_filler *f, uint32_t field, uint8_t *out) H5FAST_CHECKED;

/* --- groups.c --------------------------------------------------------------------------------------------------------- */

/* Reads all items of the groups that the missing rows are in to the field's store, where that has room for every item. Groups
 * that are there already, from a call that failed, are not read again. */
h5fast_status h5fast_groups_read(h5fast_filler *f, uint32_t field) H5FAST_CHECKED;

/* --- damage.c --------------------------------------------------------------------------------------------------------- */

/* Rows of groups that are known not to decode are not missing, but damaged. */
void h5fast_damage_leave_out(h5fast_filler *f, uint32_t field);

/* Notes the group of the chunk that failed. 1: go on without it, there is no failure; 0: that is not how to go on. */
int h5fast_damage_note(h5fast_filler *f, uint32_t field, h5fast_status status) H5FAST_CHECKED;

/* Closes the gaps that damaged rows left in the batch. Returns how many rows remain. */
uint64_t h5fast_damage_close_gaps(h5fast_filler *f, uint8_t *const *outs);

#endif
