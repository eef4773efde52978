/* ipv4.c: RFC 791. */
#include "wire/defrag.h"
#include "wire/owner.h"
#include "wire/walk.h"

/* Options: only a source route changes what comes after. */
static void options(smos__walk_t *w, smos__layer_t *l, const uint8_t *p, uint32_t n)
{
    uint64_t seen[4] = { 0 };
    for (uint32_t i = 0; i < n;) {
        uint8_t kind = p[i];
        if (kind == 0) return;
        if (kind == 1) {
            i++;
            continue;
        }
        if (i + 2 > n || p[i + 1] < 2) {
            smos__note(w, SMOS__ANOMALY_IPV4_OPT_INVALID);
            return;
        }
        uint32_t length = p[i + 1];
        if (i + length > n) {
            smos__note(w, SMOS__ANOMALY_IPV4_OPT_INVALID_LEN);
            return;
        }
        if (seen[kind >> 6] >> (kind & 63) & 1) smos__note(w, SMOS__ANOMALY_IPV4_OPT_DUPLICATE);
        seen[kind >> 6] |= 1ull << (kind & 63);
        switch (kind) {
        case 131: /* LSRR */
        case 137: /* SSRR */
            smos__note(w, SMOS__ANOMALY_IPV4_SOURCE_ROUTE);
            if (length < 7 || (length - 3) % 4) smos__note(w, SMOS__ANOMALY_IPV4_OPT_INVALID_LEN);
            else if (p[i + 2] <= length - 3) smos__map_ipv4(l->tuple.dst, p + i + length - 4); /* not used up: where it ends */
            break;
        case 7:   /* record route */
        case 68:  /* timestamp */
        case 130: /* security */
        case 133: /* extended security */
        case 134: /* commercial security */
        case 136: /* stream id */
        case 148: /* router alert */
        case 149: /* selective directed broadcast */
        case 82: /* traceroute */
        case 25: /* quick start */
        case 11: case 12: /* MTU probe, MTU reply */
            break;
        default: smos__note(w, SMOS__ANOMALY_IPV4_OPT_UNKNOWN);
        }
        i += length;
    }
}

static int bad(smos__walk_t *w, smos__anomaly_t anomaly)
{
    smos__note(w, anomaly);
    smos__end(w, SMOS__WIRE_MALFORMED);
    return 0;
}

void smos__ipv4(smos__walk_t *w, smos__span_t s)
{
    const uint8_t *p = s.at;
    if (!smos__deeper(w)) return;
    if (s.captured < 20) {
        smos__short(w, s, 20, SMOS__ANOMALY_IPV4_PKT_TOO_SMALL);
        return;
    }
    uint32_t header = (p[0] & 15) * 4u, total = smos__be16(p + 2), offset = smos__be16(p + 6);
    if (__builtin_expect(p[0] != 0x45, 0)) {
        if (p[0] >> 4 != 4) {
            bad(w, SMOS__ANOMALY_IPV4_WRONG_VERSION);
            return;
        }
        if (header < 20) {
            bad(w, SMOS__ANOMALY_IPV4_HLEN_TOO_SMALL);
            return;
        }
    }
    if (__builtin_expect(total < header, 0)) {
        if (total != 0) {
            bad(w, SMOS__ANOMALY_IPV4_IPLEN_SMALLER_THAN_HLEN);
            return;
        }
        total = s.wire; /* segmentation offload: the capturing host had not filled it in, the frame tells */
    }
    if (s.captured < header) {
        smos__short(w, s, header, SMOS__ANOMALY_IPV4_PKT_TOO_SMALL);
        return;
    }
    smos__layer_t *l = smos__layer_begin(w, s);
    if (l == NULL) return;
    if (__builtin_expect(total > s.wire, 0)) {
        smos__note(w, SMOS__ANOMALY_IPV4_TRUNC_PKT);
        total = s.wire;
    }
    bool cut = s.captured < smos__be16(p + 2);
    s = smos__clamp(s, total);
    l->ip_len = total;
    l->ip_captured = s.captured;
    if ((p[1] & 3) == 3) l->flags |= SMOS__ECN_CE;
    smos__map_ipv4(l->tuple.src, p + 12);
    smos__map_ipv4(l->tuple.dst, p + 16);
    l->tuple.version = 4;
    w->sum_src = w->sum_dst = NULL;
    l->tuple.proto = p[9];
    if (__builtin_expect(header > 20, 0)) options(w, l, p + 20, header - 20);
    if (!(w->frame->flags & SMOS__FRAME_NO_CHECKSUM) && !(w->layer_flags & SMOS__REASSEMBLED)) {
        if (__builtin_expect(smos__checksum(p, header, 0) != 0xffff, 0)) {
            l->flags |= SMOS__BAD_CHECKSUM;
            smos__note(w, SMOS__ANOMALY_IPV4_BAD_CHECKSUM);
        }
    }
    if (__builtin_expect(offset & 0xbfff, 0)) {
        if (offset & 0x8000) smos__note(w, SMOS__ANOMALY_IPV4_RESERVED_FLAG);
        if (offset & 0x3fff) {
            if (!cut || offset & 0x1fff) {
                smos__fragment(w, s);
                return;
            }
            smos__cut_fragment(w, l);
        }
    }
    smos__transport(w, smos__skip(s, header));
}

void smos__cut_fragment(smos__walk_t *w, smos__layer_t *l)
{
    smos__note(w, SMOS__ANOMALY_FRAG_TRUNCATED);
    l->flags |= SMOS__UNCHECKED;
    w->half = 1;
    if (w->out->fragments < UINT8_MAX) w->out->fragments++;
}

/* w->layer is the fragment's, begun but not kept. Goes on in the datagram when it is complete. */
void smos__fragment(smos__walk_t *w, smos__span_t s)
{
    smos__layer_t *l = w->layer;
    smos__decoded_t *out = w->out;
    uint32_t length = 0;
    const uint8_t *whole = NULL;
    uint16_t anomalies[SMOS__MAX_ANOMALIES];
    uint8_t count = 0;
    if (out->fragments < UINT8_MAX) out->fragments++;
    bool usable = w->defrag != NULL && !(l->flags & SMOS__BAD_CHECKSUM);
    if (usable) whole = smos__defrag_add(w->defrag, w->frame, s.at, s.captured, l->ip_len, l, &length, anomalies, &count);
    for (int i = 0; i < count && i < SMOS__MAX_ANOMALIES; i++) smos__note(w, anomalies[i]);
    if (out->layers == 0) out->owner_hash = smos__owner_hash(&l->tuple, 0);
    bool was_v4 = l->tuple.version == 4;
    smos__layer_abandon(w);
    if (whole == NULL) {
        out->result = SMOS__WIRE_FRAGMENT;
        out->waits = !out->layers;
        return;
    }
    w->layer_flags |= SMOS__REASSEMBLED;
    smos__span_t datagram = { whole, length, length };
    if (was_v4) smos__ipv4(w, datagram);
    else smos__ipv6(w, datagram);
}
