/* Packets that a module changes, injects and resets, as they leave an inline port. */
#include <errno.h>

#include "conversation.h"
#include "edit/rewrite.h"

static const smos_api_t *api;

/* What left: who gets it, and the packet as read from its bytes. */
typedef struct left {
    int end;
    uint32_t seq, ack, ip_len;
    uint8_t flags;
    uint8_t src[4], dst[4];
    uint16_t sport, dport;
    char text[4096];
    bool ours;
} left_t;

static left_t out[64];
static int outs;

static uint32_t be(const uint8_t *p, int n)
{
    uint32_t v = 0;
    while (n--) v = v << 8 | *p++;
    return v;
}

static void leave(int end, const uint8_t *f, uint32_t length, bool ours)
{
    CHECK(outs < 64);
    left_t *l = &out[outs++];
    const uint8_t *ip = f + 14, *tcp = ip + 20;
    memset(l, 0, sizeof *l);
    l->end = end;
    l->ours = ours;
    l->ip_len = be(ip + 2, 2);
    CHECK(l->ip_len + 14 <= length);
    memcpy(l->src, ip + 12, 4);
    memcpy(l->dst, ip + 16, 4);
    l->sport = (uint16_t)be(tcp, 2);
    l->dport = (uint16_t)be(tcp + 2, 2);
    l->seq = be(tcp + 4, 4);
    l->ack = be(tcp + 8, 4);
    l->flags = tcp[13];
    uint32_t header = (uint32_t)(tcp[12] >> 4) * 4, n = l->ip_len - 20 - header;
    memcpy(l->text, tcp + header, n);
    if (ours) { /* made or changed by us: its checksums are right */
        uint8_t copy[5000];
        memcpy(copy, ip, l->ip_len);
        put_be(copy + 10, 0, 2);
        CHECK_EQ(smos__ip_checksum(copy, 20), be(ip + 10, 2));
        put_be(copy + 36, 0, 2);
        CHECK_EQ(smos__l4_checksum(copy, copy + 20, l->ip_len - 20, 6, false), be(tcp + 16, 2));
    }
}

static void forward(smos__port_t *p, smos__frame_t *f)
{
    (void)p;
    leave(!f->end, f->data, f->caplen, false);
}

static void drop(smos__port_t *p, smos__frame_t *f)
{
    (void)p;
    (void)f;
}

static int send_frame(smos__port_t *p, int end, const uint8_t *data, uint32_t length, const smos__frame_t *like)
{
    (void)p;
    (void)like;
    leave(end, data, length, true);
    return 0;
}

static void flush(smos__port_t *p) { (void)p; }

static void put_sums(uint8_t *ip)
{
    uint32_t length = be(ip + 2, 2);
    put_be(ip + 10, 0, 2);
    put_be(ip + 10, smos__ip_checksum(ip, 20), 2);
    put_be(ip + 36, 0, 2);
    put_be(ip + 36, smos__l4_checksum(ip, ip + 20, length - 20, 6, false), 2);
}

/* The client is at end 0. */
static talk_t *inline_talk(void)
{
    talk_t *t = talk();
    t->port.forward = forward;
    t->port.drop = drop;
    t->port.send = send_frame;
    t->port.flush = flush;
    t->port.ends = 2;
    outs = 0;
    return t;
}

static void ends(talk_t *t)
{
    for (int i = 0; i < t->count; i++) {
        uint8_t *f = (uint8_t *)(uintptr_t)t->frames[i].data;
        t->frames[i].end = f[14 + 15] == 2; /* from 10.0.0.2 */
        put_sums(f + 14);
        memcpy(f, f[29] == 2 ? "\2\0\0\0\0\1\2\0\0\0\0\2" : "\2\0\0\0\0\2\2\0\0\0\0\1", 12);
    }
}

static void run_with(talk_t *t, smos_handler_t handler, int hook)
{
    ends(t);
    api = smos_shard_api();
    smos_shard_t *s = shard_of_talk(t);
    s->config.checksums = 1;
    smos_module_t m = {SMOS_MODULE_HEADER, .name = "edits"};
    smos_box_t *box = module_of(s, &m);
    smos_shard_use(s, box);
    CHECK_EQ(api->register_handler(smos_shard_engine(s), 0, 0, SMOS_PKT_IN, hook, SMOS_BOTH, handler, NULL), 0);
    smos_shard_use(s, NULL);
    commit(s, box);
    run_to_end(s, t);
}

#define E smos_shard_engine(self)

static void put_in(void *self, const smos_call_t *c)
{
    if (c->packet->from != SMOS_CLIENT || c->packet->payload_len < 5 || memcmp(c->packet->payload, "GET /", 5)) return;
    CHECK_EQ(api->insert(E, 5, "secret/", 7), 0);
    if (c->packet->number > 4) { /* bytes that come again go out as they did */
        CHECK_EQ(c->packet->payload_len, 10);
        return;
    }
    CHECK_EQ(c->packet->payload_len, 7 + 10);
    CHECK(!memcmp(c->packet->payload, "GET /secret/index", 17));
    CHECK_EQ(api->remove(E, 12, 3), 0); /* "ind" */
    CHECK_EQ(api->insert(E, c->packet->payload_len, "!", 1), 0);
    CHECK_EQ(api->insert(E, 100, "x", 1), -EINVAL);
    CHECK_EQ(api->remove(E, 10, 100), -EINVAL);
}

static void test_insert_and_remove_shift_both_directions(void)
{
    talk_t *t = inline_talk();
    handshake(t, 0);
    segment(t, 0, 0, SMOS__ACK, 101, 501, "GET /index");
    segment(t, 0, 1, SMOS__ACK, 501, 116, "reply"); /* of 15 bytes, as the server counts */
    segment(t, 0, 0, SMOS__ACK, 101, 506, "GET /index"); /* again: the same text must go out */
    segment(t, 0, 0, SMOS__ACK, 104, 506, " /index more"); /* cut elsewhere, and on */
    segment(t, 0, 1, SMOS__ACK, 506, 121, "");
    segment(t, 0, 0, SMOS__FIN | SMOS__ACK, 116, 506, "");
    segment(t, 0, 1, SMOS__FIN | SMOS__ACK, 506, 122, "");
    run_with(t, put_in, SMOS_SENDER);
    CHECK_EQ(outs, 3 + 7);
    left_t *l = out + 3;
    CHECK_STR(l[0].text, "GET /secret/ex!");
    CHECK_EQ(l[0].seq, 101);
    CHECK_EQ(l[0].end, 1);
    CHECK_STR(l[1].text, "reply");
    CHECK_EQ(l[1].ack, 111); /* all ten bytes of the client */
    CHECK_EQ(l[1].end, 0);
    CHECK_EQ(l[2].seq + strlen(l[2].text), 116);
    CHECK_EQ(l[3].seq + strlen(l[3].text), 121);
    CHECK(strstr(l[3].text, " more") != NULL);
    CHECK_EQ(l[4].ack, 116);
    CHECK_EQ(l[5].seq, 121);
    CHECK_EQ(l[6].ack, 117);
}

static void take_all(void *self, const smos_call_t *c)
{
    if (c->packet->payload_len == 4) CHECK_EQ(api->remove(E, 0, 4), 0);
}

static void test_what_is_taken_out_whole_is_acknowledged(void)
{
    talk_t *t = inline_talk();
    handshake(t, 0);
    segment(t, 0, 0, SMOS__ACK, 101, 501, "gone");
    segment(t, 0, 0, SMOS__ACK, 105, 501, "stays");
    segment(t, 0, 1, SMOS__ACK, 501, 106, "");
    run_with(t, take_all, SMOS_SENDER);
    left_t *l = out + 3;
    CHECK(l[0].ours && l[0].end == 0 && l[0].flags == SMOS__ACK);
    CHECK_EQ(l[0].ack, 105);
    CHECK_EQ(l[0].seq, 501);
    CHECK_STR(l[1].text, "");
    CHECK_EQ(l[2].seq, 101);
    CHECK_STR(l[2].text, "stays");
    CHECK_EQ(l[3].ack, 110);
}

/* 10.0.0.1:1000 goes as 192.0.2.9:4321 beyond the box. */
static void translate(void *self, const smos_call_t *c)
{
    CHECK_EQ(c->tuple->sport, 1000);
    if (c->packet->from == SMOS_CLIENT) {
        CHECK_EQ(api->overwrite(E, SMOS_FROM_IP, 12, "\xc0\x00\x02\x09", 4), 0);
        CHECK_EQ(api->overwrite(E, SMOS_FROM_L4, 0, "\x10\xe1", 2), 0);
    } else {
        CHECK_EQ(api->overwrite(E, SMOS_FROM_IP, 16, "\x0a\x00\x00\x01", 4), 0);
        CHECK_EQ(api->overwrite(E, SMOS_FROM_L4, 2, "\x03\xe8", 2), 0);
    }
    CHECK_EQ(api->overwrite(E, SMOS_FROM_IP, 0, "\x41", 1), -EINVAL); /* no header at all */
    CHECK_EQ(api->overwrite(E, SMOS_FROM_FRAME, 50, "0123456789", 10), -EINVAL);
    CHECK_EQ(api->overwrite(E, 7, 0, "x", 1), -EINVAL);
}

static void test_translated_answers_find_their_flow(void)
{
    talk_t *t = inline_talk();
    handshake(t, 0);
    segment(t, 0, 0, SMOS__ACK, 101, 501, "hello");
    segment(t, 0, 1, SMOS__ACK, 501, 106, "world");
    for (int i = 0; i < t->count; i++) { /* the server answers whom it sees */
        uint8_t *f = (uint8_t *)(uintptr_t)t->frames[i].data;
        if (f[29] != 2) continue;
        memcpy(f + 14 + 16, "\xc0\x00\x02\x09", 4);
        put_be(f + 14 + 20 + 2, 4321, 2);
    }
    run_with(t, translate, SMOS_SENDER);
    CHECK_EQ(outs, 5);
    for (int i = 0; i < outs; i++) {
        bool client = out[i].end == 1;
        CHECK(!memcmp(client ? out[i].src : out[i].dst, client ? "\xc0\x00\x02\x09" : "\x0a\x00\x00\x01", 4));
        CHECK_EQ(client ? out[i].sport : out[i].dport, client ? 4321 : 1000);
    }
    CHECK_STR(out[4].text, "world");
}

static void interject(void *self, const smos_call_t *c)
{
    if (c->packet->from != SMOS_CLIENT || c->packet->payload_len != 5) return;
    smos_injection_t in = {.to = SMOS_CLIENT, .tcp_flags = SMOS__ACK | SMOS__PSH, .payload = "WARNING", .length = 7};
    CHECK_EQ(api->inject(E, c->flow, &in), 0);
    CHECK_EQ(api->inject(E, c->flow + 1, &in), -ESTALE);
    CHECK_EQ(api->inject(E, c->flow, NULL), -EINVAL);
    in.to = 7;
    CHECK_EQ(api->inject(E, c->flow, &in), -EINVAL);
}

static void test_injected_bytes_shift_what_follows(void)
{
    talk_t *t = inline_talk();
    handshake(t, 0);
    segment(t, 0, 1, SMOS__ACK, 501, 101, "banner");
    segment(t, 0, 0, SMOS__ACK, 101, 507, "hello");
    segment(t, 0, 0, SMOS__ACK, 106, 514, ""); /* the client has the warning */
    segment(t, 0, 1, SMOS__ACK, 507, 106, "more");
    segment(t, 0, 0, SMOS__ACK, 106, 518, "");
    run_with(t, interject, SMOS_SENDER);
    left_t *l = out + 4;
    CHECK(l[0].ours && l[0].end == 0);
    CHECK_STR(l[0].text, "WARNING");
    CHECK_EQ(l[0].seq, 507);
    CHECK_EQ(l[0].sport, 80);
    CHECK_STR(l[1].text, "hello");
    CHECK_EQ(l[1].ack, 507);
    CHECK_EQ(l[2].ack, 507); /* the server never sent it */
    CHECK_STR(l[3].text, "more");
    CHECK_EQ(l[3].seq, 514);
    CHECK_EQ(l[4].ack, 511);
}

static void resets(void *self, const smos_call_t *c)
{
    if (c->packet->payload_len == 5) CHECK_EQ(api->reset(E, c->flow), 0);
}

static void test_both_ends_take_the_reset(void)
{
    talk_t *t = inline_talk();
    handshake(t, 0);
    segment(t, 0, 1, SMOS__ACK, 501, 101, "banner");
    segment(t, 0, 0, SMOS__ACK, 101, 507, "hello"); /* never reaches the server */
    segment(t, 0, 0, SMOS__ACK, 106, 507, "after");
    run_with(t, resets, SMOS_RECEIVER);
    CHECK_EQ(outs, 4 + 2);
    CHECK(out[4].end == 0 && out[4].flags == (SMOS__RST | SMOS__ACK));
    CHECK_EQ(out[4].seq, 507); /* exactly what the client expects next (RFC 5961 3.2) */
    CHECK(out[5].end == 1 && out[5].flags == (SMOS__RST | SMOS__ACK));
    CHECK_EQ(out[5].seq, 101);
    CHECK_EQ(out[5].sport, 1000);
}

static void outgrow(void *self, const smos_call_t *c)
{
    static char text[1000];
    memset(text, 'z', sizeof text);
    if (c->packet->payload_len > 1000) CHECK_EQ(api->insert(E, 1, text, sizeof text), 0);
}

static void test_what_outgrows_the_mtu_goes_as_two(void)
{
    static char big[1401];
    memset(big, 'a', 1400);
    talk_t *t = inline_talk();
    handshake(t, 0);
    segment(t, 0, 0, SMOS__ACK | SMOS__PSH, 101, 501, big);
    run_with(t, outgrow, SMOS_SENDER);
    CHECK_EQ(outs, 5);
    CHECK(out[3].ip_len <= 1500 && out[4].ip_len <= 1500);
    CHECK_EQ(strlen(out[3].text) + strlen(out[4].text), 2400);
    CHECK_EQ(out[4].seq, 101 + strlen(out[3].text));
    CHECK(!(out[3].flags & SMOS__PSH) && out[4].flags & SMOS__PSH);
    CHECK(out[3].text[0] == 'a' && out[3].text[1] == 'z' && out[4].text[strlen(out[4].text) - 1] == 'a');
}

static void fill(uint8_t *to, int n)
{
    static uint32_t seed = 1;
    for (int i = 0; i < n; i++) to[i] = (uint8_t)((seed = seed * 1664525 + 1013904223) >> 24);
}

/* Addresses and ports at random, by both ways: RFC 1624's sums are those of RFC 1071. */
static void test_sums_mended_are_those_made_anew(void)
{
    for (int turn = 0; turn < 60000; turn++) {
        bool six = turn & 1, partial = turn & 2;
        uint8_t proto = (uint8_t[]){6, 17, six ? 58 : 1}[turn / 4 % 3], a[128], b[128], before[64];
        uint32_t header = six ? 40 : 20 + 4 * (turn / 16 % 11), l4_bytes = 20 + turn % 9, length = header + l4_bytes;
        fill(a, sizeof a);
        a[0] = six ? 0x60 : (uint8_t)(0x40 | header / 4);
        a[six ? 6 : 9] = proto;
        put_be(a + (six ? 4 : 2), six ? l4_bytes : length, 2);
        if (proto == 17) put_be(a + header + 4, l4_bytes, 2);
        if (turn % 7 == 0) memset(a + header + 8, 0, l4_bytes - 8);
        if (partial && proto != 6 && proto != 17) partial = false;
        smos__frame_t f = {.data = a, .caplen = length, .len = length, .offload.flags = partial ? SMOS__OFFLOAD_PARTIAL : 0};
        smos__layer_t l = {.tuple = {.version = six ? 6 : 4, .proto = proto}, .ip = a, .l4 = a + header, .ip_len = length, .ip_captured = length};
        if (proto == 17) a[header + 6] = 1;
        smos__rewrite_checksums(&f, &l);
        uint32_t from = six ? 8 : 12, many = header - from + (proto == 6 || proto == 17 ? 4 : 0);
        memcpy(before, a + from, many);
        fill(a + from, (int)many);
        if (turn % 11 == 0) memset(a + from, turn % 2 ? 0xff : 0, many);
        memcpy(b, a, sizeof b);
        CHECK(smos__rewrite_mend(&f, &l, a + from, before, many));
        f.data = l.ip = b;
        l.l4 = b + header;
        smos__rewrite_checksums(&f, &l);
        CHECK(!memcmp(a, b, length));
        l.ip = b, l.l4 = b + header;
        const uint8_t *sum = b + header + (proto == 6 ? 16 : proto == 17 ? 6 : 2), other[2] = {(uint8_t)~sum[0], sum[1]};
        CHECK(!smos__rewrite_mend(&f, &l, sum, other, 2));
        CHECK(!smos__rewrite_mend(&f, &l, b + from + 1, before, 2));
        CHECK(!smos__rewrite_mend(&f, &l, b + from, before, 3));
    }
}

int main(void)
{
    RUN(test_sums_mended_are_those_made_anew);
    RUN(test_insert_and_remove_shift_both_directions);
    RUN(test_what_is_taken_out_whole_is_acknowledged);
    RUN(test_translated_answers_find_their_flow);
    RUN(test_injected_bytes_shift_what_follows);
    RUN(test_both_ends_take_the_reset);
    RUN(test_what_outgrows_the_mtu_goes_as_two);
    return 0;
}
