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


/* RFC 1624 equation 3, over all that changed: `change` is the sum of ~old + new. */
static uint16_t mended(uint16_t field, uint64_t change)
{
    uint64_t sum = (uint16_t)~field + change;
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}


bool smos__rewrite_mend(const smos__frame_t *f, smos__layer_t *l, const uint8_t *at, const uint8_t *before, uint32_t length)
{
    uint8_t *ip = mutable(l->ip), *l4 = mutable(l->l4);
    bool v4 = l->tuple.version == 4;
    int field = l4 ? field_of(l->tuple.proto) : -1;
    uint8_t *sum = field < 0 ? NULL : l4 + field;
    if (at + length <= ip) return true; /* the link layer has none */
    if (at < ip || (at - ip) % 2 || length % 2) return false;
    uint64_t header = 0, pseudo = 0, transport = 0;
    for (uint32_t i = 0; i < length; i += 2) {
        const uint8_t *word = at + i;
        uint32_t place = (uint32_t)(word - ip), change = (uint16_t)~(before[i] << 8 | before[i + 1]) + (uint32_t)(word[0] << 8 | word[1]);
        if (change == 0xffff) continue; /* the same */
        if (word == sum || (l->tuple.proto == UDP && word == l4 + 4) || (v4 ? place < 4 || place == 10 : place < 8)) return false;
        if (l4 && word >= l4) {
            transport += change;
        } else {
            if (v4) header += change;
            if (v4 ? place >= 12 && place < 20 : place < 40) pseudo += change;
        }
    }
    if (v4) smos__put16(ip + 10, mended((uint16_t)(ip[10] << 8 | ip[11]), header));
    if (!sum || (l->tuple.proto == UDP && v4 && !sum[0] && !sum[1])) return true;
    uint16_t value = (uint16_t)(sum[0] << 8 | sum[1]);
    if (f->offload.flags & SMOS__OFFLOAD_PARTIAL)
        value = (uint16_t)~mended((uint16_t)~value, pseudo); /* the field is the pseudo header's sum itself */
    else
        value = mended(value, transport + (l->tuple.proto == ICMP ? 0 : pseudo));
    smos__put16(sum, value == 0 && l->tuple.proto == UDP && !(f->offload.flags & SMOS__OFFLOAD_PARTIAL) ? 0xffff : value);
    return true;
}


void smos__rewrite_tcp(smos__layer_t *l, uint32_t seq, uint32_t ack)
{
    smos__put32(mutable(l->l4) + 4, seq);
    smos__put32(mutable(l->l4) + 8, ack);
    l->seq = seq;
    l->ack = ack;
}
