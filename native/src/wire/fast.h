/* fast.h: the plain case in one piece: Ethernet, IPv4 without options or fragments, TCP with the usual options, all of it captured, nothing wrong.
 * Everything else is fast.c's (VLAN tags) and decode.c's; tests/test_decode_fast.c holds them to the same result. */
#ifndef SMOS__DECODE_FAST_H
#define SMOS__DECODE_FAST_H

#include <stddef.h>

#include "wire/bytes.h"
#include "wire/decode.h"
#include "wire/owner.h"
#include "wire/sum.h"

#define SMOS__ETHERNET 14
#define SMOS__IPV4 20
#define SMOS__TIMESTAMPS 0x0101080au /* NOP NOP kind 8, length 10 */

/* TCP's usual options as tcp_options.c reads them: SMOS__HAS_*. SMOS__UNUSUAL: something there is unusual or wrong. */
#define SMOS__UNUSUAL UINT32_MAX
uint32_t smos__usual_options(const uint8_t *p, uint32_t n, bool syn, smos__layer_t *l);

/* Neighbours in the layer are written as one word. */
_Static_assert(offsetof(smos__layer_t, ack) == offsetof(smos__layer_t, seq) + 4 && offsetof(smos__layer_t, wscale) == offsetof(smos__layer_t, mss) + 2 &&
               offsetof(smos__layer_t, sack_blocks) == offsetof(smos__layer_t, mss) + 3 && offsetof(smos__layer_t, anomaly_count) == offsetof(smos__layer_t, tunnel_kind) + 1 &&
               offsetof(smos__layer_t, icmp_type) == offsetof(smos__layer_t, tunnel_kind) + 2 && offsetof(smos__layer_t, icmp_code) == offsetof(smos__layer_t, tunnel_kind) + 3 &&
               offsetof(smos_tuple_t, dport) == offsetof(smos_tuple_t, sport) + 2 && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "neighbours");

static inline void smos__put32(void *to, uint32_t v) { memcpy(to, &v, sizeof v); }

/* The two ends of the packet in registers; ports: the source's below, the destination's above. */
typedef struct smos__ends4 {
    uint32_t source, destination; /* as they lie in memory */
    uint32_t ports;
} smos__ends4_t;

static inline __attribute__((always_inline)) void smos__mapped(uint8_t out[16], uint32_t address)
{
    uint64_t words[2] = {0, (uint64_t)address << 32 | 0xffff0000u};
    memcpy(out, words, 16);
}

/* What lies behind a link header of `link` bytes, of which and of 40 more the caller has made sure, is all of a TCP segment in IPv4 without options or fragments; its
 * bytes with the IP header, and TCP's header's. */
static inline __attribute__((always_inline)) bool smos__is_ipv4_tcp(const smos__frame_t *frame, uint32_t link, uint32_t *length, uint32_t *header)
{
    const uint8_t *ip = frame->data + link, *tcp = ip + SMOS__IPV4;
    if (__builtin_expect(ip[0] != 0x45 || ip[9] != 6 || smos__be16(ip + 6) & 0xbfff, 0)) return false;
    *length = smos__be16(ip + 2);
    *header = (uint32_t)(tcp[12] >> 4) * 4;
    return __builtin_expect(*length <= frame->caplen - link && *length >= SMOS__IPV4 + *header && *header >= 20, 1);
}

/* That segment. Twice in the program, so that frames
 * without a tag pay nothing for tags. */
static inline __attribute__((always_inline)) bool smos__decode_ipv4_tcp(const smos__frame_t *frame, uint32_t link, uint16_t outer, uint16_t inner, smos__decoded_t *out, smos__ends4_t *ends)
{
    const uint8_t *ip = frame->data + link, *tcp = ip + SMOS__IPV4;
    uint32_t length, header;
    if (!smos__is_ipv4_tcp(frame, link, &length, &header)) return false;
    if (__builtin_expect(tcp[12] & 0x0f, 0)) return false; /* reserved bits */
    uint32_t flags = SMOS__L4_WHOLE, source, destination;
    memcpy(&source, ip + 12, 4);
    memcpy(&destination, ip + 16, 4);
    if (__builtin_expect(frame->flags & SMOS__FRAME_NO_CHECKSUM, 0)) {
        flags |= SMOS__UNCHECKED;
    } else {
        uint64_t pseudo = (uint64_t)source + destination + __builtin_bswap16(6) + __builtin_bswap16((uint16_t)(length - SMOS__IPV4));
        /* A right header adds nothing, so both are summed as one: at least 32 bytes. */
        if (__builtin_expect(!smos__sum_right(smos__sum64(ip, SMOS__IPV4, 0)) || !smos__sum_right(smos__sum_blocks(ip, length, pseudo)), 0)) return false;
    }
    smos__layer_t *l = &out->layer[0];
    smos__put32(&l->mss, 0);         /* and wscale, sack_blocks */
    smos__put32(&l->tunnel_kind, 0); /* and anomaly_count, icmp_type, icmp_code */
    if (header == 32 && smos__be32(tcp + 20) == SMOS__TIMESTAMPS) {
        flags |= SMOS__HAS_TIMESTAMP;
        l->tsval = smos__be32(tcp + 24);
        l->tsecr = smos__be32(tcp + 28);
    } else if (header > 20) {
        uint32_t found = smos__usual_options(tcp + 20, header - 20, tcp[13] & SMOS__SYN, l);
        if (__builtin_expect(found == SMOS__UNUSUAL, 0)) return false;
        flags |= found;
    }
    if ((ip[1] & 3) == 3) flags |= SMOS__ECN_CE;
    smos__mapped(l->tuple.src, source);
    smos__mapped(l->tuple.dst, destination);
    uint32_t ports;
    memcpy(&ports, tcp, 4);
    ports = __builtin_bswap32(ports);
    *ends = (smos__ends4_t){source, destination, ports << 16 | ports >> 16};
    smos__put32(&l->tuple.sport, ends->ports);
    l->tuple.proto = 6;
    l->tuple.version = 4;
    l->tuple.vlan = outer;
    l->tuple.tunnel = 0;
    l->ip = ip;
    l->l4 = tcp;
    l->payload_len = l->payload_captured = length - SMOS__IPV4 - header;
    l->payload = l->payload_len ? tcp + header : NULL;
    l->ip_len = length;
    l->ip_captured = length;
    uint64_t numbers;
    memcpy(&numbers, tcp + 4, 8);
    numbers = __builtin_bswap64(numbers);
    numbers = numbers << 32 | numbers >> 32;
    memcpy(&l->seq, &numbers, 8); /* and ack */
    l->tcp_flags = tcp[13];
    l->window = smos__be16(tcp + 14);
    l->urgent = smos__be16(tcp + 18);
    l->vlan[0] = outer;
    l->vlan[1] = inner;
    l->tunnel_id = 0;
    l->flags = flags;
    out->result = SMOS__WIRE_OK;
    out->layers = 1;
    out->anomaly_count = 0;
    out->fragments = 0;
    out->owner_hash = 0;
    return true;
}

/* Ethernet, and long enough. */
static inline __attribute__((always_inline)) bool smos__is_ethernet(const smos__frame_t *frame)
{
    return frame->linktype == 1 && frame->caplen >= SMOS__ETHERNET + SMOS__IPV4 + 20;
}

static inline __attribute__((always_inline)) bool smos__is_ipv4(const smos__frame_t *frame) { return smos__is_ethernet(frame) && smos__be16(frame->data + 12) == 0x0800; }

/* Whose a plain frame without a tag is (owner.h), without looking at more: smos__decode would give result OK and one layer, no ICMP error's, and no anomaly but that
 * layer's. False: decode it to know. */
static inline __attribute__((always_inline)) bool smos__peek_owner(const smos__frame_t *frame, uint32_t begun, uint32_t *hash)
{
    const uint8_t *ip = frame->data + SMOS__ETHERNET, *tcp = ip + SMOS__IPV4;
    uint32_t length, header;
    if (__builtin_expect(!smos__is_ipv4(frame), 0) || !smos__is_ipv4_tcp(frame, SMOS__ETHERNET, &length, &header)) return false;
    *hash = smos__owner_hash4(begun, smos__be32(ip + 12), smos__be32(ip + 16), smos__be16(tcp), smos__be16(tcp + 2), 6);
    return true;
}

/* Frames without a tag. */
static inline __attribute__((always_inline)) bool smos__decode_plain(const smos__frame_t *frame, smos__decoded_t *out, smos__ends4_t *ends)
{
    if (__builtin_expect(!smos__is_ipv4(frame), 0)) return false;
    return smos__decode_ipv4_tcp(frame, SMOS__ETHERNET, 0, 0, out, ends);
}

#endif
