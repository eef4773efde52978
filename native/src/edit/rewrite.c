/* See rewrite.h. */
#include "edit/rewrite.h"

#include <errno.h>
#include <string.h>

#include "wire/sum.h"

enum { ICMP = 1, TCP = 6, UDP = 17, ICMP6 = 58 };


static uint8_t *mutable(const uint8_t *p) { return (uint8_t *)(uintptr_t)p; }


void smos__rewrite_move(smos__layer_t *l, const uint8_t *from, const uint8_t *to)
{
    l->ip = to + (l->ip - from);
    if (l->l4) l->l4 = to + (l->l4 - from);
    if (l->payload) l->payload = to + (l->payload - from);
    if (l->flags & SMOS__HAS_SACK) l->sack = to + (l->sack - from);
}


static uint16_t as_field(uint64_t sum)
{
    uint16_t v = smos__fold16(sum); /* as it lies in memory */
    return (uint16_t)(v << 8 | v >> 8);
}


uint16_t smos__ip_checksum(const uint8_t *ip, uint32_t length) { return (uint16_t)~as_field(smos__sum64(ip, length, 0)); }


uint16_t smos__l4_checksum(const uint8_t *ip, const uint8_t *l4, uint32_t length, uint8_t proto, bool pseudo_only)
{
    uint8_t tail[8] = {(uint8_t)(length >> 24), (uint8_t)(length >> 16), (uint8_t)(length >> 8), (uint8_t)length, 0, 0, 0, proto};
    uint64_t sum = proto == ICMP ? 0 : smos__sum64(tail, sizeof tail, 0);
    if (proto != ICMP) sum = ip[0] >> 4 == 4 ? smos__sum64(ip + 12, 8, sum) : smos__sum64(ip + 8, 32, sum);
    if (pseudo_only) return as_field(sum);
    sum = smos__sum64(l4, length, sum);
    uint16_t field = (uint16_t)~as_field(sum);
    return field == 0 && proto == UDP ? 0xffff : field; /* 0 would say: none (RFC 768) */
}


static void set_lengths(smos__frame_t *f, smos__layer_t *l, uint32_t ip_len)
{
    uint8_t *ip = mutable(l->ip);
    if (l->tuple.version == 4)
        smos__put16(ip + 2, ip_len);
    else
        smos__put16(ip + 4, ip_len - 40);
    if (l->tuple.proto == UDP) smos__put16(mutable(l->l4) + 4, ip_len - (uint32_t)(l->l4 - l->ip));
    l->ip_len = l->ip_captured = ip_len;
    f->caplen = f->len = (uint32_t)(l->ip - f->data) + ip_len;
}


int smos__rewrite_payload(smos__frame_t *f, smos__layer_t *l, uint32_t room, uint32_t offset, uint32_t removed, const uint8_t *data, uint32_t added)
{
    uint32_t ip_len = l->ip_len - removed + added;
    if (ip_len > UINT16_MAX || (uint32_t)(l->ip - f->data) + ip_len > room) return -EMSGSIZE;
    uint8_t *payload = l->payload ? mutable(l->payload) : mutable(l->ip) + l->ip_len;
    memmove(payload + offset + added, payload + offset + removed, l->payload_len - offset - removed);
    if (added) memcpy(payload + offset, data, added);
    l->payload_len = l->payload_captured = l->payload_len - removed + added;
    l->payload = l->payload_len ? payload : NULL;
    set_lengths(f, l, ip_len);
    return 0;
}


static int field_of(uint8_t proto)
{
    switch (proto) {
    case TCP: return 16;
    case UDP: return 6;
    case ICMP: case ICMP6: return 2;
    default: return -1;
    }
}


void smos__rewrite_checksums(smos__frame_t *f, smos__layer_t *l)
{
    uint8_t *ip = mutable(l->ip), *l4 = mutable(l->l4);
    if (l->tuple.version == 4) {
        smos__put16(ip + 10, 0);
        smos__put16(ip + 10, smos__ip_checksum(ip, (uint32_t)(ip[0] & 15) * 4));
    }
    int field = field_of(l->tuple.proto);
    if (!l4 || field < 0) return;
    if (l->tuple.proto == UDP && l->tuple.version == 4 && !l4[6] && !l4[7]) return; /* sent without one */
    uint32_t length = l->ip_len - (uint32_t)(l4 - ip);
    smos__put16(l4 + field, 0);
    bool partial = f->offload.flags & SMOS__OFFLOAD_PARTIAL;
    smos__put16(l4 + field, smos__l4_checksum(ip, l4, length, l->tuple.proto, partial));
}


void smos__rewrite_tcp(smos__layer_t *l, uint32_t seq, uint32_t ack)
{
    smos__put32(mutable(l->l4) + 4, seq);
    smos__put32(mutable(l->l4) + 8, ack);
    l->seq = seq;
    l->ack = ack;
}
