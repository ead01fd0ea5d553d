/* The plan and its boxes against a walk over every selected element.
 *
 * Prevents: an element that is left out, taken twice, taken from the wrong place or put into the wrong one; a chunk that
 * is read twice; a box that reaches beyond its chunk.
 */
#include "engine.h"

#include "../../src/box.h"

enum { MOST_ELEMENTS = 8192, MOST_OUT = 1 << 20, ITEM = 8 };

static uint64_t chunk[MOST_ELEMENTS], numbers[MOST_OUT];
static uint8_t out[MOST_OUT], expected[MOST_OUT];
static uint64_t visited;
static uint64_t cases, jobs_seen, elements_seen;

static void expect(void *context, uint64_t element, int64_t to)
{
    memcpy((uint8_t *)context + to, &element, ITEM);
    visited++;
}

static uint64_t point_offset(const h5fast_plan *plan, const uint64_t *coordinates, int64_t point)
{
    uint64_t strides[H5FAST_MAX_RANK], offset = 0;
    h5fast_chunk_strides(plan->storage, strides);
    for (int axis = 0; axis < plan->storage->rank; axis++)
        if (plan->selection->coords[axis] != NULL)
            offset += ((uint64_t)plan->selection->coords[axis][point] - coordinates[axis] * plan->storage->chunk[axis]) *
                      strides[axis];
    return offset;
}

/* The box stays inside the chunk and is as long as it says; returns its elements. */
static uint64_t check_box(const model *m, const h5fast_box *box, uint64_t offset)
{
    uint64_t elements = box->run / ITEM, end = box->from + box->run;
    CHECK(box->run % ITEM == 0, "run of %llu bytes", (unsigned long long)box->run);
    for (int i = 0; i < box->loops; i++) {
        elements *= box->count[i];
        end += (box->count[i] - 1) * box->from_stride[i];
    }
    CHECK(end == box->from + box->extent, "extent %llu", (unsigned long long)box->extent);
    CHECK(offset + end <= m->storage.chunk_bytes, "ends at byte %llu of the chunk", (unsigned long long)(offset + end));
    return elements;
}

static uint64_t run_job(const model *m, const h5fast_plan *plan, uint64_t job, uint8_t *to)
{
    uint64_t coordinates[H5FAST_MAX_RANK], number = 0, elements = 0;
    numbers[job] = h5fast_plan_locate(plan, job, coordinates);
    for (int axis = 0; axis < m->storage.rank; axis++) {
        CHECK(coordinates[axis] < m->storage.grid[axis], "axis %d", axis);
        number = number * m->storage.grid[axis] + coordinates[axis];
    }
    CHECK(number == numbers[job], "chunk %llu", (unsigned long long)number);
    h5fast_box box;
    h5fast_box_make(&box, plan, coordinates);
    if (box.empty)
        return 0;
    for (uint64_t i = 0; i < m->chunk_elements; i++)
        chunk[i] = element_of(m, coordinates, i);
    const h5fast_group *group = &plan->groups[job / plan->chunks_per_group];
    for (uint64_t i = 0; i < group->count; i++) {
        int64_t point = plan->order != NULL ? plan->order[group->first + i] : (int64_t)(group->first + i);
        uint64_t offset = point_offset(plan, coordinates, point);
        elements += check_box(m, &box, offset);
        h5fast_box_copy(&box, (uint8_t *)chunk + offset, to + point * m->selection.point_stride);
    }
    return elements;
}

static int compare_numbers(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Every element's place is its own, so the right number of copies and the right bytes mean that each came once. */
static void check_plan(const model *m)
{
    h5fast_plan plan;
    uint64_t elements = 0;
    CHECK(h5fast_plan_make(&plan, &m->storage, &m->selection) == H5FAST_OK, "plan");
    CHECK(plan.job_count < MOST_OUT, "%llu jobs", (unsigned long long)plan.job_count);
    memset(out, 0xa5, m->out_bytes);
    memset(expected, 0xa5, m->out_bytes);
    visited = 0;
    visit_selection(m, expect, expected + m->out_before);
    for (uint64_t job = 0; job < plan.job_count; job++)
        elements += run_job(m, &plan, job, out + m->out_before);
    CHECK(elements == visited, "%llu elements, %llu selected", (unsigned long long)elements, (unsigned long long)visited);
    CHECK(memcmp(out, expected, m->out_bytes) == 0, "output differs");
    qsort(numbers, plan.job_count, sizeof *numbers, compare_numbers);
    for (uint64_t job = 1; job < plan.job_count; job++)
        CHECK(numbers[job] != numbers[job - 1], "chunk %llu comes twice", (unsigned long long)numbers[job]);
    cases++;
    jobs_seen += plan.job_count;
    elements_seen += visited;
    h5fast_plan_free(&plan);
}

static void test_random_selections(void)
{
    for (int round = 0, end = rounds(300000); round < end; round++) {
        static model m;
        random_storage(&m, ITEM);
        random_selection(&m, chance(10) ? MOST_POINTS : 12);
        if (m.out_bytes <= 1 << 14 && m.chunk_elements <= MOST_ELEMENTS)
            check_plan(&m);
    }
}

/* Long lists of points on long axes: the radix sort, over one, two and more digits. */
static void test_many_points(void)
{
    enum { POINTS = 5000 };
    static int64_t coords[2][POINTS];
    for (int round = 0, end = rounds(600); round < end; round++) {
        static model m;
        memset(&m, 0, sizeof m);
        m.storage.rank = 2;
        m.storage.itemsize = ITEM;
        m.selection.point_count = 1 + (int64_t)random_below(POINTS);
        for (int axis = 0; axis < 2; axis++) {
            m.storage.shape[axis] = 1 + random_below((size_t)1 << (1 + random_below(30)));
            m.storage.chunk[axis] = 1 + random_below(16);
            m.selection.coords[axis] = coords[axis];
            for (int64_t i = 0; i < m.selection.point_count; i++)
                coords[axis][i] = (int64_t)random_below((size_t)m.storage.shape[axis]);
        }
        complete_storage(&m);
        lay_out(&m);
        check_plan(&m);
    }
}

/* Spans at the far end of what 63 bits hold. */
static void test_huge_extents(void)
{
    static model m;
    for (int round = 0, end = rounds(20000); round < end; round++) {
        uint64_t extent = ((uint64_t)1 << 59) - random_below(1000);
        memset(&m, 0, sizeof m);
        m.storage.rank = 1;
        m.storage.itemsize = ITEM;
        m.storage.shape[0] = extent;
        m.storage.chunk[0] = 1 + random_below(64);
        m.selection.point_count = 1;
        m.selection.step[0] = 1 + (int64_t)random_below(chance(50) ? 3 : 200);
        m.selection.count[0] = 1 + (int64_t)random_below(50);
        m.selection.start[0] = (int64_t)extent - 1 - (m.selection.count[0] - 1) * m.selection.step[0];
        complete_storage(&m);
        lay_out(&m);
        check_plan(&m);
    }
}

int main(void)
{
    test_random_selections();
    test_many_points();
    test_huge_extents();
    printf("plan: %llu selections, %llu jobs, %llu elements: ok\n", (unsigned long long)cases,
           (unsigned long long)jobs_seen, (unsigned long long)elements_seen);
}
