/* walk.h: what the decoders of the layers share while one frame is walked. Private to wire/. */
#ifndef SMOS__WALK_H
#define SMOS__WALK_H

#include "event/anomaly.h"
#include "wire/bytes.h"
#include "wire/decode.h"

#define SMOS__MAX_DEPTH 32 /* headers below each other, tags and labels counted, extension headers not */

typedef struct smos__walk {
    const smos__frame_t *frame;
    smos__defrag_t *defrag;
    smos__decoded_t *out;
    smos__layer_t *layer; /* takes the anomalies; NULL: the frame does */
    const uint8_t *sum_src, *sum_dst; /* IPv6: addresses that the checksum is over, where not the header's */
    uint32_t layer_flags; /* every layer from here on has these: SMOS__REASSEMBLED */
    uint32_t tunnel_id;
    uint16_t vlan[2];
    uint8_t vlans;
    uint8_t tunnel_kind;
    uint8_t depth;
    uint8_t half;  /* within a first fragment that was cut: no checksum can be right */
    uint8_t guess; /* within a tunnel known by its UDP port only: what does not parse is the outer packet's payload */
} smos__walk_t;

/* Bytes from `at` on: readable, and on the wire within whatever encloses them. captured <= wire. */
typedef struct smos__span {
    const uint8_t *at;
    uint32_t captured;
    uint32_t wire;
} smos__span_t;

/* The span without its first n bytes; n <= captured. */
static inline smos__span_t smos__skip(smos__span_t s, uint32_t n)
{
    return (smos__span_t){ s.at + n, s.captured - n, s.wire - n };
}

/* The span cut to `wire` bytes, or as it is if it is shorter. */
static inline smos__span_t smos__clamp(smos__span_t s, uint32_t wire)
{
    if (s.wire > wire) s.wire = wire;
    if (s.captured > s.wire) s.captured = s.wire;
    return s;
}

void smos__note(smos__walk_t *w, smos__anomaly_t anomaly);
/* The walk ends here. What is not IP inside a tunnel is the outer packet's payload: that frame stays OK. */
void smos__end(smos__walk_t *w, smos__wire_result_t result);
/* Fewer than `need` bytes: the anomaly if the wire had no more, else the snap length cut them. */
void smos__short(smos__walk_t *w, smos__span_t s, uint32_t need, smos__anomaly_t anomaly);
/* One header deeper; 0 when too deep, and the walk has ended. */
int smos__deeper(smos__walk_t *w);

/* link.c, ethertype.c */
void smos__after(smos__walk_t *w, smos__span_t s, uint32_t size, void (*next)(smos__walk_t *, smos__span_t)); /* what follows a header of `size` */
void smos__link(smos__walk_t *w, smos__span_t s, uint32_t linktype);
void smos__ethernet(smos__walk_t *w, smos__span_t s);
void smos__llc(smos__walk_t *w, smos__span_t s);
void smos__ethertype(smos__walk_t *w, smos__span_t s, uint32_t type);
void smos__ppp(smos__walk_t *w, smos__span_t s);
void smos__mpls(smos__walk_t *w, smos__span_t s);
void smos__ip(smos__walk_t *w, smos__span_t s); /* by the version nibble */

/* ipv4.c, ipv6.c. A layer that was begun but not kept gives its anomalies to the frame. */
void smos__ipv4(smos__walk_t *w, smos__span_t s);
void smos__ipv6(smos__walk_t *w, smos__span_t s);
smos__layer_t *smos__layer_begin(smos__walk_t *w, smos__span_t s); /* NULL: no room, and the walk has ended */
void smos__layer_abandon(smos__walk_t *w);
void smos__fragment(smos__walk_t *w, smos__span_t s); /* w->layer is begun for it; s from its IP header on */

/* A first fragment that was cut or lies about its length: no datagram will come of it, so what is there of its transport counts. */
void smos__cut_fragment(smos__walk_t *w, smos__layer_t *l);

/* l4.c: the transport header of w->layer, whose tuple has addresses, version and proto; keeps the layer, goes on into tunnels. */
void smos__transport(smos__walk_t *w, smos__span_t s);
/* icmp.c */
void smos__icmp(smos__walk_t *w, smos__span_t s);
/* tcp_options.c: `n` option bytes into the layer. */
void smos__tcp_options(smos__walk_t *w, smos__layer_t *l, const uint8_t *p, uint32_t n);
/* checksum.c: over the pseudo header and `length` bytes at p; 0xffff when right. */
uint32_t smos__transport_sum(const smos__walk_t *w, const smos_tuple_t *t, const uint8_t *p, uint32_t length, uint32_t proto);

/* tunnel.c: s is what follows the header of the layer kept last. */
void smos__gre(smos__walk_t *w, smos__span_t s);
/* 1 if the datagram was a tunnel's and the walk went on. */
int smos__udp_tunnel(smos__walk_t *w, smos__span_t s, uint16_t sport, uint16_t dport);
/* rare.c: link types seldom met; 0 if it is none of them. */
int smos__rare_link(smos__walk_t *w, smos__span_t s, uint32_t linktype);
/* wlan.c: 1 if it was an 802.11 data frame that can be read, and the walk went on. */
int smos__wlan(smos__walk_t *w, smos__span_t s);
/* Likewise, of a capture's own link type: padded after its header if `padded`. */
void smos__wlan_link(smos__walk_t *w, smos__span_t s, bool padded);
void smos__inner(smos__walk_t *w, smos__span_t s, uint32_t ethertype, uint8_t kind, uint32_t id);

#endif
