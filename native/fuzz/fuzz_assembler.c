/* Any sequence of segments, trims and limits, under any policy: the assembler holds what its reference model holds. */
#include <stdio.h>
#include <stdlib.h>

#include "../tests/assembler_model.h"
#include "tcp/pool.h"

#define SPAN 8192u
#define REQUIRE(condition) do { if (!(condition)) { fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); abort(); } } while (0)

static model_t model;

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

/* Same bytes at the same places. */
static void compare(smos__assembler_t a, const smos__pool_t *pool, size_t bytes, uint64_t base)
{
    smos__pool_t *p = malloc(bytes);
    memcpy(p, pool, bytes);
    uint32_t at = 0, length;
    const uint8_t *data;
    uint64_t offset;
    while ((length = smos__assembler_front(&a, p, &offset, &data))) {
        REQUIRE(offset >= base + at);
        for (; base + at < offset; at++) REQUIRE(!model.byte[at].held);
        for (uint32_t i = 0; i < length; i++, at++) REQUIRE(model.byte[at].held && model.byte[at].value == data[i]);
        smos__assembler_trim(&a, p, base + at);
    }
    for (; at < SPAN; at++) REQUIRE(!model.byte[at].held);
    REQUIRE(a.bytes == 0 && a.segments == 0 && smos__pool_used(p) == 0);
    free(p);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    if (size < 5) return 0;
    int policy = input[0] % SMOS__OVERLAP_POLICIES;
    size_t pool_bytes = 2048u * (1 + input[1] % 16);
    uint32_t max_bytes = input[2] == 255 ? UINT32_MAX : input[2] * 64u, max_segments = input[3] == 255 ? 1000 : input[3];
    uint64_t base = input[4] & 1 ? ((uint64_t)1 << 32) - input[4] : 0;
    input += 5;
    size -= 5;
    smos__pool_t *p = smos__pool_init(malloc(smos__pool_bytes(pool_bytes)), pool_bytes);
    smos__assembler_t a;
    smos__assembler_init(&a);
    memset(model.byte, 0, SPAN * sizeof model.byte[0]);
    uint32_t trimmed = 0;
    uint8_t data[SPAN];
    for (; size >= 5; input += 5, size -= 5) {
        uint32_t start = (uint32_t)(input[0] | input[1] << 8) % SPAN, length = (uint32_t)(input[2] | input[3] << 8) % 2500;
        if (input[4] == 255) {
            if (start < trimmed) continue;
            trimmed = start;
            smos__assembler_trim(&a, p, base + trimmed);
            for (uint32_t i = 0; i < trimmed; i++) model.byte[i].held = false;
            continue;
        }
        if (start < trimmed) start = trimmed;
        if (length > SPAN - start) length = SPAN - start;
        for (uint32_t i = 0; i < length; i++) data[i] = input[4] & 1 ? (uint8_t)(start + i) : input[4];
        uint64_t first = 0;
        uint32_t differ = 0, prefix = 0;
        for (uint32_t i = 0; i < length; i++) differ += model.byte[start + i].held && model.byte[start + i].value != data[i];
        while (prefix < length && (!model.byte[start + prefix].held || model_new_wins(policy, &model.byte[start + prefix], start, start + length))) prefix++;
        REQUIRE(smos__assembler_compare(&a, p, base + start, data, length, &first) == differ);
        REQUIRE(smos__assembler_new_wins(&a, p, base + start, length, policy) == prefix);
        smos__insert_result_t got, want;
        smos__assembler_insert(&a, p, base + start, data, length, policy, max_bytes, max_segments, &got);
        REQUIRE(a.bytes <= max_bytes && a.segments <= max_segments);
        uint32_t done = got.stored + got.duplicate + got.conflicting;
        REQUIRE(got.full ? done < length : done == length);
        model_insert(&model, start, start + length, start + done, data, policy, &want);
        REQUIRE(got.stored == want.stored && got.duplicate == want.duplicate && got.conflicting == want.conflicting);
        REQUIRE(got.kept_old == want.kept_old && got.took_new == want.took_new);
        REQUIRE(!want.conflicting || got.conflict_offset == base + want.conflict_offset);
    }
    compare(a, p, smos__pool_bytes(pool_bytes), base);
    smos__assembler_clear(&a, p);
    REQUIRE(smos__pool_used(p) == 0);
    free(p);
    return 0;
}
