/* The block pool: no two blocks overlap, nothing is lost, both sizes share the pages. */
#include "check.h"
#include "tcp/pool.h"

static uint64_t seed = 7;


static uint32_t pick(uint32_t below)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((seed >> 33) % below);
}


static smos__pool_t *new_pool(size_t bytes)
{
    void *memory = malloc(smos__pool_bytes(bytes)); /* ASan sees what is beyond it */
    memset(memory, 0xa5, smos__pool_bytes(bytes));
    return smos__pool_init(memory, bytes);
}


static void test_all_of_one_size(void)
{
    enum { PAGES = 37 };
    smos__pool_t *p = new_pool(PAGES * 2048);
    CHECK_EQ(smos__pool_size(p), PAGES * 2048);
    static uint32_t block[PAGES * 8];
    for (int round = 0; round < 3; round++) {
        bool large = round == 1;
        uint32_t n = large ? PAGES : PAGES * 8;
        for (uint32_t i = 0; i < n; i++) {
            CHECK((block[i] = smos__pool_take(p, large)) != SMOS__NO_BLOCK);
            CHECK_EQ(smos__pool_block_bytes(p, block[i]), large ? 2048 : 256);
            memset(smos__pool_at(p, block[i]), 1, large ? 2048 : 256);
        }
        CHECK_EQ(smos__pool_take(p, false), SMOS__NO_BLOCK);
        CHECK_EQ(smos__pool_take(p, true), SMOS__NO_BLOCK);
        CHECK_EQ(smos__pool_used(p), smos__pool_size(p));
        for (uint32_t i = 0; i < n; i++) smos__pool_give(p, block[(i * 11) % n]);
        CHECK_EQ(smos__pool_used(p), 0);
    }
    free(p);
}


/* One small block keeps its page from being large, and no other page. */
static void test_fragmentation_is_bounded(void)
{
    smos__pool_t *p = new_pool(4 * 2048);
    uint32_t small = smos__pool_take(p, false), large[3];
    for (int i = 0; i < 3; i++) CHECK((large[i] = smos__pool_take(p, true)) != SMOS__NO_BLOCK);
    CHECK_EQ(smos__pool_take(p, true), SMOS__NO_BLOCK);
    for (int i = 0; i < 7; i++) CHECK(smos__pool_take(p, false) != SMOS__NO_BLOCK);
    CHECK_EQ(smos__pool_take(p, false), SMOS__NO_BLOCK);
    smos__pool_give(p, large[1]);
    CHECK(smos__pool_take(p, false) != SMOS__NO_BLOCK);
    CHECK_EQ(smos__pool_take(p, true), SMOS__NO_BLOCK);
    smos__pool_give(p, small);
    CHECK_EQ(smos__pool_take(p, true), SMOS__NO_BLOCK);
    free(p);
}


/* Every block is filled with its own mark; the marks are there when it is given back. Halfway the region moves. */
static void test_random(void)
{
    enum { PAGES = 64 };
    static uint32_t block[PAGES * 8];
    uint32_t n = 0, taken[2] = { 0 };
    smos__pool_t *p = new_pool(PAGES * 2048);
    for (uint32_t k = 0; k < 200000; k++) {
        if (k == 100000) {
            smos__pool_t *moved = malloc(smos__pool_bytes(PAGES * 2048));
            memcpy(moved, p, smos__pool_bytes(PAGES * 2048));
            free(p);
            p = moved;
        }
        bool give = n && pick(k / 20000 % 2 ? 5 : 3) < 2;
        if (give) {
            uint32_t i = pick(n), b = block[i], bytes = smos__pool_block_bytes(p, b);
            const uint8_t *data = smos__pool_at(p, b);
            for (uint32_t j = 0; j < bytes; j++) CHECK_EQ(data[j], (uint8_t)(b * 31 + (bytes == 2048)));
            taken[bytes == 2048]--;
            smos__pool_give(p, b);
            block[i] = block[--n];
        } else {
            bool large = pick(3) == 0;
            uint32_t b = smos__pool_take(p, large);
            if (b == SMOS__NO_BLOCK) {
                /* Large: every page is large or holds a small one. Small: every page is full. */
                if (!large) CHECK_EQ(smos__pool_used(p), smos__pool_size(p));
                if (large) CHECK(taken[0] + taken[1] >= PAGES);
                continue;
            }
            taken[large]++;
            memset(smos__pool_at(p, b), (int)(uint8_t)(b * 31 + large), large ? 2048 : 256);
            block[n++] = b;
        }
        CHECK_EQ(smos__pool_used(p), taken[0] * 256 + taken[1] * 2048);
    }
    while (n) smos__pool_give(p, block[--n]);
    CHECK_EQ(smos__pool_used(p), 0);
    for (int i = 0; i < PAGES; i++) CHECK(smos__pool_take(p, true) != SMOS__NO_BLOCK);
    free(p);
}


/* A pool asked for less than a page has one. */
static void test_smallest(void)
{
    smos__pool_t *p = new_pool(0);
    CHECK_EQ(smos__pool_size(p), 2048);
    CHECK(smos__pool_take(p, true) != SMOS__NO_BLOCK);
    CHECK_EQ(smos__pool_take(p, false), SMOS__NO_BLOCK);
    free(p);
}


int main(void)
{
    RUN(test_all_of_one_size);
    RUN(test_fragmentation_is_bounded);
    RUN(test_random);
    RUN(test_smallest);
    return 0;
}
