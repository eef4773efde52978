/* zeek.h: conn_state, history and orig_bytes/resp_bytes as Zeek's conn.log defines them. Pure: no I/O, no globals, no allocation.
 *
 * Zeek keeps a TCP machine of its own, simpler than RFC 9293's and blind to acknowledgements: an endpoint is INACTIVE until it sends
 * something, then SYN_SENT, SYN_ACK_SENT, PARTIAL (it began without a SYN) or ESTABLISHED, then CLOSED (it sent a FIN) or RESET
 * (it sent a RST). conn_state derives from the two states alone, so it is kept here beside the engine's own states.
 * Source: the Zeek manual, base/protocols/conn/main.zeek, and the behaviour of Zeek 7's TCP session adapter.
 *
 * History: one letter per thing seen, upper case from the originator (client), lower case from the responder.
 *   s SYN  h SYN+ACK  f FIN  r RST   once each, and again whenever the sequence number differs from the last of that kind
 *   d payload  a ACK without payload once each, and only in packets without SYN, FIN and RST
 *   i FIN+RST  q SYN with FIN or RST once each; such packets give no s, h, f, r, d or a
 *   t retransmitted payload  w zero window  g content gap  c bad checksum   at their 1st, 10th, 100th … time
 *   ^ the first packet's sender was taken for the responder (first in the text). x (analysis given up) does not occur here.
 *   t: payload whose segment ends at or before the highest sequence number that the endpoint reached; a SYN's or FIN's sequence number counts,
 *      so keepalives with a byte of payload, reordered segments, and the payload of a first SYN are t as well.
 *   w: not in a RST, nor after the endpoint's own RST, nor after the peer's FIN.
 *   g: only while both endpoints are ESTABLISHED, or CLOSED out of ESTABLISHED; the packet that reveals the gap counts first.
 *   c: the packet counts for nothing else.
 *
 * Bytes: orig_bytes (stream_span here) is the highest of "sequence number after the last segment" and "acknowledged by the peer", relative to
 * the SYN, less 1 for the SYN and 1 for a FIN. So: SYN and FIN are not counted but SYN data is; data in a RST never is; a RST's sequence
 * number moves the end only when within 1 MiB of it; retransmissions do not add; bytes that were never captured do, when something
 * after them was seen or acknowledged. Midstream, the base is the first sequence number seen, as if a SYN stood before it; an end that has sent
 * nothing has no bytes, whatever is acknowledged. After a RST the end stands still but for acknowledgements.
 * missed_bytes is the sum of the gaps that count as g would (smos__zeek_gap returns true): holes that the peer acknowledged, while both ends are
 * established or closed cleanly. Holes that nobody acknowledged, and holes of partial connections, are not in it.
 */
#ifndef SMOS__ZEEK_H
#define SMOS__ZEEK_H

#include <stdbool.h>
#include <stdint.h>

#include "shardmos/shardmos.h"

typedef enum smos__zeek_state {
    SMOS__ZEEK_INACTIVE, SMOS__ZEEK_SYN_SENT, SMOS__ZEEK_SYN_ACK_SENT, SMOS__ZEEK_PARTIAL, SMOS__ZEEK_ESTABLISHED, SMOS__ZEEK_CLOSED,
    SMOS__ZEEK_RESET
} smos__zeek_state_t;

/* One endpoint as sender. Positions are relative to `base`, the sequence number of its SYN (or what stands in for it). */
typedef struct smos__zeek_end {
    uint32_t base;
    uint32_t last, acked; /* after the last segment, and up to where the peer acknowledged: low bits, and high ones, of 48 */
    uint16_t last_high, acked_high;
    uint16_t syn, fin, rst; /* low bits of the position of its last SYN, FIN, RST: equal ones give no second letter */
    uint16_t rexmits;
    uint16_t zero_windows;
    uint8_t gaps;      /* these two counts stop at 255: the letter of the 1,000th is not given */
    uint8_t checksums;
    uint8_t state : 4, before : 4; /* smos__zeek_state; `before` is the state it came from */
    uint8_t seen;      /* letters given; SAW_* in zeek.c */
    uint8_t hole;      /* a hole that the peer has not acknowledged yet waits for its letter */
    uint8_t letters;   /* in the history: end[0]'s, for both */
} smos__zeek_end_t;

/* One cache line per flow; the text, char[SMOS_HISTORY_MAX], zeroed, may lie elsewhere (it is touched only when a letter is added). */
typedef struct smos__zeek {
    smos__zeek_end_t end[2]; /* SMOS_CLIENT, SMOS_SERVER */
} smos__zeek_t;

typedef struct smos__zeek_segment {
    uint32_t seq, ack;
    uint32_t payload_len; /* by the headers */
    uint16_t window;      /* as on the wire: 0 is 0 at any scale */
    uint8_t flags;
    uint8_t from; /* SMOS_CLIENT or SMOS_SERVER */
} smos__zeek_segment_t;

/* `flipped`: the flow's first packet came from the server (a SYN/ACK without a SYN). */
void smos__zeek_init(smos__zeek_t *, char history[SMOS_HISTORY_MAX], bool flipped);

/* For every TCP packet of the flow whose checksum is good, in order, before its gaps are reported. */
void smos__zeek_segment(smos__zeek_t *, char history[SMOS_HISTORY_MAX], const smos__zeek_segment_t *);

/* For a packet whose transport checksum is bad (TCP, UDP), instead of the above. */
void smos__zeek_bad_checksum(smos__zeek_t *, char history[SMOS_HISTORY_MAX], int from);

/* For each hole in what `sender` sent, once its peer acknowledged it. True if it belongs in missed_bytes. */
bool smos__zeek_gap(smos__zeek_t *, char history[SMOS_HISTORY_MAX], int sender);

/* For bytes that went by unseen (cut by the snap length), when they do: Zeek notes a gap with the acknowledgement that covers them, one
 * for all that it covers. True if they belong in missed_bytes. */
bool smos__zeek_hole(smos__zeek_t *, int sender);

/* For a UDP datagram, not for ICMP, whose history is empty (letter d; states are "has sent"). */
void smos__zeek_datagram(smos__zeek_t *, char history[SMOS_HISTORY_MAX], int from);

/* "S0" … "OTH"; "" for protocols that are none of TCP, UDP, ICMP, ICMPv6. Static storage. */
const char *smos__zeek_conn_state(const smos__zeek_t *, const char history[SMOS_HISTORY_MAX], int proto);

/* orig_bytes or resp_bytes of a TCP flow. */
uint64_t smos__zeek_span(const smos__zeek_t *, int side);

#endif
