/* The assembler against its reference model: exhaustive small cases, random large ones, every limit. */
#include "assembler_model.h"
#include "check.h"
#include "tcp/overlap.h"
#include "tcp/pool.h"

static model_t model;
static uint64_t seed = 1;


static uint32_t pick(uint32_t below)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((seed >> 33) % below);
}


static smos__pool_t *new_pool(size_t bytes)
{
    void *memory = malloc(smos__pool_bytes(bytes));
    memset(memory, 0xa5, smos__pool_bytes(bytes));
    return smos__pool_init(memory, bytes);
}


/* The list is what it says: in order, linked both ways, counts right, no byte twice. */
static void check_shape(const smos__assembler_t *a, const smos__pool_t *p)
{
    uint64_t (*ranges)[2] = malloc(70000 * sizeof *ranges);
    uint32_t n = smos__assembler_ranges(a, p, ranges, 70000);
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < n; i++) {
        CHECK(ranges[i][0] < ranges[i][1]);
        CHECK(!i || ranges[i - 1][1] < ranges[i][0]);
        bytes += ranges[i][1] - ranges[i][0];
    }
    CHECK_EQ(bytes, a->bytes);
    CHECK_EQ(!n, a->head == SMOS__NO_BLOCK);
    CHECK_EQ(!n, a->tail == SMOS__NO_BLOCK);
    CHECK_EQ(!n, a->segments == 0);
    free(ranges);
}


/* Buffered bytes and their places are the model's, taken out in order by front and trim of a copy at another address. */
static void check_bytes(const smos__assembler_t *original, const smos__pool_t *p, size_t pool_bytes, const model_t *m, uint64_t base, uint32_t span)
{
    smos__assembler_t a = *original;
    smos__pool_t *copy = malloc(smos__pool_bytes(pool_bytes));
    memcpy(copy, p, smos__pool_bytes(pool_bytes));
    uint32_t at = 0, length;
    const uint8_t *data;
    uint64_t offset;
    while ((length = smos__assembler_front(&a, copy, &offset, &data))) {
        CHECK(offset >= base + at);
        for (; base + at < offset; at++) CHECK(!m->byte[at].held);
        for (uint32_t i = 0; i < length; i++, at++) {
            CHECK(m->byte[at].held);
            CHECK_EQ(data[i], m->byte[at].value);
        }
        smos__assembler_trim(&a, copy, base + at);
    }
    for (; at < span; at++) CHECK(!m->byte[at].held);
    CHECK_EQ(a.segments, 0);
    CHECK_EQ(a.bytes, 0);
    free(copy);
}


static void check_result(const smos__insert_result_t *got, const smos__insert_result_t *want, uint64_t base)
{
    CHECK_EQ(got->stored, want->stored);
    CHECK_EQ(got->duplicate, want->duplicate);
    CHECK_EQ(got->conflicting, want->conflicting);
    CHECK_EQ(got->kept_old, want->kept_old);
    CHECK_EQ(got->took_new, want->took_new);
    if (want->conflicting) CHECK_EQ(got->conflict_offset, base + want->conflict_offset);
}


static void test_rules(void)
{
    for (int policy = 0; policy < SMOS__OVERLAP_POLICIES; policy++) {
        const uint32_t at[3] = { 10, 20, 30 }, end[3] = { 40, 50, 60 };
        for (int s = 0; s < 3; s++)
            for (int e = 0; e < 3; e++)
                CHECK_EQ(smos__overlap_new_wins(policy, 20, 50, at[s], end[e]), MODEL_RULES[policy][3 * s + e] == 'N');
    }
}


/* Every sequence of three segments on a line of six bytes, each with bytes of its own, under every policy. */
static void test_every_triple(void)
{
    enum { LINE = 6 };
    uint32_t segment[21][2], n = 0;
    for (uint32_t s = 0; s < LINE; s++)
        for (uint32_t e = s + 1; e <= LINE; e++) segment[n][0] = s, segment[n++][1] = e;
    smos__pool_t *p = new_pool(16384);
    const uint64_t base = (3ull << 32) - 3;
    for (int policy = 0; policy < SMOS__OVERLAP_POLICIES; policy++) {
        for (uint32_t code = 0; code < n * n * n; code++) {
            smos__assembler_t a;
            smos__assembler_init(&a);
            memset(model.byte, 0, LINE * sizeof model.byte[0]);
            for (uint32_t k = 0, c = code; k < 3; k++, c /= n) {
                const uint32_t *s = segment[c % n];
                uint8_t data[LINE];
                memset(data, (int)('a' + k), LINE);
                if (code % 2) data[0] = '=';
                smos__insert_result_t got, want;
                smos__assembler_insert(&a, p, base + s[0], data, s[1] - s[0], policy, 1000, 100, &got);
                model_insert(&model, s[0], s[1], s[1], data, policy, &want);
                CHECK(!got.full);
                check_result(&got, &want, base);
            }
            uint32_t at = 0, length;
            const uint8_t *bytes;
            uint64_t offset;
            while ((length = smos__assembler_front(&a, p, &offset, &bytes))) {
                for (; base + at < offset; at++) CHECK(!model.byte[at].held);
                for (uint32_t i = 0; i < length; i++, at++) CHECK(model.byte[at].held && model.byte[at].value == bytes[i]);
                smos__assembler_trim(&a, p, offset + length);
            }
            for (; at < LINE; at++) CHECK(!model.byte[at].held);
            CHECK_EQ(smos__pool_used(p), 0);
        }
    }
    free(p);
}


/* Which of the packet's bytes would win, and compare: byte by byte as the model says. */
static void check_questions(const smos__assembler_t *a, const smos__pool_t *p, uint64_t base, uint32_t span, int policy)
{
    static uint8_t data[3000];
    uint32_t start = pick(span), length = 1 + pick(sizeof data), differ = 0;
    uint64_t first = 0, model_first = 0;
    for (uint32_t i = 0; i < length; i++) {
        const model_byte_t *b = &model.byte[start + i];
        data[i] = b->held && pick(50) ? b->value : (uint8_t)pick(256);
        if (b->held && b->value != data[i] && !differ++) model_first = base + start + i;
    }
    CHECK_EQ(smos__assembler_compare(a, p, base + start, data, length, &first), differ);
    if (differ) CHECK_EQ(first, model_first);
    uint32_t prefix = 0;
    for (uint32_t at = 0; at < length;) {
        bool packet;
        uint32_t n = smos__assembler_winner(a, p, base + start, length, base + start + at, policy, &packet);
        CHECK(n > 0 && n <= length - at);
        for (uint32_t i = 0; i <= n && at + i < length; i++) {
            const model_byte_t *b = &model.byte[start + at + i];
            bool wins = !b->held || model_new_wins(policy, b, start, start + length);
            CHECK_EQ(wins, i < n ? packet : !packet);
        }
        if (!at && packet) prefix = n;
        at += n;
    }
    CHECK_EQ(smos__assembler_new_wins(a, p, base + start, length, policy), prefix);
}


/* Random segments, sizes and places; with a pool or limits that may be too small. */
static void random_run(int policy, size_t pool_bytes, uint32_t span, uint32_t longest, uint32_t count, uint32_t max_bytes, uint32_t max_segments)
{
    static uint8_t data[70000];
    const uint64_t base = ((uint64_t)pick(4) << 32) + (pick(2) ? UINT32_MAX - pick(1000) : pick(5));
    smos__pool_t *p = new_pool(pool_bytes);
    smos__assembler_t a;
    smos__assembler_init(&a);
    memset(&model, 0, sizeof model);
    uint32_t trimmed = 0;
    for (uint32_t k = 0; k < count; k++) {
        uint32_t start = trimmed + pick(span - trimmed), length = 1 + pick(pick(4) ? longest : (longest / 20) + 1);
        if (pick(3) == 0 && a.tail != SMOS__NO_BLOCK) { /* right after the last byte */
            start = span;
            while (start > trimmed && !model.byte[start - 1].held) start--;
        }
        if (start >= span) continue;
        if (length > span - start) length = span - start;
        for (uint32_t i = 0; i < length; i++) {
            const model_byte_t *b = &model.byte[start + i];
            data[i] = b->held && pick(8) ? b->value : (uint8_t)k;
        }
        smos__insert_result_t got, want;
        smos__assembler_insert(&a, p, base + start, data, length, policy, max_bytes, max_segments, &got);
        CHECK(a.bytes <= max_bytes);
        CHECK(a.segments <= max_segments);
        CHECK(smos__pool_used(p) <= smos__pool_size(p));
        uint32_t upto = start + length;
        if (got.full) {
            /* What was done is what the model does with a first part of the segment. */
            CHECK(max_bytes - a.bytes < length || a.segments == max_segments || smos__pool_size(p) - smos__pool_used(p) < 4096 + 8 * length);
            upto = start + got.stored + got.duplicate + got.conflicting;
            CHECK(upto < start + length);
        }
        model_insert(&model, start, start + length, upto, data, policy, &want);
        check_result(&got, &want, base);
        if (!pick(4)) check_questions(&a, p, base, span, policy);
        if (!pick(20)) {
            trimmed += pick((span - trimmed) / 4 + 1);
            smos__assembler_trim(&a, p, base + trimmed);
            for (uint32_t i = 0; i < trimmed; i++) model.byte[i].held = false;
        }
        check_shape(&a, p);
        if (!pick(10)) check_bytes(&a, p, pool_bytes, &model, base, span);
    }
    check_bytes(&a, p, pool_bytes, &model, base, span);
    smos__assembler_clear(&a, p);
    CHECK_EQ(smos__pool_used(p), 0);
    CHECK_EQ(a.segments, 0);
    free(p);
}


static void test_random(void)
{
    for (int policy = 0; policy < SMOS__OVERLAP_POLICIES; policy++) {
        for (int k = 0; k < 8; k++) random_run(policy, 1 << 20, 60, 12, 60, 1 << 20, 60000);
        for (int k = 0; k < 4; k++) random_run(policy, 1 << 20, 3000, 40, 400, 1 << 20, 60000);
        random_run(policy, 4 << 20, 20000, 3000, 200, 4 << 20, 60000);
        random_run(policy, 8 << 20, 150000, 65535, 60, 8 << 20, 60000);
    }
}


static void test_random_with_limits(void)
{
    for (int policy = 0; policy < SMOS__OVERLAP_POLICIES; policy++) {
        for (uint32_t pages = 1; pages < 8; pages++) random_run(policy, 2048 * pages, 6000, 900, 120, 1 << 20, 60000);
        for (uint32_t pages = 1; pages < 4; pages++) random_run(policy, 2048 * pages, 3000, 30, 300, 1 << 20, 60000);
        random_run(policy, 1 << 20, 20000, 2500, 100, 3000, 60000);
        random_run(policy, 1 << 20, 20000, 2500, 100, 0, 60000);
        for (uint32_t segments = 0; segments < 6; segments++) random_run(policy, 1 << 20, 3000, 60, 100, 1 << 20, segments);
    }
}


/* A block full of bytes whose owners change until its runs need more room than it has. */
static void test_many_owners_in_one_block(void)
{
    const int policies[] = { SMOS__OVERLAP_BSD_RIGHT, SMOS__OVERLAP_BSD, SMOS__OVERLAP_SOLARIS, SMOS__OVERLAP_LINUX };
    for (uint32_t k = 0; k < sizeof policies / sizeof policies[0]; k++) {
        smos__pool_t *p = new_pool(1 << 20);
        smos__assembler_t a;
        static uint8_t data[2018];
        smos__insert_result_t got, want;
        smos__assembler_init(&a);
        memset(&model, 0, sizeof model);
        memset(data, '.', sizeof data);
        smos__assembler_insert(&a, p, 0, data, 2018, policies[k], 1 << 20, 60000, &got);
        model_insert(&model, 0, 2018, 2018, data, policies[k], &want);
        CHECK_EQ(a.segments, 1); /* a large block holds 2,018 bytes of one segment */
        for (uint32_t i = 0; i < 3000; i++) {
            uint32_t start = pick(2018), length = 1 + pick(6);
            if (length > 2018 - start) length = 2018 - start;
            memset(data, (int)(i % 251), length);
            smos__assembler_insert(&a, p, start, data, length, policies[k], 1 << 20, 60000, &got);
            model_insert(&model, start, start + length, start + length, data, policies[k], &want);
            CHECK(!got.full);
            check_result(&got, &want, 0);
        }
        if (policies[k] == SMOS__OVERLAP_BSD_RIGHT) CHECK(a.segments > 3);
        check_bytes(&a, p, 1 << 20, &model, 0, 2018);
        free(p);
    }
}


/* Segments of one stream in any order, repeated and overlapping: the same bytes, whatever the policy. */
static void test_consistent_data_in_any_order(void)
{
    enum { STREAM = 30000 };
    static uint8_t stream[STREAM];
    for (uint32_t i = 0; i < STREAM; i++) stream[i] = (uint8_t)pick(256);
    for (int policy = 0; policy < SMOS__OVERLAP_POLICIES; policy++) {
        smos__pool_t *p = new_pool(1 << 20);
        smos__assembler_t a;
        smos__assembler_init(&a);
        uint32_t cut[600][2], n = 0;
        for (uint32_t at = 0; at < STREAM && n < 300;) {
            uint32_t length = 1 + pick(pick(2) ? 300 : 20);
            if (n == 299 || length > STREAM - at) length = STREAM - at;
            cut[n][0] = at, cut[n++][1] = length;
            at += length;
        }
        for (uint32_t extra = n; extra < 600; extra++) {
            cut[extra][0] = pick(STREAM - 1);
            cut[extra][1] = 1 + pick(STREAM - cut[extra][0] < 1000 ? STREAM - cut[extra][0] : 1000);
        }
        for (uint32_t i = 599; i > 0; i--) {
            uint32_t j = pick(i + 1), s = cut[i][0], l = cut[i][1];
            cut[i][0] = cut[j][0], cut[i][1] = cut[j][1], cut[j][0] = s, cut[j][1] = l;
        }
        for (uint32_t i = 0; i < 600; i++) {
            smos__insert_result_t got;
            smos__assembler_insert(&a, p, cut[i][0], stream + cut[i][0], cut[i][1], policy, 1 << 20, 60000, &got);
            CHECK(!got.full && !got.conflicting && !got.kept_old && !got.took_new);
            CHECK_EQ(got.stored + got.duplicate, cut[i][1]);
        }
        CHECK_EQ(a.bytes, STREAM);
        uint32_t at = 0, length;
        const uint8_t *data;
        uint64_t offset;
        while ((length = smos__assembler_front(&a, p, &offset, &data))) {
            CHECK_EQ(offset, at);
            CHECK(!memcmp(data, stream + at, length));
            at += length;
            smos__assembler_trim(&a, p, at);
        }
        CHECK_EQ(at, STREAM);
        free(p);
    }
}


/* Small segments share blocks: a thousand bytes one by one need no thousand blocks, under any policy. */
static void test_small_segments_share_blocks(void)
{
    for (int policy = 0; policy < SMOS__OVERLAP_POLICIES; policy++) {
        smos__pool_t *p = new_pool(1 << 20);
        smos__assembler_t a;
        smos__insert_result_t got;
        smos__assembler_init(&a);
        for (uint32_t i = 0; i < 1000; i++) smos__assembler_insert(&a, p, 5 + i, (const uint8_t *)"x", 1, policy, 1 << 20, 60000, &got);
        CHECK_EQ(a.bytes, 1000);
        CHECK(a.segments <= (smos__overlap_needs_bounds(policy) ? 32 : 5));
        CHECK_EQ(smos__pool_used(p), 256 * (uint64_t)a.segments);
        free(p);
    }
}


/* More than 65,535 bytes at once count as several segments. */
static void test_long_segment(void)
{
    static uint8_t data[150000];
    for (uint32_t i = 0; i < sizeof data; i++) data[i] = (uint8_t)(i * 7 / 3);
    smos__pool_t *p = new_pool(1 << 20);
    smos__assembler_t a;
    smos__insert_result_t got;
    smos__assembler_init(&a);
    smos__assembler_insert(&a, p, 1ull << 40, data, sizeof data, SMOS__OVERLAP_LINUX, 1 << 20, 60000, &got);
    CHECK_EQ(got.stored, sizeof data);
    smos__assembler_insert(&a, p, 1ull << 40, data, sizeof data, SMOS__OVERLAP_LINUX, 1 << 20, 60000, &got);
    CHECK_EQ(got.duplicate, sizeof data);
    uint64_t ranges[2][2];
    CHECK_EQ(smos__assembler_ranges(&a, p, ranges, 2), 1);
    CHECK(ranges[0][0] == 1ull << 40 && ranges[0][1] == (1ull << 40) + sizeof data);
    free(p);
}


static void test_ranges_are_bounded(void)
{
    smos__pool_t *p = new_pool(1 << 16);
    smos__assembler_t a;
    smos__insert_result_t got;
    smos__assembler_init(&a);
    for (uint32_t i = 0; i < 5; i++) smos__assembler_insert(&a, p, 10 * i, (const uint8_t *)"abc", 3, 0, 1000, 100, &got);
    uint64_t ranges[4][2] = { { 0 } };
    CHECK_EQ(smos__assembler_ranges(&a, p, ranges, 3), 3);
    CHECK(ranges[2][0] == 20 && ranges[2][1] == 23 && ranges[3][1] == 0);
    smos__assembler_insert(&a, p, 3, (const uint8_t *)"defghij", 7, 0, 1000, 100, &got);
    CHECK_EQ(smos__assembler_ranges(&a, p, ranges, 4), 4);
    CHECK(ranges[0][0] == 0 && ranges[0][1] == 13);
    free(p);
}


int main(void)
{
    RUN(test_rules);
    RUN(test_every_triple);
    RUN(test_random);
    RUN(test_random_with_limits);
    RUN(test_many_owners_in_one_block);
    RUN(test_consistent_data_in_any_order);
    RUN(test_small_segments_share_blocks);
    RUN(test_long_segment);
    RUN(test_ranges_are_bounded);
    return 0;
}
