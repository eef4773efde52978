/* wlan.c: IEEE 802.11 data frames as access points tunnel them (CAPWAP, RFC 5415; Aruba's GRE): unencrypted, to the LLC header inside. */
#include "wire/walk.h"

#define MAX_SUBFRAMES 8

/* An aggregate (802.11-2020 9.3.2.2): subframes of destination, source, length, LLC, each padded to a multiple of four. */
static void amsdu(smos__walk_t *w, smos__span_t s)
{
    for (int i = 0; i < MAX_SUBFRAMES && s.captured >= 14; i++) {
        uint32_t length = smos__be16(s.at + 12), whole = (14 + length + 3) & ~3u;
        smos__llc(w, smos__clamp(smos__skip(s, 14), length));
        if (whole >= s.captured) return;
        s = smos__skip(s, whole);
    }
}

int smos__wlan(smos__walk_t *w, smos__span_t s)
{
    if (s.captured < 24) return 0;
    /* Some access points send the frame control field with its bytes swapped. */
    uint32_t control = s.at[0] & 0x0c ? s.at[0] : s.at[1], direction = s.at[0] & 0x0c ? s.at[1] : s.at[0];
    if ((control & 0x0f) != 8 || control & 0x40 || direction & 0x40) return 0; /* not data, or none, or encrypted */
    uint32_t size = 24 + ((direction & 3) == 3 ? 6 : 0);
    bool quality = control & 0x80, aggregate = quality && s.captured > size && s.at[size] & 0x80;
    if (quality) size += direction & 0x80 ? 6 : 2; /* HT control follows QoS when the order bit is set */
    if (s.captured < size) return 0;
    s = smos__skip(s, size);
    if (aggregate)
        amsdu(w, s);
    else
        smos__llc(w, s);
    return 1;
}
