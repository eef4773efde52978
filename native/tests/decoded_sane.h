/* decoded_sane.h: what holds of every decoded frame, whatever its bytes; shared by the tests and the fuzzer. Reads every byte that
 * is said to be readable, so that the address sanitizer sees a wrong one. */
#ifndef SMOS_DECODED_SANE_H
#define SMOS_DECODED_SANE_H

#include <stdio.h>
#include <stdlib.h>

#include "event/anomaly.h"
#include "wire/decode.h"
#include "wire/owner.h"

#define SANE(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            abort(); \
        } \
    } while (0)

static inline uint32_t read_bytes(const uint8_t *p, uint32_t n)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < n; i++) sum += p[i];
    return sum;
}

static inline uint32_t decoded_sane(const smos__frame_t *frame, const smos__decoded_t *d)
{
    uint32_t sum = 0;
    SANE(d->result < SMOS__WIRE_RESULTS && d->layers <= SMOS__MAX_LAYERS && d->anomaly_count <= SMOS__MAX_ANOMALIES);
    if (d->result == SMOS__WIRE_OK) SANE(d->layers > 0);
    if (d->result == SMOS__WIRE_NOT_IP || d->result == SMOS__WIRE_LINKTYPE) SANE(d->layers == 0);
    for (int i = 0; i < d->anomaly_count; i++) SANE(d->anomalies[i] > 0 && d->anomalies[i] < SMOS__ANOMALY_COUNT);
    for (int k = 0; k < d->layers; k++) {
        const smos__layer_t *l = &d->layer[k];
        SANE(l->tuple.version == 4 || l->tuple.version == 6);
        SANE(l->ip_captured <= l->ip_len && l->ip_captured >= (l->tuple.version == 4 ? 20u : 40u));
        SANE(l->ip[0] >> 4 == l->tuple.version);
        if (!(l->flags & SMOS__REASSEMBLED)) SANE(l->ip >= frame->data && l->ip + l->ip_captured <= frame->data + frame->caplen && l->ip_len <= frame->len);
        SANE(l->payload_captured <= l->payload_len && l->payload_len <= l->ip_len);
        SANE((l->payload == NULL) == (l->payload_captured == 0));
        if (l->payload) SANE(l->payload > l->ip && l->payload + l->payload_captured <= l->ip + l->ip_captured);
        SANE(!!(l->flags & SMOS__TRUNCATED) == (l->payload_captured < l->payload_len));
        if (l->l4) SANE(l->l4 > l->ip && l->l4 < l->ip + l->ip_captured);
        if (l->flags & SMOS__L4_WHOLE) SANE(l->l4 != NULL);
        if (l->sack_blocks) SANE(l->sack > l->l4 && l->sack + l->sack_blocks * 8 <= l->ip + l->ip_captured);
        SANE(l->wscale <= 14 && l->anomaly_count <= SMOS__MAX_ANOMALIES);
        SANE(l->tuple.vlan == l->vlan[0] && l->tuple.tunnel == l->tunnel_id && l->vlan[0] < 4096 && l->vlan[1] < 4096);
        for (int i = 0; i < l->anomaly_count; i++) SANE(l->anomalies[i] > 0 && l->anomalies[i] < SMOS__ANOMALY_COUNT);
        if (l->flags & SMOS__ICMP_ERROR) SANE(l->quoted.version == 4 || l->quoted.version == 6);
        smos_tuple_t back = l->tuple;
        __builtin_memcpy(back.src, l->tuple.dst, 16);
        __builtin_memcpy(back.dst, l->tuple.src, 16);
        back.sport = l->tuple.dport;
        back.dport = l->tuple.sport;
        SANE(smos__owner_hash(&back, 7) == smos__owner_hash(&l->tuple, 7));
        sum += read_bytes(l->ip, l->ip_captured);
        if (l->payload) sum += read_bytes(l->payload, l->payload_captured);
    }
    return sum;
}

#endif
