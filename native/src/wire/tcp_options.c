/* tcp_options.c: the options that the engine uses, and what is wrong with them. */
#include "wire/walk.h"

static void wrong(smos__walk_t *w, smos__layer_t *l, smos__anomaly_t anomaly)
{
    l->flags |= SMOS__BAD_OPTIONS;
    smos__note(w, anomaly);
}

void smos__tcp_options(smos__walk_t *w, smos__layer_t *l, const uint8_t *p, uint32_t n)
{
    uint32_t seen = 0;
    for (uint32_t i = 0; i < n;) {
        uint8_t kind = p[i];
        if (kind == 0) return;
        if (kind == 1) {
            i++;
            continue;
        }
        if (i + 2 > n || p[i + 1] < 2 || i + p[i + 1] > n) {
            wrong(w, l, SMOS__ANOMALY_TCP_INVALID_HLEN);
            return;
        }
        uint32_t length = p[i + 1];
        const uint8_t *v = p + i + 2;
        bool fits = true, syn_only = false;
        bool again = kind < 32 && kind != 5 && kind != 30 && seen >> kind & 1; /* MPTCP may stand several times */
        if (kind < 32) seen |= 1u << kind;
        switch (kind) {
        case 2:
            syn_only = true;
            if (!(fits = length == 4)) break;
            l->mss = smos__be16(v);
            l->flags |= SMOS__HAS_MSS;
            break;
        case 3:
            syn_only = true;
            if (!(fits = length == 3)) break;
            if (v[0] > 14) smos__note(w, SMOS__ANOMALY_TCP_WSCALE_TOO_LARGE);
            l->wscale = v[0] > 14 ? 14 : v[0]; /* RFC 7323 2.3 */
            l->flags |= SMOS__HAS_WSCALE;
            break;
        case 4:
            syn_only = true;
            if (!(fits = length == 2)) break;
            l->flags |= SMOS__SACK_PERMITTED;
            break;
        case 5:
            if (!(fits = length >= 10 && (length - 2) % 8 == 0)) break;
            l->sack = v;
            l->sack_blocks = (uint8_t)((length - 2) / 8);
            l->flags |= SMOS__HAS_SACK;
            break;
        case 8:
            if (!(fits = length == 10)) break;
            l->tsval = smos__be32(v);
            l->tsecr = smos__be32(v + 4);
            l->flags |= SMOS__HAS_TIMESTAMP;
            break;
        case 34:
            if (!(fits = length == 2 || (length >= 6 && length <= 18 && length % 2 == 0))) break;
            l->flags |= SMOS__HAS_TFO;
            break;
        case 254: /* RFC 6994: experiment ids; F989 is Fast Open's */
            if (length >= 4 && smos__be16(v) == 0xf989) l->flags |= SMOS__HAS_TFO;
            break;
        default: break;
        }
        if (!fits) wrong(w, l, SMOS__ANOMALY_TCP_OPT_INVALID_LEN);
        if (again) smos__note(w, SMOS__ANOMALY_TCP_OPT_DUPLICATE);
        if (syn_only && !(l->tcp_flags & SMOS__SYN)) smos__note(w, SMOS__ANOMALY_TCP_OPT_ON_DATA);
        i += length;
    }
}
