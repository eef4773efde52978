/* The short ways, ordinary.c and fast.h, must do what the sender's and the receiver's step do together, or nothing: over many connections that open,
 * talk and close by chance, mostly as they should, sometimes not. */
#include "check.h"
#include "tcp/fast.h"

enum { CONNECTIONS = 60000, SEGMENTS = 24, POOL_BYTES = 1 << 20, TRACE = 64 };

static uint64_t chance_state = 88172645463325252u;

static uint32_t chance(uint32_t below)
{
    chance_state ^= chance_state << 13;
    chance_state ^= chance_state >> 7;
    chance_state ^= chance_state << 17;
    return (uint32_t)(chance_state >> 20) % below;
}

typedef struct told {
    uint64_t what[TRACE][4];
    int count;
} told_t;

static void tell(told_t *t, uint64_t kind, uint64_t a, uint64_t b, uint64_t c)
{
    if (t->count < TRACE) memcpy(t->what[t->count], (uint64_t[]){kind, a, b, c}, sizeof t->what[0]);
    t->count++;
}

static void on_data(void *t, int receiver, const uint8_t *data, uint32_t length, uint64_t offset) { (void)data, tell(t, 1, (uint64_t)receiver, length, offset); }
static void on_gap(void *t, int receiver, uint64_t offset, uint64_t length) { tell(t, 2, (uint64_t)receiver, length, offset); }
static void on_anomaly(void *t, smos__anomaly_t anomaly) { tell(t, 3, anomaly, 0, 0); }
static void on_conflict(void *t, const smos__conflict_t *c) { tell(t, 4, c->offset, c->length, 0); }
static void on_error(void *t, int receiver, uint32_t code) { tell(t, 5, (uint64_t)receiver, code, 0); }
static const smos__assembler_t *kept(void *t, int receiver) { return (void)t, (void)receiver, NULL; }
static const smos__tcp_sink_t SINK = {on_data, on_gap, on_anomaly, on_conflict, on_error, kept};

typedef struct connection {
    smos__flow_t flow;
    smos__flow_cold_t cold;
    smos__flow_conn_t conn;
} connection_t;

static smos__pool_t *pool;
static smos__refused_t refused;
static const smos__stream_options_t OPTIONS;
static int taken[4]; /* by ordinary.c: SYN, SYN/ACK, acknowledgements, FIN */
static int taken_shortly;

static smos__tcp_t under_hand(connection_t *c, const smos__tcp_config_t *config, told_t *told, int64_t now_ns)
{
    return (smos__tcp_t){&c->flow, &c->cold, &c->conn, pool, config, &OPTIONS, &SINK, told, now_ns, &refused};
}

static const uint8_t BYTES[64];

static smos__layer_t segment(const connection_t *c, int from, bool timestamps, int64_t now_ns)
{
    const smos__endpoint_t *e = &c->flow.end[from], *p = &c->flow.end[!from];
    smos__layer_t l = {.l4 = BYTES, .seq = e->snd_nxt, .ack = p->snd_nxt, .window = 1000, .tcp_flags = SMOS__ACK, .flags = SMOS__L4_WHOLE};
    const bool opening = !(e->flags & SMOS__EP_SYN);
    if (opening) {
        l.tcp_flags = p->flags & SMOS__EP_SYN ? SMOS__SYN | SMOS__ACK : SMOS__SYN;
        l.seq = chance(2) ? 0xfffffff0u + chance(32) : chance(UINT32_MAX);
        if (chance(2)) l.flags |= SMOS__HAS_WSCALE, l.wscale = (uint8_t)chance(16);
        if (chance(2)) l.flags |= SMOS__HAS_MSS | SMOS__SACK_PERMITTED, l.mss = 1460;
        if (!chance(20)) l.flags |= SMOS__HAS_TFO;
        if (!(l.tcp_flags & SMOS__ACK)) l.ack = 0;
    } else if (e->flags & SMOS__EP_FIN ? !chance(8) : !chance(6)) {
        l.tcp_flags |= SMOS__FIN;
    } else if (!chance(4)) {
        l.payload_len = l.payload_captured = 1 + chance(sizeof BYTES);
        l.payload = BYTES;
    }
    if (timestamps ? chance(30) : !chance(30)) l.flags |= SMOS__HAS_TIMESTAMP, l.tsval = (uint32_t)(now_ns / 1000000) - (chance(20) ? 0 : chance(4000));
    switch (chance(40)) { /* something is not as it should be */
    case 0: l.seq += chance(5) - 2; break;
    case 1: l.seq = chance(UINT32_MAX); break;
    case 2: l.ack += chance(5) - 2; break;
    case 3: l.ack = p->snd_una; break;
    case 4: l.ack = p->isn + 1; break;
    case 5: l.window = (uint16_t)(chance(2) ? 0 : chance(1000)); break;
    case 6: l.tcp_flags = (uint8_t)chance(256); break;
    case 7: l.tcp_flags ^= (uint8_t)(1u << chance(8)); break;
    case 8: l.flags |= SMOS__HAS_SACK, l.sack = BYTES, l.sack_blocks = 1; break;
    default: break;
    }
    return l;
}

/* As the shard has it. */
static bool fast(smos__tcp_t *t, const smos__layer_t *l, int from)
{
    smos__endpoint_t *end = t->flow->end;
    if (!smos__tcp_usual(l) || !smos__tcp_fast(&end[from], &end[!from], l, t->now_ns)) return false;
    if (t->config->detail & SMOS_DETAIL_RTT) smos__tcp_rtt(t, l, from);
    if (l->payload_len) smos__stream_segment(t, from, l->seq, l->payload, l->payload_captured, l->payload_len);
    return true;
}

static void same(const connection_t *a, const told_t *told, const connection_t *b, const told_t *told_in_two)
{
    CHECK_EQ(told->count, told_in_two->count);
    CHECK(memcmp(told, told_in_two, sizeof *told) == 0);
    CHECK(memcmp(a, b, sizeof *a) == 0);
}

static void step(connection_t *c, const smos__tcp_config_t *config, const smos__layer_t *l, int from, int64_t now_ns)
{
    connection_t once = *c, shortly = *c;
    told_t told = {0}, told_shortly = {0}, told_in_two = {0};
    smos__tcp_t t = under_hand(&shortly, config, &told_shortly, now_ns);
    bool short_ = c->flow.flags & SMOS__FLOW_SETUP && fast(&t, l, from);
    if (!short_) CHECK(!told_shortly.count && memcmp(&shortly, c, sizeof shortly) == 0);
    t = under_hand(&once, config, &told, now_ns);
    uint32_t facts = smos__tcp_ordinary(&t, l, from);
    if (!facts) CHECK(!told.count && memcmp(&once, c, sizeof once) == 0);
    smos__tcp_t long_way = under_hand(c, config, &told_in_two, now_ns);
    uint32_t in_two = smos__tcp_sender(&long_way, l, from);
    if (facts) { /* what handlers see in between */
        CHECK_EQ(facts, in_two);
        same(&once, &told, c, &told_in_two);
        facts = smos__tcp_ordinary_receiver(&t, l, from, facts);
    }
    in_two = smos__tcp_receiver(&long_way, l, from, in_two);
    if (short_) {
        CHECK_EQ(in_two, SMOS__TCP_VALID);
        same(&shortly, &told_shortly, c, &told_in_two);
        taken_shortly++;
    }
    if (facts) {
        CHECK_EQ(facts, in_two);
        same(&once, &told, c, &told_in_two);
        taken[l->tcp_flags & SMOS__SYN ? l->tcp_flags & SMOS__ACK ? 1 : 0 : l->tcp_flags & SMOS__FIN ? 3 : 2]++;
    }
}

static void test_it_does_what_the_two_steps_do_or_nothing(void)
{
    void *memory = aligned_alloc(64, (smos__pool_bytes(POOL_BYTES) + 63) / 64 * 64);
    pool = smos__pool_init(memory, POOL_BYTES);
    for (int n = 0; n < CONNECTIONS; n++) {
        const smos__tcp_config_t config = {.flow_buffer = 65536, .flow_segments = 64, .gap_bytes = 1 << 20, .gap_segments = 64, .gap_ns = INT64_MAX, .depth = chance(20) ? 0 : 50,
                                           .detail = (uint8_t)chance(8), .gaps_at_once = !chance(10)};
        connection_t c = {.flow = {.class_ = SMOS__CLASS_EMBRYONIC, .end_reason = 255, .flags = chance(4) ? SMOS__FLOW_STREAMS : 0}};
        const bool timestamps = chance(2);
        int64_t now_ns = INT64_C(1000000000000) + chance(1u << 30);
        c.cold.start_ns = now_ns;
        c.flow.end[0].wscale = c.flow.end[1].wscale = 255;
        for (int i = 0; i < SEGMENTS; i++) {
            int from = i < 3 ? i & 1 : (int)chance(2); /* SYN, SYN/ACK, ACK */
            if (!chance(50)) from = !from;
            now_ns += chance(1u << 27);
            const smos__layer_t l = segment(&c, from, timestamps, now_ns);
            c.flow.end[from].packets++;
            if (c.flow.end[!from].packets) c.flow.flags |= SMOS__FLOW_TWO_SIDED;
            step(&c, &config, &l, from, now_ns);
        }
        for (int side = 0; side < 2; side++) smos__assembler_clear(&c.cold.end[side].assembler, pool);
    }
    CHECK_EQ(smos__pool_used(pool), 0);
    free(memory);
    printf("# taken: %d SYN, %d SYN/ACK, %d acknowledgements, %d FIN; %d by fast.h\n", taken[0], taken[1], taken[2], taken[3], taken_shortly);
    for (int kind = 0; kind < 4; kind++) CHECK(taken[kind] > CONNECTIONS / 4);
    CHECK(taken_shortly > CONNECTIONS);
}

int main(void)
{
    RUN(test_it_does_what_the_two_steps_do_or_nothing);
    return 0;
}
