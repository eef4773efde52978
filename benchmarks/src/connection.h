/* connection.h: one HTTP-like TCP connection as a script of packets that can be disturbed before it is played. */
#ifndef BENCH_CONNECTION_H
#define BENCH_CONNECTION_H

#include "frames.h"

enum { STEPS_MAX = 32, HEAD_MAX = 160 };

typedef struct step {
    uint8_t from, flags;
    uint32_t offset, length; /* of the sender's stream; the byte after the SYN is 0 */
    uint32_t acked;          /* sequence numbers of the peer acknowledged, its SYN not counted */
} step_t;

typedef struct connection {
    uint32_t address[2];
    uint16_t port[2];
    uint32_t isn[2];
    uint32_t size[2]; /* of each sender's stream */
    uint32_t head_length[2];
    char head[2][HEAD_MAX];
    uint32_t body; /* where in the pool the response's body begins */
    int steps, next;
    step_t step[STEPS_MAX];
} connection_t;

/* Shares of all packets, each a probability: 0.01 is one in a hundred. */
typedef struct disturbance {
    double reordered, retransmitted, overlapping;
} disturbance_t;

typedef struct disturbed {
    uint64_t reordered, retransmitted, overlapping;
} disturbed_t;

/* The tuple of connection or flow number `index`, never the same for two indices below 2^32. */
void tuple_of(uint32_t index, uint32_t address[2], uint16_t port[2]);

/* Fills the pool that response bodies are cut from. Once, before the first connection. */
void connection_pool(rng_t *rng);
/* A connection of 13 packets: handshake, request, a response of about 4,200 bytes in three segments, both FINs. */
void connection_make(connection_t *connection, uint32_t index, rng_t *rng, const disturbance_t *, disturbed_t *counts);
/* Writes the next packet; returns 1 while there are more. */
int connection_play(connection_t *connection, capture_t *capture);

#endif
