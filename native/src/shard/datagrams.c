/* Where a module wants datagrams whole (SMOS_OPT_DATAGRAMS): fragments wait in defrag; the last one brings the datagram, as a frame of its own with the
 * link layer of that fragment, which goes the way of all packets, to another worker too, and leaves in fragments again. */
#include <string.h>

#include "edit/rewrite.h"
#include "shard/shard.h"

#define TAG_BYTES 4
#define LONGEST_LINK (14 + 4 * TAG_BYTES)

_Static_assert(LONGEST_LINK <= SMOS__DEFRAG_ROOM, "the link layer goes before the datagram");


static uint32_t be16(const uint8_t *p) { return (uint32_t)p[0] << 8 | p[1]; }


/* Bytes of an Ethernet header, its tags included, in front of IP; 0 for anything else. */
static uint32_t link_bytes(const smos__frame_t *f)
{
    if (f->linktype != 1) return 0;
    for (uint32_t at = 12; at + 2 <= LONGEST_LINK && at + 2 <= f->caplen; at += TAG_BYTES) {
        uint32_t type = be16(f->data + at);
        if (type == 0x0800 || type == 0x86dd) return at + 2;
        if (type != 0x8100 && type != 0x88a8 && type != 0x9100) return 0;
    }
    return 0;
}


bool smos__datagram_waits(const smos__frame_t *f, const smos__decoded_t *d) { return d->result == SMOS__WIRE_FRAGMENT && d->waits && link_bytes(f); }


void smos__datagram_whole(const smos_shard_t *s, smos__frame_t *f, smos__decoded_t *d)
{
    smos__layer_t *l = &d->layer[0];
    uint32_t link = link_bytes(f);
    if (!d->layers || !(l->flags & SMOS__REASSEMBLED) || !link || f->flags & SMOS__FRAME_CARRIES) return;
    uint8_t *data = (uint8_t *)(uintptr_t)l->ip - link;
    memcpy(data, f->data, link);
    f->data = data;
    f->caplen = f->len = link + l->ip_len;
    f->flags |= SMOS__FRAME_WHOLE | SMOS__FRAME_JOINED;
    uint32_t id = smos__defrag_id(s->defrag);
    f->offload = (smos__offload_t){.gso_size = (uint16_t)smos__defrag_largest(s->defrag), .csum_start = (uint16_t)(id >> 16), .csum_offset = (uint16_t)id};
    for (int i = 0; i < d->layers; i++) d->layer[i].flags &= ~(uint32_t)SMOS__REASSEMBLED;
    d->fragments = 0;
}


/* RFC 791 3.1: options with the high bit are in every fragment. Returns the header's length. */
static uint32_t later_header(const uint8_t *ip, uint32_t header, uint8_t *out)
{
    uint32_t n = 20;
    memcpy(out, ip, 20);
    for (uint32_t i = 20; i < header && ip[i];) {
        uint32_t length = ip[i] == 1 || i + 1 >= header ? 1 : ip[i + 1];
        if (!length || i + length > header) break;
        if (ip[i] & 0x80) memcpy(out + n, ip + i, length), n += length;
        i += length;
    }
    while (n % 4) out[n++] = 0;
    out[0] = (uint8_t)(0x40 | n / 4);
    return n;
}


/* RFC 8200 4.5: what is before the fragment header are the options for every hop, and those up to a routing header. */
static uint32_t before_fragment_header(const uint8_t *ip, uint32_t length, uint32_t *next_at)
{
    uint32_t at = 40, next = 6, found = 40;
    *next_at = 6;
    while ((ip[next] == 0 || ip[next] == 43 || ip[next] == 60) && at + 8 <= length && at + (ip[at + 1] + 1u) * 8 <= length) {
        uint8_t kind = ip[next];
        next = at;
        at += (ip[at + 1] + 1u) * 8;
        if (kind == 60) continue; /* unless a routing header follows, it is for the destination alone */
        found = at;
        *next_at = next;
    }
    return found;
}


typedef struct piece {
    uint32_t at, length; /* of the datagram's data */
    bool more;
} piece_t;

/* Writes the headers of a piece of the datagram `ip`; returns their length. */
static uint32_t piece_header4(const uint8_t *ip, uint32_t header, piece_t p, uint8_t *to)
{
    uint32_t h = p.at ? later_header(ip, header, to) : header;
    if (!p.at) memcpy(to, ip, header);
    smos__put16(to + 2, h + p.length);
    smos__put16(to + 6, (be16(ip + 6) & 0x4000) | (p.more ? 0x2000 : 0) | p.at / 8);
    smos__put16(to + 10, 0);
    smos__put16(to + 10, smos__ip_checksum(to, h));
    return h;
}

static uint32_t piece_header6(const uint8_t *ip, uint32_t header, uint32_t next_at, const smos__offload_t *id, piece_t p, uint8_t *to)
{
    memcpy(to, ip, header);
    smos__put16(to + 4, header - 40 + 8 + p.length);
    to[header] = ip[next_at];
    to[next_at] = 44;
    to[header + 1] = 0;
    smos__put16(to + header + 2, p.at | p.more);
    smos__put16(to + header + 4, id->csum_start);
    smos__put16(to + header + 6, id->csum_offset);
    return header + 8;
}


void smos__datagram_send(smos_shard_t *s, int end, const smos__frame_t *f)
{
    const uint8_t *ip = f->data + link_bytes(f);
    uint8_t *out = smos__edit_room(s), *to = out + (ip - f->data);
    if (!out) return;
    bool v4 = ip[0] >> 4 == 4;
    uint32_t total = v4 ? be16(ip + 2) : be16(ip + 4) + 40, next_at = 0;
    uint32_t header = v4 ? (ip[0] & 15u) * 4 : before_fragment_header(ip, total, &next_at);
    uint32_t data = total - header, size = f->offload.gso_size & ~7u;
    smos__frame_t like = *f;
    like.offload = (smos__offload_t){0};
    SMOS__COUNT(s, packets_edited);
    memcpy(out, f->data, (size_t)(ip - f->data));
    for (uint32_t at = 0, n; at < data; at += n) {
        n = size && data - at > size ? size : data - at;
        piece_t p = {at, n, at + n < data};
        uint32_t h = v4 ? piece_header4(ip, header, p, to) : piece_header6(ip, header, next_at, &f->offload, p, to);
        memcpy(to + h, ip + header + at, n);
        s->port->send(s->port, end, out, (uint32_t)(to - out) + h + n, &like);
    }
}
