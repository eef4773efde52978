/* INTERIM, until decode.c lands: Ethernet, raw, IPv4/IPv6, TCP/UDP/ICMP only. */
#include <string.h>
#include "wire/decode.h"
#include "wire/defrag.h"
#include "event/anomaly.h"
#define W __attribute__((weak))
static uint16_t be16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }
static uint32_t be32(const uint8_t *p) { return (uint32_t)be16(p) << 16 | be16(p + 2); }
W const char *smos__anomaly_name(uint32_t a)
{
    static const char *const N[] = {
#define SMOS__ANOMALY(id, name, text) name,
#include "wire/anomalies.def"
#include "tcp/anomalies.def"
#undef SMOS__ANOMALY
    };
    return a < SMOS__ANOMALY_COUNT ? N[a] : "unknown";
}
W int smos__linktype_supported(uint32_t t) { return t == 1 || t == 101 || t == 12 || t == 14 || t == 0 || t == 108 || t == 113 || t == 276 || t == 228 || t == 229; }
W uint32_t smos__owner_hash(const smos_tuple_t *t, uint32_t seed)
{
    uint32_t h = seed;
    for (int i = 0; i < 16; i += 4) h += (be32(t->src + i) + be32(t->dst + i)) * 0x9e3779b1u ^ (be32(t->src + i) ^ be32(t->dst + i));
    h += (uint32_t)(t->sport + t->dport) * 0x85ebca6bu + t->proto;
    h ^= h >> 16; h *= 0x85ebca6bu; h ^= h >> 13; h *= 0xc2b2ae35u;
    return h ^ h >> 16;
}
W void smos__decode(const smos__frame_t *f, smos__defrag_t *d, smos__decoded_t *o)
{
    (void)d;
    const uint8_t *p = f->data, *end = p + f->caplen;
    o->layers = 0; o->anomaly_count = 0; o->fragments = 0; o->owner_hash = 0; o->result = SMOS__WIRE_NOT_IP;
    uint16_t type = 0;
    if (f->linktype == 1) {
        if (end - p < 14) { o->result = SMOS__WIRE_TRUNCATED; return; }
        type = be16(p + 12); p += 14;
        while ((type == 0x8100 || type == 0x88a8) && end - p >= 4) { type = be16(p + 2); p += 4; }
    } else if (f->linktype == 113 && end - p >= 16) { type = be16(p + 14); p += 16; }
    else if (f->linktype == 276 && end - p >= 20) { type = be16(p); p += 20; }
    else if (f->linktype == 0 && end - p >= 4) { p += 4; type = (p < end && *p >> 4 == 4) ? 0x800 : 0x86dd; }
    else if (end - p >= 1) type = *p >> 4 == 4 ? 0x800 : 0x86dd;
    smos__layer_t *l = &o->layer[0];
    memset(l, 0, sizeof *l);
    uint32_t wire = f->len - (uint32_t)(p - f->data), hl;
    l->ip = p; l->ip_captured = (uint32_t)(end - p);
    if (type == 0x800) {
        if (end - p < 20) { o->result = SMOS__WIRE_TRUNCATED; return; }
        hl = (p[0] & 15) * 4u; l->ip_len = be16(p + 2); if (!l->ip_len || l->ip_len > wire) l->ip_len = wire;
        if (hl < 20 || hl > l->ip_len) { o->result = SMOS__WIRE_MALFORMED; return; }
        if (be16(p + 6) & 0x3fff) { o->result = SMOS__WIRE_FRAGMENT; return; }
        l->tuple.src[10] = l->tuple.src[11] = l->tuple.dst[10] = l->tuple.dst[11] = 255;
        memcpy(l->tuple.src + 12, p + 12, 4); memcpy(l->tuple.dst + 12, p + 16, 4);
        l->tuple.version = 4; l->tuple.proto = p[9];
    } else if (type == 0x86dd) {
        if (end - p < 40) { o->result = SMOS__WIRE_TRUNCATED; return; }
        hl = 40; l->ip_len = be16(p + 4) + 40u; if (l->ip_len > wire) l->ip_len = wire;
        memcpy(l->tuple.src, p + 8, 16); memcpy(l->tuple.dst, p + 24, 16);
        l->tuple.version = 6; l->tuple.proto = p[6];
    } else return;
    const uint8_t *q = p + hl; uint32_t n = l->ip_len - hl, th = 0;
    l->flags = SMOS__UNCHECKED | SMOS__L4_WHOLE; l->l4 = q;
    if (l->tuple.proto == 6) {
        if (end - q < 20 || n < 20) { o->result = SMOS__WIRE_TRUNCATED; return; }
        th = (q[12] >> 4) * 4u;
        if (th < 20 || th > n || end - q < (long)th) { o->result = SMOS__WIRE_MALFORMED; return; }
        l->tuple.sport = be16(q); l->tuple.dport = be16(q + 2); l->seq = be32(q + 4); l->ack = be32(q + 8); l->tcp_flags = q[13]; l->window = be16(q + 14);
        for (uint32_t i = 20; i < th;) {
            uint8_t k = q[i]; if (k == 0) break; if (k == 1) { i++; continue; }
            if (i + 1 >= th) break;
            uint8_t len = q[i + 1];
            if (len < 2 || i + len > th) break;
            if (k == 2 && len == 4) { l->flags |= SMOS__HAS_MSS; l->mss = be16(q + i + 2); }
            if (k == 3 && len == 3) { l->flags |= SMOS__HAS_WSCALE; l->wscale = q[i + 2]; }
            if (k == 4) l->flags |= SMOS__SACK_PERMITTED;
            if (k == 8 && len == 10) { l->flags |= SMOS__HAS_TIMESTAMP; l->tsval = be32(q + i + 2); l->tsecr = be32(q + i + 6); }
            if (k == 34) l->flags |= SMOS__HAS_TFO;
            i += len;
        }
    } else if (l->tuple.proto == 17) {
        if (end - q < 8 || n < 8) { o->result = SMOS__WIRE_TRUNCATED; return; }
        th = 8; l->tuple.sport = be16(q); l->tuple.dport = be16(q + 2);
    } else if (l->tuple.proto == 1 || l->tuple.proto == 58) {
        if (end - q < 8 || n < 8) { o->result = SMOS__WIRE_TRUNCATED; return; }
        th = 8; l->tuple.sport = l->tuple.dport = be16(q + 4);
    }
    l->payload_len = n - th;
    l->payload_captured = end - q - (long)th < (long)l->payload_len ? (uint32_t)(end - q - th) : l->payload_len;
    l->payload = l->payload_captured ? q + th : NULL;
    o->layers = 1; o->result = SMOS__WIRE_OK;
}
W size_t smos__defrag_size(const smos__defrag_config_t *c) { (void)c; return 4096; }
W smos__defrag_t *smos__defrag_init(void *m, const smos__defrag_config_t *c) { (void)c; return m; }
W void smos__defrag_release(smos__defrag_t *d) { (void)d; }
W uint32_t smos__defrag_expire(smos__defrag_t *d, int64_t n, uint32_t l) { (void)d; (void)n; (void)l; return 0; }
W const smos__defrag_stats_t *smos__defrag_stats(const smos__defrag_t *d) { return (const void *)d; }
