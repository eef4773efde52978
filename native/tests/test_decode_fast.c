/* fast.c must say what decode.c says, or nothing. Frames: one of each plain form, then each with every single byte changed in many ways, at every
 * captured length, with and without checksums. */
#include "check.h"
#include "wire/fast.h"

static void be16(uint8_t *p, uint32_t v) { p[0] = (uint8_t)(v >> 8), p[1] = (uint8_t)v; }

static void mend_checksums(uint8_t *frame, uint32_t length, int tags)
{
    uint32_t link = 14 + 4 * (uint32_t)tags;
    uint8_t *ip = frame + link, *tcp = ip + 20;
    uint32_t segment = length - link - 20;
    be16(ip + 10, 0);
    be16(ip + 10, ~smos__checksum(ip, 20, 0) & 0xffff);
    be16(tcp + 16, 0);
    be16(tcp + 16, ~smos__checksum(tcp, segment, smos__checksum(ip + 12, 8, 6 + segment)) & 0xffff);
}

static uint32_t build(uint8_t *frame, uint32_t payload, int timestamps, int tags)
{
    uint32_t link = 14 + 4 * (uint32_t)tags, header = timestamps ? 32 : 20, length = link + 20 + header + payload;
    memset(frame, 0, length);
    for (int i = 0; i < 12; i++) frame[i] = (uint8_t)(i + 1);
    if (tags == 1) memcpy(frame + 12, "\x81\x00\x20\x05", 4);
    if (tags == 2) memcpy(frame + 12, "\x88\xa8\x0f\xff\x81\x00\xe0\x06", 8);
    be16(frame + link - 2, 0x0800);
    uint8_t *ip = frame + link, *tcp = ip + 20;
    ip[0] = 0x45;
    be16(ip + 2, length - link);
    be16(ip + 4, 0x1234);
    be16(ip + 6, 0x4000);
    ip[8] = 64;
    ip[9] = 6;
    memcpy(ip + 12, "\x0a\x01\x02\x03\xc0\xa8\x07\x09", 8);
    be16(tcp, 40000);
    be16(tcp + 2, 80);
    memcpy(tcp + 4, "\xff\xff\xff\x01\x00\x00\x10\x20", 8);
    tcp[12] = (uint8_t)(header / 4 << 4);
    tcp[13] = 0x18;
    be16(tcp + 14, 1024);
    if (timestamps) memcpy(tcp + 20, "\x01\x01\x08\x0a\x00\x00\x00\x05\x00\x00\x00\x06", 12);
    for (uint32_t i = 0; i < payload; i++) tcp[header + i] = (uint8_t)(i * 7);
    mend_checksums(frame, length, tags);
    return length;
}

static int compared;

static void compare(const uint8_t *bytes, uint32_t caplen, uint32_t len, uint32_t flags)
{
    uint8_t *exact = malloc(caplen ? caplen : 1); /* an over-read is the sanitizer's to see */
    memcpy(exact, bytes, caplen);
    smos__frame_t frame = {.data = exact, .caplen = caplen, .len = len, .linktype = 1, .flags = flags};
    smos__decoded_t a, b;
    uint32_t peeked;
    if (smos__peek_owner(&frame, smos__owner_begin4(caplen), &peeked)) {
        smos__decode(&frame, NULL, &b);
        CHECK_EQ(b.result, SMOS__WIRE_OK);
        CHECK_EQ(b.layers, 1);
        CHECK_EQ(b.anomaly_count, 0);
        CHECK_EQ(b.fragments, 0);
        CHECK(!(b.layer[0].flags & SMOS__ICMP_ERROR));
        CHECK_EQ(peeked, smos__owner_hash(&b.layer[0].tuple, caplen));
    }
    if (smos__decode_fast(&frame, &a)) {
        smos__decode(&frame, NULL, &b);
        const smos__layer_t *x = &a.layer[0], *y = &b.layer[0];
        compared++;
        CHECK_EQ(b.result, a.result);
        CHECK_EQ(b.layers, 1);
        CHECK_EQ(b.anomaly_count, 0);
        CHECK_EQ(y->anomaly_count, 0);
        CHECK(!memcmp(&x->tuple, &y->tuple, sizeof x->tuple));
        CHECK(x->ip == y->ip && x->l4 == y->l4 && x->payload == y->payload);
        CHECK_EQ(x->payload_captured, y->payload_captured);
        CHECK_EQ(x->payload_len, y->payload_len);
        CHECK_EQ(x->ip_len, y->ip_len);
        CHECK_EQ(x->ip_captured, y->ip_captured);
        CHECK_EQ(x->seq, y->seq);
        CHECK_EQ(x->ack, y->ack);
        CHECK_EQ(x->window, y->window);
        CHECK_EQ(x->urgent, y->urgent);
        CHECK_EQ(x->tcp_flags, y->tcp_flags);
        CHECK_EQ(x->flags, y->flags);
        CHECK_EQ(x->sack_blocks, y->sack_blocks);
        CHECK_EQ(x->tunnel_kind, y->tunnel_kind);
        CHECK_EQ(x->tunnel_id, y->tunnel_id);
        CHECK(x->vlan[0] == y->vlan[0] && x->vlan[1] == y->vlan[1]);
        CHECK(x->mss == y->mss && x->wscale == y->wscale);
        if (x->flags & SMOS__HAS_TIMESTAMP) CHECK(x->tsval == y->tsval && x->tsecr == y->tsecr);
        if (x->flags & SMOS__HAS_SACK) CHECK(x->sack == y->sack);
    }
    free(exact);
}

static void test_plain_frames_take_it(void)
{
    static const uint16_t VLANS[][2] = {{0, 0}, {5, 0}, {0xfff, 6}};
    uint8_t bytes[2048];
    smos__decoded_t out;
    for (uint32_t payload = 0; payload < 1461; payload += payload < 80 ? 1 : 97)
        for (int form = 0; form < 6; form++) {
            int tags = form / 2;
            uint32_t length = build(bytes, payload, form % 2, tags);
            smos__frame_t frame = {.data = bytes, .caplen = length, .len = length, .linktype = 1};
            CHECK(smos__decode_fast(&frame, &out));
            CHECK(out.layer[0].vlan[0] == VLANS[tags][0] && out.layer[0].vlan[1] == VLANS[tags][1]);
            compare(bytes, length, length, 0);
            memset(bytes + length, 0, 6); /* Ethernet padding is no payload */
            compare(bytes, length + 6, length + 6, 0);
        }
}

static void test_every_change_is_decided_alike(void)
{
    uint8_t bytes[256];
    static const uint8_t CHANGES[] = {0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xff};
    for (int form = 0; form < 6; form++) {
        int timestamps = form % 2, tags = form / 2;
        uint32_t length = build(bytes, 9, timestamps, tags);
        for (uint32_t at = 0; at < length; at++)
            for (size_t k = 0; k < sizeof CHANGES; k++) {
                build(bytes, 9, timestamps, tags);
                bytes[at] ^= CHANGES[k];
                compare(bytes, length, length, 0);
                compare(bytes, length, length, SMOS__FRAME_NO_CHECKSUM);
                mend_checksums(bytes, length, tags);
                compare(bytes, length, length, 0);
            }
        build(bytes, 9, timestamps, tags);
        for (uint32_t caplen = 0; caplen <= length; caplen++) {
            compare(bytes, caplen, length, SMOS__FRAME_NO_CHECKSUM);
            compare(bytes, caplen, caplen, SMOS__FRAME_NO_CHECKSUM);
        }
    }
    CHECK(compared > 1000);
}

/* Options in every order, now and then with a byte that is wrong, in segments with SYN and without. */
static void test_options_are_read_alike(void)
{
    static const char *const PIECES[] = {"\1\1", "\2\4\5\xb4", "\3\3\7", "\3\3\17", "\4\2", "\10\12\0\1\2\3\4\5\6\7", "\5\12abcdefgh", "\5\22abcdefghijklmnop", "\0", "\42\2", "\23\22abcdefghijklmnop", "\36\4ab"};
    static const uint8_t LENGTHS[] = {2, 4, 3, 3, 2, 10, 10, 18, 1, 2, 18, 4};
    uint8_t bytes[256];
    uint32_t x = 7, before = (uint32_t)compared;
    for (int round = 0; round < 40000; round++) {
        uint8_t options[64] = {0};
        uint32_t n = 0, pieces = (x = x * 1664525 + 1013904223) >> 30;
        for (uint32_t k = 0; k <= pieces; k++) {
            uint32_t which = ((x = x * 1664525 + 1013904223) >> 16) % 12;
            if (n + LENGTHS[which] > 40) break;
            memcpy(options + n, PIECES[which], LENGTHS[which]);
            n += LENGTHS[which];
        }
        if (((x = x * 1664525 + 1013904223) >> 24) % 4 == 0 && n) options[(x >> 8) % n] ^= (uint8_t)(1u << (x >> 16) % 8);
        uint32_t padded = (n + 3) & ~3u, length = build(bytes, padded, 0, 0);
        memcpy(bytes + 54, options, padded);
        bytes[46] = (uint8_t)((5 + padded / 4) << 4);
        bytes[47] = x >> 5 & 1 ? SMOS__SYN : SMOS__ACK;
        mend_checksums(bytes, length, 0);
        compare(bytes, length, length, 0);
    }
    CHECK((uint32_t)compared - before > 8000);
}

static void test_a_wrong_checksum_is_left_to_the_long_way(void)
{
    uint8_t bytes[256];
    smos__decoded_t out;
    uint32_t length = build(bytes, 30, 1, 0);
    smos__frame_t frame = {.data = bytes, .caplen = length, .len = length, .linktype = 1};
    bytes[length - 1] ^= 1;
    CHECK(!smos__decode_fast(&frame, &out));
    smos__decode(&frame, NULL, &out);
    CHECK(out.layer[0].flags & SMOS__BAD_CHECKSUM);
}

int main(void)
{
    RUN(test_plain_frames_take_it);
    RUN(test_every_change_is_decided_alike);
    RUN(test_options_are_read_alike);
    RUN(test_a_wrong_checksum_is_left_to_the_long_way);
    return 0;
}
