/* The defragmenter: RFC examples, every order, each anomaly with a near miss, every policy against the reference, bounds and time. */
#include "check.h"
#include "defrag_model.h"

#define SECOND INT64_C(1000000000)

static smos__defrag_t *d;
static int64_t now = 1000 * SECOND;
static uint16_t anomalies[SMOS__MAX_ANOMALIES];
static uint8_t anomaly_count;
static uint32_t got_length;
static uint64_t seed = 3;
static uint16_t vlan;


static uint32_t pick(uint32_t below)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((seed >> 33) % below);
}


static void start_with(int policy, uint32_t datagrams, uint32_t bytes, uint32_t fragments)
{
    smos__defrag_config_t c = { .max_datagrams = datagrams, .max_bytes = bytes, .max_fragments = fragments, .timeout_ns = 60 * SECOND,
                                .policy = (uint8_t)policy, .key = { 1, 2 } };
    size_t size = smos__defrag_size(&c);
    free(d);
    void *memory = aligned_alloc(64, (size + 63) & ~(size_t)63);
    memset(memory, 0x5a, size);
    d = smos__defrag_init(memory, &c);
    vlan = 0;
}


static void start(int policy) { start_with(policy, 64, 4 << 20, 8192); }


/* Adds a packet that lies in memory of exactly its captured size. */
static const uint8_t *add_captured(const uint8_t *packet, uint32_t length, uint32_t captured)
{
    uint8_t *exact = malloc(captured ? captured : 1);
    memcpy(exact, packet, captured);
    smos__frame_t frame = { .data = exact, .caplen = captured, .len = length, .time_ns = now };
    smos__layer_t meta = { .tuple = { .version = packet[0] >> 4, .vlan = vlan } };
    bool six = packet[0] >> 4 == 6;
    if (!six) memset(meta.tuple.src + 10, 0xff, 2), memset(meta.tuple.dst + 10, 0xff, 2);
    memcpy(meta.tuple.src + (six ? 0 : 12), packet + (six ? 8 : 12), six ? 16 : 4);
    memcpy(meta.tuple.dst + (six ? 0 : 12), packet + (six ? 24 : 16), six ? 16 : 4);
    anomaly_count = 0;
    got_length = 0;
    const uint8_t *whole = smos__defrag_add(d, &frame, exact, captured, length, &meta, &got_length, anomalies, &anomaly_count);
    free(exact); /* nothing of it is kept */
    return whole;
}


static const uint8_t *add(const uint8_t *packet, uint32_t length) { return add_captured(packet, length, length); }


static bool has(smos__anomaly_t anomaly)
{
    for (int i = 0; i < anomaly_count; i++)
        if (anomalies[i] == anomaly) return true;
    return false;
}


static part_t part(uint32_t offset, uint32_t length, bool more, int fill)
{
    static part_t p;
    p.offset = offset, p.length = length, p.more = more;
    for (uint32_t i = 0; i < length; i++) p.data[i] = (uint8_t)(fill ? fill : (int)((offset + i) * 7 % 251));
    return p;
}


static uint8_t packet[70000];


static const uint8_t *add4(uint32_t offset, uint32_t length, bool more, int fill)
{
    static part_t p;
    p = part(offset, length, more, fill);
    return add(packet, make4(packet, &p, 77, 0));
}


static const uint8_t *add6(uint32_t offset, uint32_t length, bool more, int fill)
{
    static part_t p;
    p = part(offset, length, more, fill);
    return add(packet, make6(packet, &p, 0x12345678, false));
}


static void check_data(const uint8_t *whole, uint32_t header, uint32_t length)
{
    CHECK(whole != NULL);
    CHECK_EQ(got_length, header + length);
    for (uint32_t i = 0; i < length; i++) CHECK_EQ(whole[header + i], i * 7 % 251);
}


/* RFC 791, appendix A, examples 2 and 3: 452 octets of data in fragments of 256 and 196. */
static void test_rfc791_example(void)
{
    for (int order = 0; order < 2; order++) {
        start(SMOS__DEFRAG_LINUX);
        CHECK(!(order ? add4(256, 196, false, 0) : add4(0, 256, true, 0)));
        CHECK_EQ(get16(packet + 2), order ? 216 : 276);
        CHECK_EQ(get16(packet + 6), order ? 32 : 0x2000);
        CHECK_EQ(smos__defrag_stats(d)->waiting, 1);
        const uint8_t *whole = order ? add4(0, 256, true, 0) : add4(256, 196, false, 0);
        check_data(whole, 20, 452);
        CHECK_EQ(get16(whole + 2), 472);
        CHECK_EQ(get16(whole + 4), 77);
        CHECK_EQ(get16(whole + 6), 0);
        CHECK_EQ(sum16(whole, 20), 0xffff);
        CHECK_EQ(anomaly_count, 0);
        CHECK_EQ(smos__defrag_stats(d)->waiting, 0);
        CHECK_EQ(smos__defrag_stats(d)->bytes, 0);
        CHECK_EQ(smos__defrag_stats(d)->completed, 1);
        CHECK_EQ(smos__defrag_stats(d)->fragments, 2);
    }
}


/* RFC 791: the options of the first fragment are the datagram's; DF stays as it was sent. */
static void test_first_header_counts(void)
{
    static part_t p;
    start(SMOS__DEFRAG_LINUX);
    p = part(64, 16, false, 0);
    CHECK(!add(packet, make4(packet, &p, 9, 0)));
    p = part(0, 64, true, 0);
    uint32_t length = make4(packet, &p, 9, 12);
    packet[8] = 33;
    packet[6] |= 0x40;
    const uint8_t *whole = add(packet, length);
    check_data(whole, 32, 80);
    CHECK_EQ(whole[8], 33);
    CHECK_EQ(get16(whole + 6), 0x4000);
    CHECK_EQ(get16(whole + 2), 112);
    CHECK_EQ(sum16(whole, 32), 0xffff);
    CHECK(has(SMOS__ANOMALY_FRAG_WITH_DF));
}


/* RFC 8200 4.5: without and with an unfragmentable part; the number of the next header moves to the last header of that part. */
static void test_ipv6(void)
{
    static part_t p;
    for (int extensions = 0; extensions < 2; extensions++) {
        for (int order = 0; order < 2; order++) {
            uint32_t header = extensions ? 64 : 40;
            start(SMOS__DEFRAG_BSD);
            for (int k = 0; k < 3; k++) {
                int which = order ? 2 - k : k;
                p = which == 0 ? part(0, 1232, true, 0) : which == 1 ? part(1232, 800, true, 0) : part(2032, 13, false, 0);
                const uint8_t *whole = add(packet, make6(packet, &p, 0xdeadbeef, extensions));
                CHECK_EQ(anomaly_count, 0);
                CHECK_EQ(whole != NULL, k == 2);
                if (!whole) continue;
                check_data(whole, header, 2045);
                CHECK_EQ(get16(whole + 4), header - 40 + 2045);
                CHECK_EQ(whole[6], extensions ? 0 : 17);
                if (extensions) CHECK(whole[40] == 60 && whole[48] == 17);
            }
        }
    }
}


/* RFC 6946: a fragment header around a whole packet meets nothing, not even fragments of its own identification. */
static void test_atomic_fragment(void)
{
    start(SMOS__DEFRAG_LINUX);
    CHECK(!add6(0, 1000, true, 0));
    const uint8_t *whole = add6(0, 100, false, 0);
    check_data(whole, 40, 100);
    CHECK_EQ(whole[6], 17);
    CHECK_EQ(anomaly_count, 0);
    CHECK_EQ(smos__defrag_stats(d)->waiting, 1);
    check_data(add6(1000, 8, false, 0), 40, 1008);
    CHECK(add6(0, 0, false, 0) && got_length == 40);
}


static void test_any_order_with_copies(void)
{
    static part_t p;
    for (int round = 0; round < 300; round++) {
        start_with(pick(SMOS__DEFRAG_POLICIES), 64, 4 << 20, 8192);
        uint32_t cut[80][2], n = 0, total = 8 + pick(pick(3) ? 3000 : 65000);
        for (uint32_t at = 0; at < total;) {
            uint32_t length = 8 * (1 + pick(total / 200 + 1 + (total > 20000 ? 200 : 0)));
            if (length > total - at || n == 39) length = total - at;
            cut[n][0] = at, cut[n++][1] = length;
            at += length;
        }
        if (n == 1) continue;
        for (uint32_t i = 0, m = n; i < m; i++, n++) cut[n][0] = cut[i][0], cut[n][1] = cut[i][1];
        for (uint32_t i = n - 1; i > 0; i--) {
            uint32_t j = pick(i + 1), a = cut[i][0], b = cut[i][1];
            cut[i][0] = cut[j][0], cut[i][1] = cut[j][1], cut[j][0] = a, cut[j][1] = b;
        }
        uint32_t done = 0;
        for (uint32_t i = 0; i < n && !done; i++) {
            bool six = round % 2;
            p = part(cut[i][0], cut[i][1], cut[i][0] + cut[i][1] < total, 0);
            const uint8_t *whole = add(packet, six ? make6(packet, &p, 5, round % 4 == 3) : make4(packet, &p, 5, 0));
            CHECK(!has(SMOS__ANOMALY_FRAG_OVERLAP) && !has(SMOS__ANOMALY_FRAG_OVERLAP_DIFFERENT) && !has(SMOS__ANOMALY_FRAG_TEARDROP));
            if (whole) check_data(whole, got_length - total, total), done = 1;
        }
        CHECK(done);
        CHECK_EQ(smos__defrag_stats(d)->bytes, 0);
    }
}


static void test_overlap_anomalies(void)
{
    start(SMOS__DEFRAG_FIRST);
    CHECK(!add4(0, 80, true, 0));
    CHECK(!add4(0, 80, true, 0)); /* a copy is none */
    CHECK_EQ(anomaly_count, 0);
    CHECK(!add4(80, 80, true, 0)); /* nor is a neighbour */
    CHECK_EQ(anomaly_count, 0);
    CHECK(!add4(72, 80, true, 0)); /* same bytes, other bounds */
    CHECK(has(SMOS__ANOMALY_FRAG_OVERLAP) && !has(SMOS__ANOMALY_FRAG_OVERLAP_DIFFERENT) && !has(SMOS__ANOMALY_FRAG_TEARDROP));
    CHECK(!add4(0, 80, true, 'x')); /* same bounds, other bytes */
    CHECK(has(SMOS__ANOMALY_FRAG_OVERLAP) && has(SMOS__ANOMALY_FRAG_OVERLAP_DIFFERENT) && !has(SMOS__ANOMALY_FRAG_TEARDROP));

    start(SMOS__DEFRAG_FIRST);
    CHECK(!add4(0, 160, true, 0));
    CHECK(!add4(80, 80, true, 0)); /* ends with the other */
    CHECK(has(SMOS__ANOMALY_FRAG_OVERLAP) && !has(SMOS__ANOMALY_FRAG_TEARDROP));
    CHECK(!add4(0, 80, true, 0)); /* begins with it */
    CHECK(!has(SMOS__ANOMALY_FRAG_TEARDROP));
    CHECK(!add4(8, 72, true, 0));
    CHECK(has(SMOS__ANOMALY_FRAG_TEARDROP));

    start(SMOS__DEFRAG_LINUX); /* as teardrop sends it: the last fragment inside the first */
    CHECK(!add4(0, 80, true, 0));
    CHECK(!add4(24, 4, false, 0));
    CHECK(has(SMOS__ANOMALY_FRAG_INCONSISTENT_END));

    start(SMOS__DEFRAG_LAST); /* IPv6: named, the first bytes stand, whatever the policy */
    CHECK(!add6(0, 80, true, 0));
    CHECK(!add6(72, 80, true, 'x'));
    CHECK(has(SMOS__ANOMALY_FRAG_OVERLAP) && has(SMOS__ANOMALY_FRAG_OVERLAP_DIFFERENT));
    const uint8_t *whole = add6(152, 10, false, 0);
    CHECK(whole && whole[40 + 79] == 79 * 7 % 251 && whole[40 + 80] == 'x');
}


static void test_tiny(void)
{
    start(SMOS__DEFRAG_LINUX);
    CHECK(!add4(0, 64, true, 0));
    CHECK(!has(SMOS__ANOMALY_FRAG_TINY));
    CHECK(!add4(64, 56, true, 0));
    CHECK(has(SMOS__ANOMALY_FRAG_TINY));
    CHECK(add4(120, 1, false, 0)); /* the last may be */
    CHECK(!has(SMOS__ANOMALY_FRAG_TINY));
}


static void test_oversize(void)
{
    start(SMOS__DEFRAG_LINUX);
    CHECK(!add4(65512, 3, false, 0)); /* 20 + 65,515 = 65,535 */
    CHECK(!has(SMOS__ANOMALY_FRAG_OVERSIZE));
    start(SMOS__DEFRAG_LINUX);
    CHECK(!add4(65512, 4, false, 0));
    CHECK(has(SMOS__ANOMALY_FRAG_OVERSIZE));
    CHECK_EQ(smos__defrag_stats(d)->waiting, 0);
    CHECK_EQ(smos__defrag_stats(d)->bad, 1);
    CHECK(!add4(65528, 1400, false, 0)); /* the ping of death */
    CHECK(has(SMOS__ANOMALY_FRAG_OVERSIZE));
    CHECK(!add6(65528, 7, false, 0));
    CHECK(!has(SMOS__ANOMALY_FRAG_OVERSIZE));
    CHECK(!add6(65528, 8, true, 0));
    CHECK(has(SMOS__ANOMALY_FRAG_OVERSIZE));

    /* Each fragment may end there, but the first one's header is longer. */
    static part_t p;
    for (uint32_t options = 0; options <= 4; options += 4) {
        start(SMOS__DEFRAG_LINUX);
        p = part(32768, 32747, false, 0);
        CHECK(!add(packet, make4(packet, &p, 1, 0)));
        p = part(0, 32768, true, 0);
        const uint8_t *whole = add(packet, make4(packet, &p, 1, options));
        CHECK_EQ(has(SMOS__ANOMALY_FRAG_OVERSIZE), options != 0);
        CHECK_EQ(whole != NULL, options == 0);
        if (whole) check_data(whole, 20, 65515);
        CHECK_EQ(smos__defrag_stats(d)->bytes, 0);
    }
}


static void test_inconsistent_end(void)
{
    start(SMOS__DEFRAG_LINUX);
    CHECK(!add4(80, 80, false, 0));
    CHECK(!add4(80, 80, true, 0)); /* MF, up to the end */
    CHECK(!has(SMOS__ANOMALY_FRAG_INCONSISTENT_END));
    CHECK(!add4(80, 72, false, 0));
    CHECK(has(SMOS__ANOMALY_FRAG_INCONSISTENT_END));
    CHECK(!add4(80, 88, false, 0));
    CHECK(has(SMOS__ANOMALY_FRAG_INCONSISTENT_END));
    CHECK(!add4(80, 88, true, 0));
    CHECK(has(SMOS__ANOMALY_FRAG_INCONSISTENT_END));
    CHECK_EQ(smos__defrag_stats(d)->bad, 3);
    check_data(add4(0, 80, true, 0), 20, 160); /* what was said first stands */

    start(SMOS__DEFRAG_LINUX); /* a copy, but for MF: that it is the last is news */
    CHECK(!add4(0, 80, true, 0) && !add4(80, 80, true, 0));
    check_data(add4(80, 80, false, 0), 20, 160);

    start(SMOS__DEFRAG_LINUX);
    CHECK(!add4(160, 80, true, 0));
    CHECK(!add4(80, 80, false, 0)); /* more was seen already */
    CHECK(has(SMOS__ANOMALY_FRAG_INCONSISTENT_END));
    CHECK(!add4(80, 160, false, 0));
    CHECK(!has(SMOS__ANOMALY_FRAG_INCONSISTENT_END));
}


static void test_zero_length(void)
{
    start(SMOS__DEFRAG_LINUX);
    CHECK(!add4(0, 0, true, 0));
    CHECK(has(SMOS__ANOMALY_FRAG_ZERO_LENGTH));
    CHECK(!add4(8, 0, false, 0));
    CHECK(has(SMOS__ANOMALY_FRAG_ZERO_LENGTH));
    CHECK(!add6(8, 0, true, 0));
    CHECK(has(SMOS__ANOMALY_FRAG_ZERO_LENGTH));
    CHECK_EQ(smos__defrag_stats(d)->waiting, 0);
    CHECK(!add4(8, 1, false, 0));
    CHECK(!has(SMOS__ANOMALY_FRAG_ZERO_LENGTH));
}


/* Linux takes the whole units of such an IPv4 fragment, others and IPv6 drop it. */
static void test_unaligned(void)
{
    start(SMOS__DEFRAG_LINUX);
    CHECK(!add4(0, 101, true, 0));
    CHECK(has(SMOS__ANOMALY_FRAG_UNALIGNED));
    check_data(add4(96, 5, false, 0), 20, 101);
    CHECK(!has(SMOS__ANOMALY_FRAG_UNALIGNED));
    CHECK(!add4(0, 7, true, 0));
    CHECK_EQ(smos__defrag_stats(d)->waiting, 0);
    start(SMOS__DEFRAG_BSD);
    CHECK(!add4(0, 101, true, 0));
    CHECK(has(SMOS__ANOMALY_FRAG_UNALIGNED));
    CHECK(!add6(0, 101, true, 0));
    CHECK(has(SMOS__ANOMALY_FRAG_UNALIGNED));
    CHECK_EQ(smos__defrag_stats(d)->waiting, 0);
    CHECK_EQ(smos__defrag_stats(d)->bad, 2);
}


static void test_truncated(void)
{
    static part_t p;
    for (int six = 0; six < 2; six++) {
        start(SMOS__DEFRAG_LINUX);
        CHECK(!(six ? add6(160, 80, true, 0) : add4(160, 80, true, 0)));
        p = part(0, 160, true, 0);
        uint32_t length = six ? make6(packet, &p, 0x12345678, false) : make4(packet, &p, 77, 0);
        CHECK(!add_captured(packet, length, length - 1));
        CHECK(has(SMOS__ANOMALY_FRAG_TRUNCATED));
        CHECK_EQ(smos__defrag_stats(d)->waiting, 0);
        CHECK_EQ(smos__defrag_stats(d)->bytes, 0);
        CHECK_EQ(smos__defrag_stats(d)->bad, 1);
        CHECK(!(six ? add6(240, 80, false, 0) : add4(240, 80, false, 0))); /* belongs to what was given up */
        CHECK_EQ(anomaly_count, 0);
        CHECK_EQ(smos__defrag_stats(d)->waiting, 0);
        CHECK_EQ(smos__defrag_stats(d)->bad, 2);
        for (uint32_t captured = 1; captured < (six ? 48u : 20u); captured++) { /* within the headers */
            CHECK(!add_captured(packet, length, captured));
            CHECK(has(SMOS__ANOMALY_FRAG_TRUNCATED));
        }
        now += 61 * SECOND; /* its identification may be used again */
        CHECK(!(six ? add6(0, 80, true, 0) : add4(0, 80, true, 0)));
        CHECK_EQ(anomaly_count, 0);
        CHECK(six ? add6(80, 80, false, 0) : add4(80, 80, false, 0));
        CHECK_EQ(smos__defrag_stats(d)->timed_out, 0);
    }
}


static void test_protocols_differ(void)
{
    static part_t p;
    start(SMOS__DEFRAG_LINUX);
    for (int k = 0; k < 2; k++) {
        p = k ? part(0, 80, true, 0) : part(80, 80, false, 0);
        uint32_t length = make6(packet, &p, 3, false);
        packet[40] = k ? 17 : 6;
        const uint8_t *whole = add(packet, length);
        CHECK_EQ(has(SMOS__ANOMALY_FRAG_PROTOCOL_INCONSISTENT), k);
        CHECK_EQ(whole != NULL, k);
        if (whole) CHECK_EQ(whole[6], 17); /* RFC 8200: the first fragment's counts */
    }
    /* IPv4: other protocols are other datagrams. */
    for (int k = 0; k < 2; k++) {
        p = k ? part(0, 80, true, 0) : part(80, 80, false, 0);
        uint32_t length = make4(packet, &p, 3, 0);
        packet[9] = k ? 17 : 6;
        CHECK(!add(packet, length));
        CHECK_EQ(anomaly_count, 0);
    }
    CHECK_EQ(smos__defrag_stats(d)->waiting, 2);
}


static void test_key(void)
{
    static part_t p;
    start(SMOS__DEFRAG_LINUX);
    CHECK(!add4(0, 80, true, 0));
    vlan = 5;
    CHECK(!add4(80, 80, false, 0));
    vlan = 0;
    p = part(80, 80, false, 0);
    uint32_t length = make4(packet, &p, 78, 0);
    CHECK(!add(packet, length));
    length = make4(packet, &p, 77, 0);
    packet[15]++;
    CHECK(!add(packet, length));
    length = make4(packet, &p, 77, 0);
    packet[19]++;
    CHECK(!add(packet, length));
    CHECK_EQ(smos__defrag_stats(d)->waiting, 5);
    CHECK_EQ(anomaly_count, 0);
    check_data(add4(80, 80, false, 0), 20, 160);
}


static void test_malformed_headers(void)
{
    static part_t p;
    start(SMOS__DEFRAG_LINUX);
    p = part(0, 80, true, 0);
    uint32_t length = make4(packet, &p, 1, 0);
    packet[0] = 0x44;
    CHECK(!add(packet, length));
    packet[0] = 0x55;
    CHECK(!add(packet, length));
    packet[0] = 0x4f;
    CHECK(!add(packet, 59)); /* a header of 60 bytes */
    length = make6(packet, &p, 1, true);
    packet[49] = 255; /* an extension beyond the packet */
    CHECK(!add(packet, length));
    length = make6(packet, &p, 1, true);
    packet[48] = 17; /* no fragment header */
    CHECK(!add(packet, length));
    memset(packet + 40, 0, 400); /* hop-by-hop without end */
    packet[6] = 0;
    CHECK(!add(packet, 440));
    CHECK_EQ(smos__defrag_stats(d)->bad, 6);
    CHECK_EQ(smos__defrag_stats(d)->waiting, 0);
}


/* Sequences of up to three overlapping fragments on a line of five units, each with bytes of its own, then what is missing. */
static void test_policies_exhaustively(void)
{
    static whole_t w;
    static part_t p;
    uint32_t place[15][2], n = 0;
    for (uint32_t s = 0; s < 5; s++)
        for (uint32_t e = s + 1; e <= 5; e++) place[n][0] = s * 8, place[n++][1] = (e - s) * 8;
    for (int policy = 0; policy < SMOS__DEFRAG_POLICIES; policy++) {
        start(policy);
        for (uint32_t code = 0; code < n * n * n; code++) {
            whole_clear(&w);
            const uint8_t *whole = NULL;
            for (uint32_t k = 0, c = code; k < 5 && !whole; k++, c /= n) {
                /* Three as the code says, the last unit's neighbour, and one that fills every hole. */
                uint32_t offset = k < 3 ? place[c % n][0] : k == 3 ? 40 : 0, length = k < 3 ? place[c % n][1] : k == 3 ? 5 : 40;
                p = part(offset, length, k != 3, (int)('a' + k));
                whole = add(packet, make4(packet, &p, (uint16_t)code, 0));
                whole_add(&w, &p, policy);
                CHECK_EQ(whole != NULL, whole_complete(&w));
                if (whole) CHECK(got_length == 20 + 45 && !memcmp(whole + 20, w.value, 45));
            }
            CHECK(whole != NULL);
            smos__defrag_release(d);
        }
    }
}


static void test_policies_at_random(void)
{
    static whole_t w;
    static part_t p;
    for (int policy = 0; policy < SMOS__DEFRAG_POLICIES; policy++) {
        start(policy);
        uint64_t completed = 0;
        for (uint32_t round = 0; round < 300; round++) {
            uint32_t units = 2 + pick(pick(3) ? 20 : 600), tail = pick(9);
            whole_clear(&w);
            for (uint32_t k = 0, sent = 0; k < 200 && sent < 150000; k++) {
                uint32_t first = pick(units), count = 1 + pick(pick(2) ? units : units / 4 + 1);
                bool last = first + count >= units;
                p = part(first * 8, last ? (units - first) * 8 - 8 + tail : count * 8, !last || pick(30) == 0, 0);
                if (last && !tail) continue;
                if (p.more) p.length -= p.length % 8;
                if (!p.length || (!p.more && !p.offset)) continue;
                if (pick(4)) memset(p.data, (int)k, p.length);
                sent += p.length;
                const uint8_t *whole = add(packet, make4(packet, &p, (uint16_t)round, 0));
                CHECK_EQ(has(SMOS__ANOMALY_FRAG_INCONSISTENT_END), !whole_add(&w, &p, policy));
                CHECK_EQ(whole != NULL, whole_complete(&w));
                if (!whole) continue;
                CHECK_EQ(got_length, 20 + w.end);
                CHECK(!memcmp(whole + 20, w.value, w.end));
                completed++;
                break;
            }
            smos__defrag_release(d);
            now += 61 * SECOND;
        }
        CHECK(completed > 200);
        CHECK_EQ(smos__defrag_stats(d)->completed, completed);
    }
}


static void test_timeout(void)
{
    start(SMOS__DEFRAG_LINUX);
    CHECK(!add4(0, 80, true, 0));
    now += 60 * SECOND;
    CHECK_EQ(smos__defrag_expire(d, now, 16), 0);
    CHECK(add4(80, 80, false, 0)); /* just in time */
    CHECK_EQ(anomaly_count, 0);
    CHECK(!add4(0, 80, true, 0));
    now += 60 * SECOND + 1;
    CHECK(!add4(80, 80, false, 0)); /* begins another */
    CHECK(has(SMOS__ANOMALY_FRAG_TIMEOUT));
    CHECK_EQ(smos__defrag_stats(d)->timed_out, 1);
    CHECK(!add4(160, 80, true, 0) && !has(SMOS__ANOMALY_FRAG_TIMEOUT));
    start(SMOS__DEFRAG_LINUX);
    for (uint32_t i = 0; i < 20; i++) {
        vlan = (uint16_t)i;
        CHECK(!add4(0, 80, true, 0));
        now += SECOND;
    }
    CHECK_EQ(smos__defrag_expire(d, now + 50 * SECOND, 4), 4); /* 70 to 51 seconds old: ten are over time */
    CHECK_EQ(smos__defrag_expire(d, now + 50 * SECOND, 100), 6);
    CHECK_EQ(smos__defrag_stats(d)->waiting, 10);
    CHECK_EQ(smos__defrag_stats(d)->timed_out, 10);
    CHECK_EQ(smos__defrag_expire(d, INT64_MIN, 100), 0); /* time may be anything */
    CHECK_EQ(smos__defrag_expire(d, INT64_MAX, 100), 10);
    CHECK_EQ(smos__defrag_stats(d)->bytes, 0);
}


static void test_oldest_is_evicted(void)
{
    start_with(SMOS__DEFRAG_LINUX, 8, 4 << 20, 8192);
    for (uint32_t i = 0; i < 8; i++) {
        vlan = (uint16_t)i;
        CHECK(!add4(0, 80, true, 0));
        CHECK_EQ(anomaly_count, 0);
    }
    vlan = 8;
    CHECK(!add4(0, 80, true, 0));
    CHECK(has(SMOS__ANOMALY_FRAG_EVICTED));
    CHECK_EQ(smos__defrag_stats(d)->evicted, 1);
    CHECK_EQ(smos__defrag_stats(d)->waiting, 8);
    for (uint32_t i = 1; i < 9; i++) {
        vlan = (uint16_t)i;
        check_data(add4(80, 80, false, 0), 20, 160);
    }
    /* For bytes as for datagrams: 3 MiB of fragments hold 48 times 60,000 bytes and more, the 1st goes for the 53rd or so. */
    start_with(SMOS__DEFRAG_LINUX, 1000, 4 << 20, 8192);
    uint32_t n = 0;
    for (; !smos__defrag_stats(d)->evicted; n++) {
        vlan = (uint16_t)n;
        CHECK(!add4(0, 60000, true, 0));
        CHECK_EQ(has(SMOS__ANOMALY_FRAG_EVICTED), smos__defrag_stats(d)->evicted != 0);
    }
    CHECK(n > 48 && n < 56);
    for (uint32_t i = 1; i < n; i++) {
        vlan = (uint16_t)i;
        check_data(add4(60000, 8, false, 0), 20, 60008);
        smos__defrag_release(d);
    }
    CHECK_EQ(smos__defrag_stats(d)->evicted, 1);
    /* The one at hand stays, though it is the oldest: the next oldest goes. */
    for (uint32_t i = 0; i <= n; i++) {
        vlan = (uint16_t)i;
        CHECK(!add4(60000, 8, false, 0));
        if (i) CHECK(!add4(0, 59000, true, 0));
    }
    vlan = 0;
    while (smos__defrag_stats(d)->evicted == 1) {
        static uint32_t at;
        const uint8_t *whole = add4(at, 6000, true, 0);
        at += 6000;
        if (whole || at > 54000) break;
    }
    CHECK_EQ(smos__defrag_stats(d)->evicted, 2);
    vlan = 1;
    CHECK(!add4(59000 - 59000 % 8, 1000, true, 0)); /* the 1st of the others is gone, */
    vlan = 2;
    check_data(add4(59000 - 59000 % 8, 1000, true, 0), 20, 60008); /* the 2nd is whole */

    /* One that is over time is not evicted but timed out. */
    start_with(SMOS__DEFRAG_LINUX, 8, 4 << 20, 8192);
    for (uint32_t i = 0; i < 8; i++) {
        vlan = (uint16_t)i;
        CHECK(!add4(0, 80, true, 0));
    }
    now += 61 * SECOND;
    vlan = 100;
    CHECK(!add4(0, 80, true, 0));
    CHECK_EQ(anomaly_count, 0);
    CHECK_EQ(smos__defrag_stats(d)->timed_out, 1);
    CHECK_EQ(smos__defrag_stats(d)->evicted, 0);
}


/* Bytes run out before datagrams do: the oldest go, the one at hand never; what completes is right. */
static void test_memory_is_bounded(void)
{
    start_with(SMOS__DEFRAG_LINUX, 1000, 1 << 20, 8192);
    for (uint32_t i = 0; i < 3000; i++) {
        vlan = (uint16_t)(i % 100);
        uint32_t k = i / 100 % 20;
        const uint8_t *whole = add4(k * 3000, 3000, k != 19, 0);
        if (whole) check_data(whole, 20, 60000);
        CHECK(smos__defrag_stats(d)->bytes <= 1 << 20);
        smos__defrag_release(d);
    }
    CHECK(smos__defrag_stats(d)->evicted > 50);
    /* The smallest possible one still takes the largest datagram, in the smallest fragments. */
    start_with(SMOS__DEFRAG_LINUX, 0, 0, 32768);
    for (uint32_t at = 65512 - 8;; at -= 8) {
        const uint8_t *whole = add4(at, at == 65512 - 8 ? 11 : 8, at != 65512 - 8, 0);
        CHECK_EQ(whole != NULL, at == 0);
        if (!at) {
            check_data(whole, 20, 65515);
            break;
        }
    }
}


static void test_too_many_fragments(void)
{
    start_with(SMOS__DEFRAG_LINUX, 8, 4 << 20, 10);
    for (uint32_t i = 0; i < 10; i++) CHECK(!add4(i * 80, 80, true, 0) && !anomaly_count);
    CHECK(!add4(0, 80, true, 0) && !anomaly_count); /* a copy is not one more */
    CHECK(!add4(800, 80, true, 0));
    CHECK(has(SMOS__ANOMALY_FRAG_TOO_MANY));
    CHECK_EQ(smos__defrag_stats(d)->waiting, 0);
    CHECK_EQ(smos__defrag_stats(d)->bytes, 0);
    CHECK(!add4(880, 80, false, 0) && !anomaly_count);
    start_with(SMOS__DEFRAG_LINUX, 8, 4 << 20, 11);
    for (uint32_t i = 0; i < 10; i++) CHECK(!add4(i * 80, 80, true, 0));
    check_data(add4(800, 80, false, 0), 20, 880);

    /* Overlapping bytes are bounded: 160 KiB of a datagram of 64. */
    start(SMOS__DEFRAG_LINUX);
    uint32_t sent = 0;
    do CHECK(!add4(8, 30000, true, 'a' + (int)(sent++ % 20)));
    while (!has(SMOS__ANOMALY_FRAG_TOO_MANY) && sent < 100);
    CHECK_EQ(sent, 6);
    CHECK_EQ(smos__defrag_stats(d)->bytes, 0);

    /* So is the work of comparing copies with what came before. */
    start(SMOS__DEFRAG_LINUX);
    for (uint32_t i = 0; i < 8000; i++) CHECK(!add4(i * 8, 8, true, 0));
    for (sent = 0; !has(SMOS__ANOMALY_FRAG_TOO_MANY) && sent < 1000; sent++) CHECK(!add4(63992, 8, true, 0));
    CHECK(sent > 10 && sent < 100);
}


/* Completed datagrams stay until the release, side by side; more of them than there is room for are counted. */
static void test_completed_stay_until_release(void)
{
    start_with(SMOS__DEFRAG_LINUX, 64, 4 << 20, 8192);
    const uint8_t *kept[64];
    uint32_t n = 0;
    for (uint32_t i = 0; i < 64; i++) {
        vlan = (uint16_t)i;
        CHECK(!add4(0, 40000, true, (int)(1 + i)));
        const uint8_t *whole = add4(40000, 25000, false, (int)(1 + i));
        if (whole) kept[n++] = whole;
        CHECK_EQ(n + smos__defrag_stats(d)->evicted, i + 1);
    }
    CHECK_EQ(n, (4 << 20) / 4 / 65024);
    CHECK_EQ(smos__defrag_stats(d)->completed, n);
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t k = 20; k < 65020; k++) CHECK_EQ(kept[i][k], 1 + i);
    smos__defrag_release(d);
    CHECK(!add4(0, 40000, true, 0));
    check_data(add4(40000, 25000, false, 0), 20, 65000);
}


static void test_anomaly_list_is_bounded(void)
{
    start(SMOS__DEFRAG_FIRST);
    static part_t p;
    p = part(0, 80, true, 0);
    uint32_t length = make4(packet, &p, 1, 0);
    packet[6] |= 0x40;
    smos__frame_t frame = { .time_ns = now };
    smos__layer_t meta = { .tuple = { .version = 4 } };
    uint16_t ids[SMOS__MAX_ANOMALIES + 1];
    for (uint8_t before = 0; before <= SMOS__MAX_ANOMALIES; before++) {
        memset(ids, 0xee, sizeof ids);
        uint8_t count = before;
        smos__defrag_add(d, &frame, packet, length, length, &meta, &got_length, ids, &count);
        CHECK_EQ(count, before < SMOS__MAX_ANOMALIES ? before + 1 : before);
        CHECK_EQ(ids[SMOS__MAX_ANOMALIES], 0xeeee);
        if (before < SMOS__MAX_ANOMALIES) CHECK_EQ(ids[before], SMOS__ANOMALY_FRAG_WITH_DF);
    }
}


int main(void)
{
    RUN(test_rfc791_example);
    RUN(test_first_header_counts);
    RUN(test_ipv6);
    RUN(test_atomic_fragment);
    RUN(test_any_order_with_copies);
    RUN(test_overlap_anomalies);
    RUN(test_tiny);
    RUN(test_oversize);
    RUN(test_inconsistent_end);
    RUN(test_zero_length);
    RUN(test_unaligned);
    RUN(test_truncated);
    RUN(test_protocols_differ);
    RUN(test_key);
    RUN(test_malformed_headers);
    RUN(test_policies_exhaustively);
    RUN(test_policies_at_random);
    RUN(test_timeout);
    RUN(test_oldest_is_evicted);
    RUN(test_memory_is_bounded);
    RUN(test_too_many_fragments);
    RUN(test_completed_stay_until_release);
    RUN(test_anomaly_list_is_bounded);
    free(d);
    return 0;
}
