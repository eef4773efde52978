/* The classic capture file. Layout: https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-04.html; what is taken for damage
 * is what libpcap takes for it. */
#include "port/capture.h"

enum { MAGIC_MICRO = 0xa1b2c3d4, MAGIC_NANO = 0xa1b23c4d, MAGIC_MODIFIED = 0xa1b2cd34 /* Kuznetsov's: longer records */ };

#define FILE_HEADER 24


/* Records that lie whole before the end of what can be read, as nearly all do: up to `max` frames, nothing unusual among them. */
static inline __attribute__((always_inline)) int receive_whole(smos__capture_t *c, smos__frame_t *burst, int max, bool swapped)
{
    smos__source_t *s = c->source;
    const uint8_t *at = s->at, *ahead = s->ahead, *const end = s->end;
    const uint32_t header = c->record_header, snaplen = c->snaplen, tick_ns = c->tick_ns;
    const uint16_t linktype = c->linktype;
    uint64_t bytes = 0, backward = 0, number = c->packets;
    int64_t last_ns = c->last_ns;
    smos__frame_t *f = burst;
    for (const smos__frame_t *full = burst + max; f != full && (size_t)(end - at) >= header; f++) {
        uint32_t caplen = smos__u32_as(at + 8, swapped), len = smos__u32_as(at + 12, swapped);
        if (__builtin_expect(caplen > SMOS__MAX_CAPLEN || (size_t)(end - at) < (size_t)header + caplen, 0)) break;
        int64_t time_ns = (int64_t)smos__u32_as(at, swapped) * 1000000000 + (int64_t)smos__u32_as(at + 4, swapped) * tick_ns;
        const uint8_t *data = at + header;
        at = data + caplen;
        if (caplen > snaplen) caplen = snaplen;
        if (len < caplen) len = caplen;
        *f = (smos__frame_t){ .data = data, .caplen = caplen, .len = len, .time_ns = time_ns, .number = ++number, .linktype = linktype };
        bytes += len;
        backward += time_ns < last_ns;
        last_ns = time_ns;
        ahead = smos__source_fetch(s, at, ahead);
    }
    s->at = at;
    s->ahead = ahead;
    c->packets = number;
    c->port.stats.bytes += bytes;
    c->port.stats.time_backward += backward;
    c->last_ns = last_ns;
    return (int)(f - burst);
}


static int receive(smos__port_t *port, smos__frame_t *burst, int max)
{
    smos__capture_t *c = (smos__capture_t *)port;
    if (c->failed) return SMOS__PORT_FAILED;
    smos__source_t *s = c->source;
    s->release(s);
    const uint8_t *begin = s->at;
    const uint32_t header = c->record_header, snaplen = c->snaplen;
    int n = c->lengths ? 0 : c->swapped ? receive_whole(c, burst, max, true) : receive_whole(c, burst, max, false), got = SMOS__SOURCE_OK;
    size_t walked = (size_t)(s->at - begin);
    while (n < max) {
        if ((got = smos__source_need(s, header)) != SMOS__SOURCE_OK) break;
        const uint8_t *r = s->at;
        uint32_t caplen = smos__u32(c, r + 8), len = smos__u32(c, r + 12);
        if (__builtin_expect(c->lengths != 0, 0) && (c->lengths == 1 || caplen > len)) {
            uint32_t exchanged = caplen;
            caplen = len;
            len = exchanged;
        }
        if (__builtin_expect(caplen > SMOS__MAX_CAPLEN, 0)) {
            if (n > 0) break;
            return smos__capture_fail(c, "is damaged: packet %llu claims %u captured bytes", (unsigned long long)c->packets + 1, caplen);
        }
        if ((got = smos__source_need(s, (size_t)header + caplen)) != SMOS__SOURCE_OK) break;
        r = s->at; /* a stream may have moved it */
        int64_t time_ns = (int64_t)smos__u32(c, r) * 1000000000 + (int64_t)smos__u32(c, r + 4) * c->tick_ns;
        smos__capture_deliver(c, &burst[n++], r + header, caplen < snaplen ? caplen : snaplen, len, time_ns, c->linktype);
        smos__source_take(s, (size_t)header + caplen);
        walked += (size_t)header + caplen;
    }
    smos__capture_look_ahead(c, walked);
    return smos__capture_settle(c, n, got);
}

int smos__pcap_open(smos__capture_t *c)
{
    uint32_t magic = smos__u32(c, c->source->at);
    if (magic == __builtin_bswap32(MAGIC_MICRO) || magic == __builtin_bswap32(MAGIC_NANO) || magic == __builtin_bswap32(MAGIC_MODIFIED)) {
        magic = __builtin_bswap32(magic);
        c->swapped = 1;
    }
    if (magic != MAGIC_MICRO && magic != MAGIC_NANO && magic != MAGIC_MODIFIED) return 0;

    int got = smos__source_need(c->source, FILE_HEADER);
    if (got == SMOS__SOURCE_FAILED) return smos__capture_fail(c, "%s", c->source->problem), -1;
    if (got != SMOS__SOURCE_OK) return smos__capture_fail(c, "is cut short in its file header"), -1;
    const uint8_t *h = c->source->at;
    uint16_t major = smos__u16(c, h + 4), minor = smos__u16(c, h + 6);
    if (major < 2) return smos__capture_fail(c, "has pcap version %u.%u, which is not supported", major, minor), -1;
    c->lengths = major == 543 || (major == 2 && minor < 3) ? 1 : major == 2 && minor == 3 ? 2 : 0;
    c->record_header = magic == MAGIC_MODIFIED ? 24 : 16;
    c->tick_ns = magic == MAGIC_NANO ? 1 : 1000;
    c->snaplen = smos__u32(c, h + 16);
    if (c->snaplen == 0 || c->snaplen > INT32_MAX) c->snaplen = SMOS__MAX_CAPLEN;
    c->linktype = smos__capture_linktype(smos__u32(c, h + 20));
    if (smos__capture_check_linktype(c, c->linktype) != 0) return -1;
    smos__source_take(c->source, FILE_HEADER);
    c->port.receive = receive;
    return 1;
}
