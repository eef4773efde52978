/* The table against a list of what was put in, while it grows and shrinks, with even and with crowded hashes. */
#include <stdlib.h>

#include "check.h"
#include "flow/table.h"

enum { FLOWS = 200000 }; /* it grows from 65,536 on */

static smos__flow_t *flows;
static uint32_t hashes[FLOWS];
static bool in[FLOWS];
static uint64_t seed;

static uint32_t roll(void) { return (uint32_t)((seed = seed * 6364136223846793005u + 1442695040888963407u) >> 33); }

static void *zeroed(size_t bytes)
{
    void *memory = aligned_alloc(64, bytes);
    return memset(memory, 0, bytes);
}

static void check_all(const smos__table_t *t, uint32_t n)
{
    uint32_t entries = 0;
    for (uint32_t i = 0; i < n; i++) {
        int direction = -1;
        uint32_t found = smos__table_find(t, flows, hashes[i], &flows[i].tuple, &direction);
        CHECK_EQ(found, in[i] ? i : SMOS__NO_FLOW);
        entries += in[i];
    }
    CHECK_EQ(t->entries, entries);
}

/* `kinds` different hashes, spread by `step`. */
static void exercise(uint32_t capacity, uint32_t n, uint32_t kinds, uint32_t step, uint32_t rounds)
{
    smos__table_t t = { .count = 0 };
    void *memory = zeroed(smos__table_bytes(capacity));
    smos__table_init(&t, memory, capacity);
    for (uint32_t i = 0; i < n; i++) {
        flows[i].tuple = (smos_tuple_t){ .version = 4, .proto = 6, .sport = (uint16_t)i, .dport = 80 };
        memcpy(flows[i].tuple.src, &i, 4);
        hashes[i] = kinds ? roll() % kinds * step : roll() * 2654435761u;
        in[i] = false;
    }
    for (uint32_t round = 0; round < rounds; round++) {
        uint32_t keep = round % 2 ? 1 : 7; /* of eight */
        for (uint32_t i = 0; i < n; i++) {
            bool want = roll() % 8 < keep;
            if (want && !in[i])
                in[i] = smos__table_insert(&t, hashes[i], i);
            else if (!want && in[i])
                smos__table_remove(&t, hashes[i], i), in[i] = false;
        }
        check_all(&t, n);
    }
    smos__table_clear(&t);
    memset(in, 0, sizeof in);
    check_all(&t, n);
    for (uint32_t i = 0; i < t.count; i++) CHECK_EQ(t.buckets[i].passed, 0);
    free(memory);
}

static void test_grows(void)
{
    exercise(FLOWS, FLOWS, 0, 0, 6);
    exercise(100, 100, 0, 0, 4);
}

/* Many flows of few hashes: buckets overflow far, at the table's end too, and some find no room. */
static void test_crowded(void)
{
    exercise(FLOWS, 120000, 240, 0x10001, 3);
    exercise(FLOWS, 120000, 2400, 1, 3);
    exercise(FLOWS, 120000, 300, 0xffffffffu / 299, 3);
    exercise(FLOWS, 120000, 3000, 0x3ff, 3);
    exercise(5000, 5000, 300, 0x3ff, 5);
}

/* What it was made for: its capacity of evenly spread hashes, all let in. */
static void test_holds_its_capacity(void)
{
    smos__table_t t = { .count = 0 };
    void *memory = zeroed(smos__table_bytes(FLOWS));
    smos__table_init(&t, memory, FLOWS);
    for (uint32_t i = 0; i < FLOWS; i++) CHECK_EQ(smos__table_insert(&t, roll() * 2654435761u, i), true);
    CHECK_EQ(t.count, t.max);
    free(memory);
}

int main(void)
{
    flows = zeroed(FLOWS * sizeof *flows);
    RUN(test_grows);
    RUN(test_crowded);
    RUN(test_holds_its_capacity);
    free(flows);
    return 0;
}
