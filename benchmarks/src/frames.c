#include "frames.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { ETHERNET = 14, IPV4 = 20, TCP = 20, FRAME_MIN = 60, SNAPLEN = 65535, START_SECONDS = 1700000000 };

static void fail(const char *path)
{
    fprintf(stderr, "generate: %s: %s\n", path, strerror(errno));
    exit(1);
}

static void put16(uint8_t *to, uint32_t value)
{
    to[0] = (uint8_t)(value >> 8);
    to[1] = (uint8_t)value;
}

static void put32(uint8_t *to, uint32_t value)
{
    put16(to, value >> 16);
    put16(to + 2, value);
}

/* RFC 1071: the sum of 16-bit big-endian words, not yet folded. */
static uint64_t sum_words(const uint8_t *bytes, size_t length)
{
    uint64_t sum = 0;
    size_t i = 0;
    for (; i + 1 < length; i += 2)
        sum += (uint64_t)bytes[i] << 8 | bytes[i + 1];
    if (i < length)
        sum += (uint64_t)bytes[i] << 8;
    return sum;
}

static uint16_t fold(uint64_t sum)
{
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

void capture_open(capture_t *capture, const char *path)
{
    memset(capture, 0, sizeof *capture);
    capture->path = path;
    capture->file = fopen(path, "wb");
    if (!capture->file)
        fail(path);
    setvbuf(capture->file, NULL, _IOFBF, 1 << 20);
    capture->time_us = (int64_t)START_SECONDS * 1000000;
    capture->step_us = 1;
    struct {
        uint32_t magic;
        uint16_t major, minor;
        uint32_t zone, accuracy, snaplen, linktype;
    } header = {0xa1b2c3d4u, 2, 4, 0, 0, SNAPLEN, 1};
    if (fwrite(&header, sizeof header, 1, capture->file) != 1)
        fail(path);
}

void capture_close(capture_t *capture)
{
    if (fclose(capture->file))
        fail(capture->path);
    capture->file = NULL;
}

/* MSS, SACK permitted, timestamps left out (they would be on every packet), window scale 7. */
static size_t syn_options(uint8_t *to)
{
    static const uint8_t options[] = {2, 4, FRAME_MSS >> 8, FRAME_MSS & 0xff, 4, 2, 1, 3, 3, 7, 1, 1};
    memcpy(to, options, sizeof options);
    return sizeof options;
}

void capture_write(capture_t *capture, const frame_t *frame)
{
    struct {
        uint32_t seconds, micros, caplen, len;
        uint8_t bytes[ETHERNET + IPV4 + 60 + FRAME_MSS];
    } record;
    uint8_t *ethernet = record.bytes, *ip = ethernet + ETHERNET, *tcp = ip + IPV4;
    static const uint8_t macs[2][6] = {{2, 0, 0, 0, 0, 1}, {2, 0, 0, 0, 0, 2}};

    memcpy(ethernet, macs[!frame->from], 6);
    memcpy(ethernet + 6, macs[frame->from], 6);
    put16(ethernet + 12, 0x0800);

    size_t options = (frame->flags & FRAME_SYN) && !frame->bare ? syn_options(tcp + TCP) : 0;
    size_t tcp_header = TCP + options, segment = tcp_header + frame->payload_len;
    ip[0] = 0x45;
    ip[1] = 0;
    put16(ip + 2, (uint32_t)(IPV4 + segment));
    put16(ip + 4, (uint32_t)capture->packets);
    put16(ip + 6, 0x4000);
    ip[8] = 64;
    ip[9] = 6;
    put16(ip + 10, 0);
    put32(ip + 12, frame->src);
    put32(ip + 16, frame->dst);
    put16(ip + 10, fold(sum_words(ip, IPV4)));

    put16(tcp, frame->sport);
    put16(tcp + 2, frame->dport);
    put32(tcp + 4, frame->seq);
    put32(tcp + 8, frame->flags & FRAME_ACK ? frame->ack : 0);
    tcp[12] = (uint8_t)(tcp_header / 4 << 4);
    tcp[13] = frame->flags;
    put16(tcp + 14, 64240);
    put32(tcp + 16, 0);
    if (frame->payload_len)
        memcpy(tcp + tcp_header, frame->payload, frame->payload_len);
    put16(tcp + 16, fold(sum_words(tcp, segment) + sum_words(ip + 12, 8) + 6 + segment));

    size_t length = ETHERNET + IPV4 + segment;
    if (length < FRAME_MIN) {
        memset(ethernet + length, 0, FRAME_MIN - length);
        length = FRAME_MIN;
    }
    record.seconds = (uint32_t)(capture->time_us / 1000000);
    record.micros = (uint32_t)(capture->time_us % 1000000);
    record.caplen = record.len = (uint32_t)length;
    if (fwrite(&record, 16 + length, 1, capture->file) != 1)
        fail(capture->path);

    capture->time_us += capture->step_us;
    capture->packets++;
    capture->frame_bytes += length;
    capture->payload_bytes[frame->from] += frame->payload_len;
}

uint64_t mix64(uint64_t value)
{
    value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9u;
    value = (value ^ value >> 27) * 0x94d049bb133111ebu;
    return value ^ value >> 31;
}

uint64_t rng_next(rng_t *rng)
{
    return mix64(rng->state += 0x9e3779b97f4a7c15u);
}

uint32_t rng_below(rng_t *rng, uint32_t bound)
{
    return (uint32_t)((rng_next(rng) >> 32) * bound >> 32);
}

int rng_chance(rng_t *rng, double probability)
{
    return (double)(rng_next(rng) >> 11) * 0x1p-53 < probability;
}
