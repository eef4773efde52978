/* ipv6.c: RFC 8200 and its extension headers. */
#include "wire/walk.h"

#define MAX_EXTENSIONS 16

/* Hop-by-hop and destination options. Returns the jumbo payload length (RFC 2675) if there is one, else 0. */
static uint32_t options(smos__walk_t *w, const uint8_t *p, uint32_t n)
{
    uint32_t jumbo = 0;
    for (uint32_t i = 2; i < n;) {
        if (p[i] == 0) {
            i++;
            continue;
        }
        if (i + 2 > n || i + 2 + p[i + 1] > n) {
            smos__note(w, SMOS__ANOMALY_IPV6_INVALID_OPTLEN);
            break;
        }
        if (p[i] == 0xc2 && p[i + 1] == 4) jumbo = smos__be32(p + i + 2);
        if (p[i] == 0xc9 && p[i + 1] == 16) w->sum_src = p + i + 2; /* home address, RFC 6275 11.3.2 */
        i += 2u + p[i + 1];
    }
    return jumbo;
}

/* Checksums are computed with where the packet goes in the end (RFC 8200 8.1); the flow stays that of the header's addresses. */
static void routing(smos__walk_t *w, const uint8_t *p, uint32_t n)
{
    if (p[2] == 0) smos__note(w, SMOS__ANOMALY_IPV6_RH_TYPE_0);
    if (p[3] == 0 || n < 24) return;
    if (p[2] == 0 || p[2] == 2) w->sum_dst = p + 8 + (n - 8) / 16 * 16 - 16;
    else if (p[2] == 4) w->sum_dst = p + 8; /* RFC 8754: the list is backwards */
}

static void truncated(smos__walk_t *w, smos__span_t s, uint32_t need)
{
    smos__short(w, s, need, SMOS__ANOMALY_IPV6_TRUNC_EXTHDR);
}

void smos__ipv6(smos__walk_t *w, smos__span_t s)
{
    const uint8_t *p = s.at;
    if (!smos__deeper(w)) return;
    if (s.captured < 40) {
        smos__short(w, s, 40, SMOS__ANOMALY_IPV6_PKT_TOO_SMALL);
        return;
    }
    if (p[0] >> 4 != 6) {
        smos__note(w, SMOS__ANOMALY_IPV6_WRONG_VERSION);
        smos__end(w, SMOS__WIRE_MALFORMED);
        return;
    }
    smos__layer_t *l = smos__layer_begin(w, s);
    if (l == NULL) return;
    uint32_t total = smos__be16(p + 4) + 40u;
    if (total == 40 && p[6] != 59) total = s.wire; /* jumbogram, or BIG TCP as captured by the sending host */
    if (__builtin_expect(total > s.wire, 0)) {
        smos__note(w, SMOS__ANOMALY_IPV6_TRUNC_PKT);
        total = s.wire;
    }
    bool cut = s.captured < smos__be16(p + 4) + 40u;
    s = smos__clamp(s, total);
    l->ip_len = total;
    l->ip_captured = s.captured;
    if ((smos__be16(p) >> 4 & 3) == 3) l->flags |= SMOS__ECN_CE;
    memcpy(l->tuple.src, p + 8, 16);
    memcpy(l->tuple.dst, p + 24, 16);
    l->tuple.version = 6;
    w->sum_src = w->sum_dst = NULL;
    uint8_t next = p[6];
    smos__span_t packet = s;
    s = smos__skip(s, 40);
    unsigned hops = 0, routes = 0, fragments = 0;
    for (unsigned i = 0; next == 0 || next == 43 || next == 44 || next == 60 || next == 135 || next == 139 || next == 140; i++) {
        if (i == MAX_EXTENSIONS) {
            smos__note(w, SMOS__ANOMALY_IPV6_TOO_MANY_EXTHDR);
            smos__end(w, SMOS__WIRE_MALFORMED);
            return;
        }
        if (s.captured < 8) {
            truncated(w, s, 8);
            return;
        }
        const uint8_t *h = s.at;
        if (next == 44) {
            if (fragments++) smos__note(w, SMOS__ANOMALY_IPV6_EXTHDR_DUPLICATE);
            if (h[1] || h[3] & 6) smos__note(w, SMOS__ANOMALY_IPV6_FH_RES_NOT_NULL);
            uint32_t offset = smos__be16(h + 2) & 0xfff9;
            l->tuple.proto = h[0];
            if (offset & 0xfff8 || (offset && !cut)) {
                smos__fragment(w, packet);
                return;
            }
            if (offset) smos__cut_fragment(w, l);
            else smos__note(w, SMOS__ANOMALY_IPV6_ATOMIC_FRAGMENT);
            next = h[0];
            s = smos__skip(s, 8);
            continue;
        }
        uint32_t size = (h[1] + 1u) * 8;
        if (s.captured < size) {
            truncated(w, s, size);
            return;
        }
        if (next == 0) {
            if (i) smos__note(w, SMOS__ANOMALY_IPV6_HOPOPTS_NOT_FIRST);
            if (hops++) smos__note(w, SMOS__ANOMALY_IPV6_EXTHDR_DUPLICATE);
        }
        if (next == 43) {
            if (routes++) smos__note(w, SMOS__ANOMALY_IPV6_EXTHDR_DUPLICATE);
            routing(w, h, size);
        } else if (next == 0 || next == 60) {
            uint32_t jumbo = options(w, h, size);
            if (jumbo && next == 0 && smos__be16(p + 4) == 0 && jumbo < packet.wire - 40) { /* padding after it is none of it */
                uint32_t used = (uint32_t)(s.at - packet.at);
                if (jumbo + 40 < used + size) {
                    truncated(w, (smos__span_t){ s.at, 0, 0 }, size);
                    return;
                }
                packet = smos__clamp(packet, jumbo + 40);
                l->ip_len = packet.wire;
                l->ip_captured = packet.captured;
                s = smos__skip(packet, used);
            }
        }
        if (s.captured < size) { /* the jumbo length may have shortened it */
            truncated(w, s, size);
            return;
        }
        next = h[0];
        s = smos__skip(s, size);
    }
    l->tuple.proto = next;
    smos__transport(w, s);
}
