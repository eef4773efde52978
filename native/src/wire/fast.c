/* fast.c: the plain case in one piece: Ethernet, at most two VLAN tags, IPv4 without options or fragments, TCP with the
 * usual options, all of it captured, nothing wrong. Everything else is decode.c's; tests/test_decode_fast.c holds the two to the same result. */
#include "wire/bytes.h"
#include "wire/decode.h"
#include "wire/sum.h"

#define ETHERNET 14
#define IPV4 20
#define TIMESTAMPS 0x0101080au /* NOP NOP kind 8, length 10 */

static inline void mapped(uint8_t out[16], uint32_t address) /* as it lies in memory */
{
    uint64_t words[2] = {0, (uint64_t)address << 32 | 0xffff0000u};
    memcpy(out, words, 16);
}

/* TCP's usual options as tcp_options.c reads them: SMOS__HAS_*. UNUSUAL: something there is unusual or wrong. */
#define UNUSUAL UINT32_MAX
static __attribute__((noinline)) uint32_t options(const uint8_t *p, uint32_t n, bool syn, smos__layer_t *l)
{
    uint32_t seen = 0, flags = 0;
    for (uint32_t i = 0; i < n;) {
        uint8_t kind = p[i];
        if (kind == 0) break;
        if (kind == 1) {
            i++;
            continue;
        }
        if (i + 2 > n) return UNUSUAL;
        uint32_t length = p[i + 1];
        const uint8_t *v = p + i + 2;
        if (kind > 8 || i + length > n || seen >> kind & 1) return UNUSUAL;
        seen |= 1u << kind;
        if (kind == 8 && length == 10) {
            l->tsval = smos__be32(v);
            l->tsecr = smos__be32(v + 4);
            flags |= SMOS__HAS_TIMESTAMP;
        } else if (kind == 5 && length >= 10 && length % 8 == 2) {
            l->sack = v;
            l->sack_blocks = (uint8_t)(length / 8);
            flags |= SMOS__HAS_SACK;
        } else if (!syn) {
            return UNUSUAL;
        } else if (kind == 2 && length == 4) {
            l->mss = smos__be16(v);
            flags |= SMOS__HAS_MSS;
        } else if (kind == 3 && length == 3 && v[0] <= 14) {
            l->wscale = v[0];
            flags |= SMOS__HAS_WSCALE;
        } else if (kind == 4 && length == 2) {
            flags |= SMOS__SACK_PERMITTED;
        } else {
            return UNUSUAL;
        }
        i += length;
    }
    return flags;
}

/* Neighbours in the layer are written as one word. */
_Static_assert(offsetof(smos__layer_t, ack) == offsetof(smos__layer_t, seq) + 4 && offsetof(smos__layer_t, wscale) == offsetof(smos__layer_t, tcp_flags) + 1 &&
               offsetof(smos__layer_t, mss) == offsetof(smos__layer_t, tcp_flags) + 2 && offsetof(smos__layer_t, ttl) == offsetof(smos__layer_t, sack_blocks) + 1 &&
               offsetof(smos__layer_t, tunnel_kind) == offsetof(smos__layer_t, sack_blocks) + 2 && offsetof(smos__layer_t, anomaly_count) == offsetof(smos__layer_t, sack_blocks) + 3 &&
               offsetof(smos_tuple_t, dport) == offsetof(smos_tuple_t, sport) + 2 && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "neighbours");

static inline void put32(void *to, uint32_t v) { memcpy(to, &v, sizeof v); }

/* What follows a link header of `link` bytes, of which and of 40 more the caller has made sure. Twice in the program, so that frames
 * without a tag pay nothing for tags. */
static inline __attribute__((always_inline)) bool ipv4_tcp(const smos__frame_t *frame, uint32_t link, uint16_t outer, uint16_t inner, smos__decoded_t *out)
{
    const uint8_t *ip = frame->data + link, *tcp = ip + IPV4;
    if (ip[0] != 0x45 || ip[9] != 6 || smos__be16(ip + 6) & 0xbfff) return false;
    uint32_t length = smos__be16(ip + 2), header = (uint32_t)(tcp[12] >> 4) * 4;
    if (length > frame->caplen - link || length < IPV4 + header || header < 20) return false;
    if (tcp[12] & 0x0f) return false; /* reserved bits */
    uint32_t flags = SMOS__L4_WHOLE, source, destination;
    memcpy(&source, ip + 12, 4);
    memcpy(&destination, ip + 16, 4);
    if (frame->flags & SMOS__FRAME_NO_CHECKSUM) {
        flags |= SMOS__UNCHECKED;
    } else {
        uint32_t segment = length - IPV4;
        uint64_t pseudo = (uint64_t)source + destination + __builtin_bswap16(6) + __builtin_bswap16((uint16_t)segment);
        if (!smos__sum_right(smos__sum64(ip, IPV4, 0)) || !smos__sum_right(smos__sum64(tcp, segment, pseudo))) return false;
    }
    smos__layer_t *l = &out->layer[0];
    put32(&l->sack_blocks, (uint32_t)ip[8] << 8); /* and ttl, tunnel_kind, anomaly_count */
    put32(&l->tcp_flags, tcp[13]);                /* and wscale, mss */
    if (header == 32 && smos__be32(tcp + 20) == TIMESTAMPS) {
        flags |= SMOS__HAS_TIMESTAMP;
        l->tsval = smos__be32(tcp + 24);
        l->tsecr = smos__be32(tcp + 28);
    } else if (header > 20) {
        uint32_t found = options(tcp + 20, header - 20, tcp[13] & SMOS__SYN, l);
        if (found == UNUSUAL) return false;
        flags |= found;
    }
    if ((ip[1] & 3) == 3) flags |= SMOS__ECN_CE;
    mapped(l->tuple.src, source);
    mapped(l->tuple.dst, destination);
    uint32_t ports;
    memcpy(&ports, tcp, 4);
    ports = __builtin_bswap32(ports);
    put32(&l->tuple.sport, ports << 16 | ports >> 16);
    l->tuple.proto = 6;
    l->tuple.version = 4;
    l->tuple.vlan = outer;
    l->tuple.tunnel = 0;
    l->ip = ip;
    l->l4 = tcp;
    l->payload_len = l->payload_captured = length - IPV4 - header;
    l->payload = l->payload_len ? tcp + header : NULL;
    l->ip_len = length;
    l->ip_captured = length;
    uint64_t numbers;
    memcpy(&numbers, tcp + 4, 8);
    numbers = __builtin_bswap64(numbers);
    numbers = numbers << 32 | numbers >> 32;
    memcpy(&l->seq, &numbers, 8); /* and ack */
    l->window = smos__be16(tcp + 14);
    l->urgent = smos__be16(tcp + 18);
    l->vlan[0] = outer;
    l->vlan[1] = inner;
    l->tunnel_id = 0;
    l->flags = flags;
    l->icmp_type = l->icmp_code = 0;
    l->ip_id = smos__be16(ip + 4);
    out->result = SMOS__WIRE_OK;
    out->layers = 1;
    out->anomaly_count = 0;
    out->fragments = 0;
    out->owner_hash = 0;
    return true;
}

/* 802.1Q, or 802.1ad and 802.1Q. */
static __attribute__((noinline)) bool tagged(const smos__frame_t *frame, uint32_t type, smos__decoded_t *out)
{
    const uint8_t *p = frame->data + ETHERNET;
    uint16_t outer = smos__be16(p) & 0xfff, inner = 0;
    uint32_t link = ETHERNET + 4;
    if (type != 0x8100 && type != 0x88a8) return false;
    type = smos__be16(p + 2);
    if (type == 0x8100) {
        inner = smos__be16(p + 4) & 0xfff;
        type = smos__be16(p + 6);
        link += 4;
    }
    if (type != 0x0800 || frame->caplen < link + IPV4 + 20) return false;
    return ipv4_tcp(frame, link, outer, inner, out);
}

bool smos__decode_fast(const smos__frame_t *frame, smos__decoded_t *out)
{
    if (frame->linktype != 1 || frame->caplen < ETHERNET + IPV4 + 20) return false;
    uint32_t type = smos__be16(frame->data + 12);
    if (__builtin_expect(type != 0x0800, 0)) return tagged(frame, type, out);
    return ipv4_tcp(frame, ETHERNET, 0, 0, out);
}

bool smos__peek_tuple(const smos__frame_t *frame, smos_tuple_t *out)
{
    const uint8_t *ip = frame->data + ETHERNET, *tcp = ip + IPV4;
    if (frame->linktype != 1 || frame->caplen < ETHERNET + IPV4 + 20 || smos__be16(frame->data + 12) != 0x0800) return false;
    if (ip[0] != 0x45 || ip[9] != 6 || smos__be16(ip + 6) & 0xbfff) return false;
    uint32_t length = smos__be16(ip + 2), header = (uint32_t)(tcp[12] >> 4) * 4, source, destination;
    if (header < 20 || length > frame->caplen - ETHERNET || length < IPV4 + header) return false;
    memcpy(&source, ip + 12, 4);
    memcpy(&destination, ip + 16, 4);
    mapped(out->src, source);
    mapped(out->dst, destination);
    out->sport = smos__be16(tcp);
    out->dport = smos__be16(tcp + 2);
    out->proto = 6;
    out->version = 4;
    out->vlan = 0;
    out->tunnel = 0;
    return true;
}
