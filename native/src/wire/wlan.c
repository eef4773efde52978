/* wlan.c: IEEE 802.11 data frames, unencrypted, to the LLC header inside: as a card in monitor mode gives them, and as access points tunnel them
 * (CAPWAP, RFC 5415; Aruba's GRE). */
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

static int data_frame(smos__walk_t *w, smos__span_t s, uint32_t control, uint32_t direction, bool padded)
{
    if ((control & 0x0f) != 8 || control & 0x40 || direction & 0x40) return 0; /* not data, or none, or encrypted */
    uint32_t size = 24 + ((direction & 3) == 3 ? 6 : 0);
    bool quality = control & 0x80, aggregate = quality && s.captured > size && s.at[size] & 0x80;
    if (quality) size += direction & 0x80 ? 6 : 2; /* HT control follows QoS when the order bit is set */
    if (padded) size = (size + 3) & ~3u;
    if (s.captured < size) return 0;
    s = smos__skip(s, size);
    if (aggregate)
        amsdu(w, s);
    else
        smos__llc(w, s);
    return 1;
}

int smos__wlan(smos__walk_t *w, smos__span_t s)
{
    if (s.captured < 24) return 0;
    if (s.at[0] & 0x0c) return data_frame(w, s, s.at[0], s.at[1], false);
    return data_frame(w, s, s.at[1], s.at[0], false); /* some access points send the frame control field with its bytes swapped */
}

void smos__wlan_link(smos__walk_t *w, smos__span_t s, bool padded)
{
    if (s.captured < 24) smos__end(w, s.captured < s.wire ? SMOS__WIRE_TRUNCATED : SMOS__WIRE_NOT_IP);
    else if (!data_frame(w, s, s.at[0], s.at[1], padded)) smos__end(w, SMOS__WIRE_NOT_IP);
}
