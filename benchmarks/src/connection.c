#include "connection.h"

#include <string.h>

enum { POOL = 1 << 17, CLIENT = 0, SERVER = 1, RESPONSE_MIN = 4096, RESPONSE_SPREAD = 208 };

static uint8_t pool[POOL];

void connection_pool(rng_t *rng)
{
    for (size_t i = 0; i < POOL; i += 8) {
        uint64_t word = rng_next(rng);
        memcpy(pool + i, &word, 8);
    }
}

void tuple_of(uint32_t index, uint32_t address[2], uint16_t port[2])
{
    uint32_t scattered = index * 0x9e3779b1u; /* odd, so a bijection: 18 bits of address, 14 of port */
    address[CLIENT] = 0x0a000000u | scattered >> 14;
    port[CLIENT] = (uint16_t)(0x4000 | (scattered & 0x3fff));
    address[SERVER] = 0xc6120001u + index % 200; /* 198.18.0.0/15, for benchmarks (RFC 2544) */
    port[SERVER] = 80;
}

static void add(connection_t *c, int from, int flags, uint32_t offset, uint32_t length)
{
    c->step[c->steps++] = (step_t){.from = (uint8_t)from, .flags = (uint8_t)flags, .offset = offset, .length = length};
}

static void insert(connection_t *c, int at, step_t step)
{
    if (c->steps == STEPS_MAX)
        return;
    memmove(&c->step[at + 1], &c->step[at], (size_t)(c->steps - at) * sizeof step);
    c->step[at] = step;
    c->steps++;
}

/* Positions of the response's segments in the script. */
static int response_segments(const connection_t *c, int *at)
{
    int count = 0;
    for (int i = 0; i < c->steps; i++)
        if (c->step[i].from == SERVER && c->step[i].length)
            at[count++] = i;
    return count;
}

/* Probabilities are per packet of the capture; a connection has `packets` chances, taken at once. */
static void disturb(connection_t *c, rng_t *rng, const disturbance_t *d, disturbed_t *counts)
{
    int at[STEPS_MAX], packets = c->steps + 3 /* both FINs and the last ACK follow */, segments = response_segments(c, at);
    if (rng_chance(rng, d->reordered * packets)) {
        int i = (int)rng_below(rng, (uint32_t)segments - 1);
        step_t earlier = c->step[at[i]];
        c->step[at[i]] = c->step[at[i + 1]];
        c->step[at[i + 1]] = earlier;
        counts->reordered++;
    }
    if (rng_chance(rng, d->retransmitted * packets)) {
        int position = at[rng_below(rng, (uint32_t)segments)];
        insert(c, position + 1 + (int)rng_below(rng, 2), c->step[position]);
        counts->retransmitted++;
    }
    if (rng_chance(rng, d->overlapping * packets)) {
        /* The second half of a segment and the first of the next, before or after that next one. */
        segments = response_segments(c, at);
        int i = (int)rng_below(rng, (uint32_t)segments - 1);
        step_t across = c->step[at[i]];
        uint32_t half = across.length / 2, left = c->size[SERVER] - (across.offset + half);
        across.offset += half;
        across.length = left < FRAME_MSS ? left : FRAME_MSS;
        insert(c, at[i + (int)rng_below(rng, 2)] + 1, across);
        counts->overlapping++;
    }
}

/* What the receiver of `from`'s stream has in order after the first `played` steps. */
static uint32_t received(const connection_t *c, int from, int played)
{
    uint32_t have = 0;
    for (int moved = 1; moved;) {
        moved = 0;
        for (int i = 0; i < played; i++) {
            const step_t *s = &c->step[i];
            uint32_t end = s->offset + s->length + (s->flags & FRAME_FIN ? 1 : 0);
            if (s->from == from && !(s->flags & FRAME_SYN) && s->offset <= have && have < end) {
                have = end;
                moved = 1;
            }
        }
    }
    return have;
}

static uint32_t text_line(char *to, const char *before, uint32_t number, const char *after)
{
    return (uint32_t)snprintf(to, HEAD_MAX, "%s%08u%s", before, number, after);
}

void connection_make(connection_t *c, uint32_t index, rng_t *rng, const disturbance_t *d, disturbed_t *counts)
{
    memset(c, 0, sizeof *c);
    tuple_of(index, c->address, c->port);
    c->isn[CLIENT] = (uint32_t)rng_next(rng);
    c->isn[SERVER] = (uint32_t)rng_next(rng);
    c->body = rng_below(rng, POOL / 2);
    c->size[SERVER] = RESPONSE_MIN + rng_below(rng, RESPONSE_SPREAD + 1);
    c->head_length[CLIENT] = text_line(c->head[CLIENT], "GET /object/", index,
                                       " HTTP/1.1\r\nHost: server.example\r\nUser-Agent: generate\r\nAccept: */*\r\n\r\n");
    c->size[CLIENT] = c->head_length[CLIENT];
    static const char fields[] = "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: ";
    uint32_t length = (uint32_t)sizeof fields - 1 + 8 + 4;
    c->head_length[SERVER] = text_line(c->head[SERVER], fields, c->size[SERVER] - length, "\r\n\r\n");

    add(c, CLIENT, FRAME_SYN, 0, 0);
    add(c, SERVER, FRAME_SYN | FRAME_ACK, 0, 0);
    add(c, CLIENT, FRAME_ACK, 0, 0);
    add(c, CLIENT, FRAME_PSH | FRAME_ACK, 0, c->size[CLIENT]);
    add(c, SERVER, FRAME_ACK, 0, 0);
    int segment = 0;
    for (uint32_t offset = 0; offset < c->size[SERVER]; segment++) {
        uint32_t left = c->size[SERVER] - offset, take = left < FRAME_MSS ? left : FRAME_MSS;
        add(c, SERVER, take == left ? FRAME_PSH | FRAME_ACK : FRAME_ACK, offset, take);
        offset += take;
        if (segment % 2 == 1 || take == left) /* delayed ACK: every second segment, RFC 9293 section 3.8.6.3 */
            add(c, CLIENT, FRAME_ACK, c->size[CLIENT], 0);
    }
    disturb(c, rng, d, counts);
    add(c, SERVER, FRAME_FIN | FRAME_ACK, c->size[SERVER], 0);
    add(c, CLIENT, FRAME_FIN | FRAME_ACK, c->size[CLIENT], 0);
    add(c, SERVER, FRAME_ACK, c->size[SERVER] + 1, 0);

    for (int i = 0; i < c->steps; i++)
        c->step[i].acked = received(c, !c->step[i].from, i);
}

static void stream_bytes(const connection_t *c, int from, uint32_t offset, uint32_t length, uint8_t *out)
{
    uint32_t head = c->head_length[from];
    if (offset < head) {
        uint32_t take = head - offset < length ? head - offset : length;
        memcpy(out, c->head[from] + offset, take);
        out += take, offset += take, length -= take;
    }
    if (length)
        memcpy(out, pool + c->body + offset, length);
}

int connection_play(connection_t *c, capture_t *capture)
{
    const step_t *s = &c->step[c->next++];
    uint8_t payload[FRAME_MSS];
    int to = !s->from;
    stream_bytes(c, s->from, s->offset, s->length, payload);
    capture_write(capture, &(frame_t){
                               .src = c->address[s->from],
                               .dst = c->address[to],
                               .sport = c->port[s->from],
                               .dport = c->port[to],
                               .seq = c->isn[s->from] + (s->flags & FRAME_SYN ? 0 : 1 + s->offset),
                               .ack = c->isn[to] + 1 + s->acked,
                               .flags = s->flags,
                               .from = s->from,
                               .payload = payload,
                               .payload_len = s->length,
                           });
    return c->next < c->steps;
}
