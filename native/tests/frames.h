/* frames.h: frames as hexadecimal text, decoded at the end of a heap block of their own size. */
#ifndef SMOS_TEST_FRAMES_H
#define SMOS_TEST_FRAMES_H

#include "check.h"
#include "decoded_sane.h"

static smos__decoded_t d;
static const smos__layer_t *l;

/* Hexadecimal text to bytes. */
static inline uint32_t bytes_of(const char *hex, uint8_t *out)
{
    uint32_t n = 0;
    while (*hex) {
        if (*hex == ' ') {
            hex++;
            continue;
        }
        char pair[3] = { hex[0], hex[1], 0 };
        out[n++] = (uint8_t)strtoul(pair, NULL, 16);
        hex += 2;
    }
    return n;
}

#define LAST_BYTES 4096
static uint8_t *block; /* the frame, at the end of a heap block of its own size */

static inline void decode_with(uint32_t linktype, const char *hex, uint32_t cut, uint32_t flags)
{
    static uint8_t buffer[LAST_BYTES];
    uint32_t n = bytes_of(hex, buffer);
    free(block);
    block = malloc(n - cut ? n - cut : 1);
    CHECK(block != NULL);
    memcpy(block, buffer, n - cut);
    smos__frame_t frame = { .data = block, .caplen = n - cut, .len = n, .number = 1, .linktype = (uint16_t)linktype, .flags = flags };
    memset(&d, 0x5a, sizeof d);
    smos__decode(&frame, NULL, &d);
    decoded_sane(&frame, &d);
    l = d.layers ? &d.layer[d.layers - 1] : NULL;
}

static inline void decode(uint32_t linktype, const char *hex) { decode_with(linktype, hex, 0, SMOS__FRAME_NO_CHECKSUM); }

static inline int raised(const char *name)
{
    int found = 0;
    for (int i = 0; i < d.anomaly_count; i++) found |= !strcmp(smos__anomaly_name(d.anomalies[i]), name);
    for (int k = 0; k < d.layers; k++)
        for (int i = 0; i < d.layer[k].anomaly_count; i++) found |= !strcmp(smos__anomaly_name(d.layer[k].anomalies[i]), name);
    return found;
}

#define MACS "020000000002 020000000001 "
#define V4 "45000028 12344000 40060000 0a000001 0a000002 "       /* IPv4, 20 bytes of TCP, 10.0.0.1 to 10.0.0.2 */
#define TCP "04d20050 00000064 000000c8 50182000 00000000 "       /* 1234 to 80, seq 100, ack 200, PSH ACK, window 8192 */
#define V4_UDP(total, udp) "4500" total " 12344000 40110000 0a000001 0a000002 04d2" udp
#define A6 "20010db8000000000000000000000001 20010db8000000000000000000000002 "
#define V6(length, next) "60000000" length next "40 " A6

#endif
