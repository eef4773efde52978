/* The queue of unconfirmed flows against a plain list: whoever waits is found, oldest first, however much churn there is beside it. */
#include <stdlib.h>

#include "check.h"
#include "flow/queue.h"

enum { FLOWS = 300 };

static smos__arena_t arena;
static smos__queue_t queue;
static uint32_t model[FLOWS], waiting; /* oldest first */
static uint32_t seed = 1;

static uint32_t roll(uint32_t below) { return (seed = seed * 1664525u + 1013904223u) / 65536 % below; }

static void lay_out(void)
{
    size_t bytes = smos__arena_bytes(FLOWS, 4096);
    smos__arena_init(&arena, memset(aligned_alloc(4096, (bytes + 4095) & ~(size_t)4095), 0, bytes), FLOWS, 4096);
    queue.links = malloc(smos__queue_bytes(FLOWS));
    smos__queue_init(&queue, queue.links);
    waiting = 0;
}

static void tear_down(void)
{
    free(arena.header);
    free(queue.links);
}

static void push(uint32_t flow)
{
    smos__queue_push(&queue, &arena, flow);
    model[waiting++] = flow;
}

static void forget(uint32_t flow)
{
    uint32_t at = 0;
    while (model[at] != flow) at++;
    memmove(model + at, model + at + 1, (--waiting - at) * sizeof *model);
}

static void check(void)
{
    uint32_t at = queue.head, before = SMOS__NO_FLOW;
    for (uint32_t i = 0; i < waiting; i++) {
        CHECK_EQ(at, model[i]);
        CHECK_EQ(queue.links[at].prev, before);
        CHECK(arena.hot[at].flags & SMOS__FLOW_QUEUED);
        before = at;
        at = queue.links[at].next;
    }
    CHECK_EQ(at, SMOS__NO_FLOW);
    CHECK_EQ(queue.tail, before);
    CHECK_EQ(smos__queue_oldest(&queue), waiting ? model[0] : SMOS__NO_FLOW);
}

static void test_empty(void)
{
    lay_out();
    check();
    push(7);
    check();
    smos__queue_rotate(&queue);
    check();
    smos__queue_remove(&queue, &arena, 7);
    forget(7);
    CHECK(!(arena.hot[7].flags & SMOS__FLOW_QUEUED));
    check();
    tear_down();
}

/* A ring of entries lost those that waited when others came and went beside them. */
static void test_those_who_wait_outlast_any_churn(void)
{
    lay_out();
    for (uint32_t i = 0; i < FLOWS - 1; i++) push(i);
    for (int i = 0; i < 10 * FLOWS; i++) {
        push(FLOWS - 1);
        smos__queue_remove(&queue, &arena, FLOWS - 1);
        forget(FLOWS - 1);
    }
    check();
    tear_down();
}

static void test_like_a_plain_list(void)
{
    lay_out();
    for (int step = 0; step < 20000; step++) {
        uint32_t flow = roll(FLOWS);
        bool in = arena.hot[flow].flags & SMOS__FLOW_QUEUED;
        if (roll(10) == 0 && waiting) {
            smos__queue_rotate(&queue);
            uint32_t first = model[0];
            forget(first);
            model[waiting++] = first;
        } else if (in) {
            smos__queue_remove(&queue, &arena, flow);
            forget(flow);
        } else {
            push(flow);
        }
        if (step % 16 == 0) check();
    }
    check();
    tear_down();
}

int main(void)
{
    RUN(test_empty);
    RUN(test_those_who_wait_outlast_any_churn);
    RUN(test_like_a_plain_list);
    return 0;
}
