/* frames.h: writes Ethernet/IPv4/TCP frames with right checksums into a pcap file, and counts them. */
#ifndef BENCH_FRAMES_H
#define BENCH_FRAMES_H

#include <stdint.h>
#include <stdio.h>

enum { FRAME_FIN = 1, FRAME_SYN = 2, FRAME_RST = 4, FRAME_PSH = 8, FRAME_ACK = 16 };

#define FRAME_MSS 1460

typedef struct capture {
    FILE *file;
    const char *path;
    int64_t time_us; /* of the next packet */
    int64_t step_us; /* between packets */
    uint64_t packets;
    uint64_t frame_bytes;
    uint64_t payload_bytes[2]; /* by sender: client, server */
} capture_t;

/* Addresses and ports are in host order. A SYN carries the options that common stacks send unless `bare`. */
typedef struct frame {
    uint32_t src, dst;
    uint16_t sport, dport;
    uint32_t seq, ack;
    uint8_t flags;
    uint8_t from; /* 0 client, 1 server: for the counts */
    uint8_t bare;
    const uint8_t *payload;
    uint32_t payload_len; /* at most FRAME_MSS */
} frame_t;

/* Both end the program with one line on standard error when the file cannot be written. */
void capture_open(capture_t *capture, const char *path);
void capture_close(capture_t *capture);
void capture_write(capture_t *capture, const frame_t *frame);

/* splitmix64: small, seeded, the same everywhere. */
typedef struct rng {
    uint64_t state;
} rng_t;
uint64_t rng_next(rng_t *rng);
uint32_t rng_below(rng_t *rng, uint32_t bound); /* 0 .. bound-1; bound > 0 */
int rng_chance(rng_t *rng, double probability);

/* Bijective on 64 bits: makes counters look random without ever repeating. */
uint64_t mix64(uint64_t value);

#endif
