/* generate: writes a seeded capture and prints what is in it, exactly, as one JSON line.
 *
 * The same arguments give the same bytes everywhere. Every checksum is right and every flow's 5-tuple is used once.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "connection.h"

typedef struct options {
    uint64_t seed, connections, open, flows, packets, weave;
} options_t;

typedef struct truth {
    uint64_t flows;           /* 5-tuples */
    uint64_t connections;     /* flows with a complete handshake */
    uint64_t stream_bytes[2]; /* distinct bytes by sender */
    disturbed_t disturbed;
} truth_t;

static void *allocate(uint64_t count, size_t size)
{
    void *memory = calloc(count ? count : 1, size);
    if (!memory) {
        fprintf(stderr, "generate: out of memory for %" PRIu64 " flows\n", count);
        exit(1);
    }
    return memory;
}

static void connection_next(connection_t *c, uint64_t index, rng_t *rng, const disturbance_t *disturbance, truth_t *truth)
{
    connection_make(c, (uint32_t)index, rng, disturbance, &truth->disturbed);
    truth->flows++;
    truth->connections++;
    truth->stream_bytes[0] += c->size[0];
    truth->stream_bytes[1] += c->size[1];
}

/* `open` connections at any time; each next packet belongs to a random one of them. */
static void http(capture_t *capture, const options_t *o, const disturbance_t *disturbance, truth_t *truth)
{
    rng_t rng = {o->seed};
    uint64_t made = 0, open = 0, most = o->open < o->connections ? o->open : o->connections;
    connection_t *live = allocate(most, sizeof *live);
    connection_pool(&rng);
    while (open < most)
        connection_next(&live[open++], made++, &rng, disturbance, truth);
    while (open) {
        uint32_t i = rng_below(&rng, (uint32_t)open);
        if (connection_play(&live[i], capture))
            continue;
        if (made < o->connections)
            connection_next(&live[i], made++, &rng, disturbance, truth);
        else
            live[i] = live[--open];
    }
    free(live);
}

typedef struct flow {
    uint32_t sent[2]; /* the next sequence number of each end */
} flow_t;

static void flow_packet(capture_t *capture, flow_t *flow, uint32_t index, int from, int flags, const uint8_t *payload, uint32_t length)
{
    uint32_t address[2];
    uint16_t port[2];
    tuple_of(index, address, port);
    capture_write(capture, &(frame_t){
                               .src = address[from],
                               .dst = address[!from],
                               .sport = port[from],
                               .dport = port[!from],
                               .seq = flow->sent[from],
                               .ack = flow->sent[!from],
                               .flags = (uint8_t)flags,
                               .from = (uint8_t)from,
                               .bare = 1,
                               .payload = payload,
                               .payload_len = length,
                           });
    flow->sent[from] += length + (flags & FRAME_SYN ? 1 : 0);
}

/* Handshakes of all flows, `stride` apart so that neighbours in time are not neighbours in address. */
static flow_t *handshakes(capture_t *capture, uint64_t flows, rng_t *rng, truth_t *truth)
{
    flow_t *flow = allocate(flows, sizeof *flow);
    for (uint32_t i = 0; i < flows; i++) {
        flow[i].sent[0] = (uint32_t)rng_next(rng);
        flow[i].sent[1] = (uint32_t)rng_next(rng);
    }
    /* A window of 64 handshakes is under way at any time. */
    enum { WINDOW = 64 };
    for (uint64_t base = 0; base < flows; base += WINDOW) {
        uint64_t end = base + WINDOW < flows ? base + WINDOW : flows;
        for (int turn = 0; turn < 3; turn++)
            for (uint64_t i = base; i < end; i++)
                flow_packet(capture, &flow[i], (uint32_t)i, turn == 1,
                            turn == 0 ? FRAME_SYN : turn == 1 ? FRAME_SYN | FRAME_ACK : FRAME_ACK, NULL, 0);
    }
    truth->flows += flows;
    truth->connections += flows;
    return flow;
}

static const uint8_t *noise(rng_t *rng, uint8_t *to, size_t length)
{
    for (size_t i = 0; i < length; i += 8) {
        uint64_t word = rng_next(rng);
        memcpy(to + i, &word, length - i < 8 ? length - i : 8);
    }
    return to;
}

/* Frames of 60 bytes: `flows` handshakes, then `packets` of 6 bytes of payload, each on a random flow and way. */
static void small(capture_t *capture, const options_t *o, truth_t *truth)
{
    rng_t rng = {o->seed};
    flow_t *flow = handshakes(capture, o->flows, &rng, truth);
    uint8_t payload[6];
    for (uint64_t n = 0; n < o->packets && o->flows; n++) {
        uint32_t i = rng_below(&rng, (uint32_t)o->flows);
        int from = (int)(rng_next(&rng) & 1);
        flow_packet(capture, &flow[i], i, from, FRAME_PSH | FRAME_ACK, noise(&rng, payload, sizeof payload), sizeof payload);
        truth->stream_bytes[from] += sizeof payload;
    }
    free(flow);
}

/* All handshakes, then rounds in which every flow sends once, in an order that differs from round to round. */
static void concurrent(capture_t *capture, const options_t *o, truth_t *truth)
{
    rng_t rng = {o->seed};
    uint64_t flows = o->flows, left = o->packets > 3 * flows ? o->packets - 3 * flows : 0;
    flow_t *flow = handshakes(capture, flows, &rng, truth);
    uint8_t payload[32];
    noise(&rng, payload, sizeof payload);
    for (uint64_t round = 0; flows && left; round++) {
        uint64_t mask = 1;
        while (mask < flows)
            mask <<= 1;
        mask--;
        uint64_t step = rng_next(&rng) | 1, at = rng_next(&rng); /* a full walk of 0..mask: odd step, power of two */
        for (uint64_t n = 0; n <= mask && left; n++) {
            uint64_t i = (at += step) & mask;
            if (i >= flows)
                continue;
            int from = (int)(round & 1);
            flow_packet(capture, &flow[i], (uint32_t)i, from, FRAME_PSH | FRAME_ACK, payload, sizeof payload);
            truth->stream_bytes[from] += sizeof payload;
            left--;
        }
    }
    free(flow);
}

/* A SYN from a random source that never sent one before and is no real client's. */
static void flood_packet(capture_t *capture, uint64_t *counter, uint64_t seed)
{
    uint32_t source, port;
    do {
        /* A bijection of 48 bits: address and port. Multiplying by an odd number keeps it one, so does xor of a shift. */
        uint64_t x = (*counter)++ + (seed << 20), mask = (1ull << 48) - 1;
        x = x * 0x9e3779b97f4b & mask;
        x ^= x >> 25;
        x = x * 0xbf58476d1ce5 & mask;
        x ^= x >> 27;
        source = (uint32_t)(x >> 16);
        port = (uint32_t)x & 0xffff;
    } while (source >> 24 == 0 || source >> 24 == 10 || source >> 24 == 127 || source >> 24 >= 224 || port < 1024);
    capture_write(capture, &(frame_t){
                               .src = source,
                               .dst = 0xc6120001u,
                               .sport = (uint16_t)port,
                               .dport = 80,
                               .seq = (uint32_t)mix64(*counter ^ seed),
                               .flags = FRAME_SYN,
                           });
}

/* `packets` SYNs, and `weave` real connections spread evenly through them, up to 64 at a time, taking turns: a real
 * connection sends about once in 64 * packets / (13 * weave) packets. */
static void synflood(capture_t *capture, const options_t *o, truth_t *truth)
{
    enum { OPEN = 64, STEPS = 13 };
    rng_t rng = {o->seed};
    connection_t *live = allocate(OPEN, sizeof *live);
    uint64_t made = 0, open = 0, real = 0, total = o->weave * STEPS, turn = 0, counter = 0;
    connection_pool(&rng);
    while (open < OPEN && made < o->weave)
        connection_next(&live[open++], made++, &rng, &(disturbance_t){0}, truth);
    for (uint64_t n = 0; n < o->packets || open; n++) {
        if (n < o->packets) {
            flood_packet(capture, &counter, o->seed);
            truth->flows++;
        }
        while (open && (n >= o->packets || real * o->packets < n * total)) {
            uint64_t i = turn++ % open;
            real++;
            if (connection_play(&live[i], capture))
                continue;
            if (made < o->weave)
                connection_next(&live[i], made++, &rng, &(disturbance_t){0}, truth);
            else
                live[i] = live[--open];
        }
    }
    free(live);
}

static void print_truth(const char *kind, const char *path, const options_t *o, const capture_t *c, const truth_t *t)
{
    printf("{\"kind\": \"%s\", \"file\": \"%s\", \"seed\": %" PRIu64 ", \"packets\": %" PRIu64 ", \"flows\": %" PRIu64
           ", \"connections\": %" PRIu64 ", \"frame_bytes\": %" PRIu64 ", \"payload_bytes\": [%" PRIu64 ", %" PRIu64
           "], \"stream_bytes\": [%" PRIu64 ", %" PRIu64 "], \"reordered\": %" PRIu64 ", \"retransmitted\": %" PRIu64
           ", \"overlapping\": %" PRIu64 "}\n",
           kind, path, o->seed, c->packets, t->flows, t->connections, c->frame_bytes, c->payload_bytes[0], c->payload_bytes[1],
           t->stream_bytes[0], t->stream_bytes[1], t->disturbed.reordered, t->disturbed.retransmitted, t->disturbed.overlapping);
}

static const char usage[] =
    "usage: generate KIND FILE [options]\n"
    "  http        --connections N (50000)  --open N (4096 at once)\n"
    "  ooo         the same, 1 % reordered, 1 % retransmitted, 0.5 % overlapping\n"
    "  small       --flows N (100000)  --packets N (1000000 after the handshakes)\n"
    "  concurrent  --flows N (100000)  --packets N (5000000 in all)\n"
    "  synflood    --packets N (2000000)  --weave N (0 real connections through it)\n"
    "  all         --seed N (1)\n";

static uint64_t number(const char *text)
{
    char *end;
    unsigned long long value = strtoull(text, &end, 10);
    if (!*text || *end || *text == '-' || value > 1ull << 31) {
        fprintf(stderr, "generate: '%s' is not a number from 0 to 2147483648\n", text);
        exit(2);
    }
    return value;
}

int main(int argc, char **argv)
{
    options_t o = {.seed = 1, .connections = 50000, .open = 4096, .flows = 100000, .packets = UINT64_MAX};
    static const struct option options[] = {
        {"seed", 1, NULL, 's'}, {"connections", 1, NULL, 'c'}, {"open", 1, NULL, 'o'},  {"flows", 1, NULL, 'f'},
        {"packets", 1, NULL, 'p'}, {"weave", 1, NULL, 'w'},     {"help", 0, NULL, 'h'}, {0},
    };
    for (int letter; (letter = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (letter) {
        case 's': o.seed = number(optarg); break;
        case 'c': o.connections = number(optarg); break;
        case 'o': o.open = number(optarg); break;
        case 'f': o.flows = number(optarg); break;
        case 'p': o.packets = number(optarg); break;
        case 'w': o.weave = number(optarg); break;
        case 'h': fputs(usage, stdout); return 0;
        default: fputs(usage, stderr); return 2;
        }
    }
    if (argc - optind != 2) {
        fputs(usage, stderr);
        return 2;
    }
    const char *kind = argv[optind], *path = argv[optind + 1];
    int is_http = !strcmp(kind, "http"), is_ooo = !strcmp(kind, "ooo"), is_small = !strcmp(kind, "small");
    int is_concurrent = !strcmp(kind, "concurrent");
    if (!is_http && !is_ooo && !is_small && !is_concurrent && strcmp(kind, "synflood")) {
        fprintf(stderr, "generate: no kind '%s'\n%s", kind, usage);
        return 2;
    }
    if (o.packets == UINT64_MAX)
        o.packets = is_small ? 1000000 : is_concurrent ? 5000000 : 2000000;

    capture_t capture;
    truth_t truth = {0};
    capture_open(&capture, path);
    if (is_http)
        http(&capture, &o, &(disturbance_t){0}, &truth);
    else if (is_ooo)
        http(&capture, &o, &(disturbance_t){.reordered = 0.01, .retransmitted = 0.01, .overlapping = 0.005}, &truth);
    else if (is_small)
        small(&capture, &o, &truth);
    else if (is_concurrent)
        concurrent(&capture, &o, &truth);
    else
        synflood(&capture, &o, &truth);
    capture_close(&capture);
    print_truth(kind, path, &o, &capture, &truth);
    return 0;
}
