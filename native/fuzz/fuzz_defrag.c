/* Any sequence of fragments. First the input's bytes as they are, in memory of exactly their size; then well-formed IPv4 fragments that the
 * input describes, whose datagrams must be what the reference makes of them. */
#include <stdio.h>
#include <stdlib.h>

#include "../tests/defrag_model.h"

#define REQUIRE(condition) do { if (!(condition)) { fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); abort(); } } while (0)

static smos__defrag_t *d;
static void *memory;
static int64_t now;
static volatile uint8_t sink;

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);


static const uint8_t *add(const uint8_t *packet, uint32_t captured, uint32_t ip_len, uint16_t vlan, uint32_t *length)
{
    uint16_t anomalies[SMOS__MAX_ANOMALIES];
    uint8_t count = 0;
    uint8_t *exact = malloc(captured ? captured : 1);
    memcpy(exact, packet, captured);
    smos__frame_t frame = { .time_ns = now };
    smos__layer_t meta = { .tuple = { .vlan = vlan } };
    const uint8_t *whole = smos__defrag_add(d, &frame, exact, captured, ip_len, &meta, length, anomalies, &count);
    free(exact);
    REQUIRE(count <= SMOS__MAX_ANOMALIES);
    for (uint8_t i = 0; i < count; i++) REQUIRE(anomalies[i] >= SMOS__ANOMALY_FRAG_OVERLAP && anomalies[i] <= SMOS__ANOMALY_FRAG_PROTOCOL_INCONSISTENT);
    const smos__defrag_stats_t *s = smos__defrag_stats(d);
    REQUIRE(s->waiting <= 8 && s->bytes <= 2 << 20 && s->completed <= s->fragments);
    if (whole) { /* readable to its end, and its own length says so */
        uint32_t says = whole[0] >> 4 == 4 ? get16(whole + 2) : 40 + get16(whole + 4);
        REQUIRE(*length == says);
        uint8_t sum = 0;
        for (uint32_t i = 0; i < *length; i++) sum ^= whole[i];
        sink = sum;
        if (whole[0] >> 4 == 4) REQUIRE(sum16(whole, (whole[0] & 15u) * 4) == 0xffff && (get16(whole + 6) & 0x3fff) == 0);
    }
    return whole;
}


static void raw(const uint8_t *input, size_t size)
{
    uint32_t length;
    while (size >= 4) {
        uint32_t captured = input[0] | (uint32_t)input[1] << 8, missing = input[2] == 255 ? 1 : 0;
        now += (int64_t)input[3] << 28;
        input += 4, size -= 4;
        if (captured > size) captured = (uint32_t)size;
        add(input, captured, captured + missing, 0, &length);
        if (captured % 7 == 0) smos__defrag_release(d);
        if (captured % 5 == 0) smos__defrag_expire(d, now, 2);
        input += captured, size -= captured;
    }
}


static void described(const uint8_t *input, size_t size, int policy)
{
    static whole_t w;
    static part_t p;
    static uint8_t packet[70000];
    uint32_t length, sent = 0;
    uint16_t id = 0;
    bool six = size && input[0] & 1;
    whole_clear(&w);
    for (uint8_t k = 0; size >= 4 && sent < 150000; input += 4, size -= 4, k++) {
        p.more = input[0] & 2;
        p.offset = 8u * (input[1] | (input[0] & 4 ? (uint32_t)(input[3] & 7) << 8 : 0));
        p.length = p.more ? 8u * input[2] : input[2] | (uint32_t)(input[3] & 3) << 8;
        if (!p.length || (!p.offset && !p.more)) continue;
        for (uint32_t i = 0; i < p.length; i++) p.data[i] = input[0] & 8 ? k : (uint8_t)(p.offset + i);
        sent += p.length;
        const uint8_t *whole = add(packet, 0, 0, 0, &length);
        REQUIRE(!whole);
        uint32_t bytes = six ? make6(packet, &p, id, true) : make4(packet, &p, id, 0);
        whole = add(packet, bytes, bytes, 9, &length);
        whole_add(&w, &p, six ? SMOS__DEFRAG_FIRST : policy);
        REQUIRE((whole != NULL) == whole_complete(&w));
        if (!whole) continue;
        uint32_t header = six ? 64 : 20;
        REQUIRE(length == header + w.end && !memcmp(whole + header, w.value, w.end));
        whole_clear(&w);
        smos__defrag_release(d);
        sent = 0;
        id++;
    }
}


int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    if (size < 2) return 0;
    int policy = input[0] % SMOS__DEFRAG_POLICIES;
    smos__defrag_config_t c = { .max_datagrams = 8, .max_bytes = 1 << 19, .max_fragments = 64 + 8192u * (input[1] & 1), .timeout_ns = 60000000000,
                                .policy = (uint8_t)policy, .key = { input[0], 7 } };
    size_t bytes = (smos__defrag_size(&c) + 63) & ~(size_t)63;
    memory = aligned_alloc(64, bytes);
    d = smos__defrag_init(memory, &c);
    now = 0;
    if (input[1] & 2 && input[1] & 1)
        described(input + 2, size - 2, policy);
    else
        raw(input + 2, size - 2);
    smos__defrag_expire(d, INT64_MAX, 1000);
    REQUIRE(smos__defrag_stats(d)->waiting == 0 && smos__defrag_stats(d)->bytes == 0);
    free(memory);
    return 0;
}
