/* tcp.h: both endpoints of a connection, as the packets between them tell (RFC 9293), and both streams.
 *
 * A packet moves the sender's endpoint first (smos__tcp_sender), then, unless a middlebox dropped it in between, the receiver's
 * (smos__tcp_receiver), which also delivers what became contiguous. Both only change the flow and call the sink: no I/O, no globals.
 */
#ifndef SMOS__TCP_H
#define SMOS__TCP_H

#include "event/anomaly.h"
#include "flow/arena.h"
#include "shardmos/engine.h"
#include "tcp/options.h"
#include "tcp/refused.h"
#include "tcp/sequence.h"
#include "wire/packet.h"

#define SMOS__MAX_WINDOW (1u << 30) /* RFC 7323 2.3 */
#define SMOS__SLACK 65536u          /* at least, beyond a window: acknowledgements and updates of it may have been lost to the capture */

enum { SMOS__OPTION_SACK = 1, SMOS__OPTION_TIMESTAMPS = 2, SMOS__OPTION_TFO = 4, SMOS__OPTION_ECN = 8 }; /* smos_endpoint_info_t.options */

#define SMOS__CONFLICT_MAX 256

/* Different bytes for one place of a stream, from the first that differs on. */
typedef struct smos__conflict {
    uint64_t offset;
    const uint8_t *copies; /* those that wait, and behind them those of the packet: length bytes each */
    uint32_t length;       /* at most SMOS__CONFLICT_MAX */
} smos__conflict_t;

/* What happens inside a packet, in order. `receiver` is the side whose stream it is (SMOS_SERVER: what the client sent). */
typedef struct smos__tcp_sink {
    void (*data)(void *context, int receiver, const uint8_t *data, uint32_t length, uint64_t offset);
    void (*gap)(void *context, int receiver, uint64_t offset, uint64_t length);
    void (*anomaly)(void *context, smos__anomaly_t anomaly);
    void (*conflict)(void *context, const smos__conflict_t *); /* the anomaly overlap_different_data */
    void (*error)(void *context, int receiver, uint32_t code);
    const smos__assembler_t *(*kept)(void *context, int receiver); /* delivered bytes that are still there; NULL: none */
} smos__tcp_sink_t;

typedef struct smos__tcp_config {
    uint32_t flow_buffer;   /* out-of-order bytes per direction */
    uint32_t flow_segments;
    uint32_t gap_bytes, gap_segments;
    int64_t gap_ns;
    uint64_t depth;
    uint8_t overlap_policy; /* where the network has none of its own */
    uint8_t urgent_policy;  /* 0 inline, 1 out-of-band, 2 drop */
    uint8_t detail;         /* SMOS_DETAIL_* */
    uint8_t gaps_at_once;   /* a gap that the peer acknowledged is told with the acknowledgement, though nothing waits behind it */
    uint8_t flow_full, worker_full; /* SMOS_FULL_* */
} smos__tcp_config_t;

/* The flow under the hand, and what its functions need. */
typedef struct smos__tcp {
    smos__flow_t *flow;
    smos__flow_cold_t *cold;
    smos__flow_conn_t *conn; /* used only where history is asked for */
    smos__pool_t *pool;
    const smos__tcp_config_t *config;
    const smos__stream_options_t *options; /* of those who watch it */
    const smos__tcp_sink_t *sink;
    void *context; /* of the sink */
    int64_t now_ns;
    smos__refused_t *refused; /* NULL: what should be refused is */
} smos__tcp_t;

enum { /* what a packet did: smos__tcp_sender and smos__tcp_receiver return a union of these */
    SMOS__TCP_VALID = 1,           /* acceptable: its data and flags count */
    SMOS__TCP_REXMIT = 2,
    SMOS__TCP_SENDER_STATE = 4,
    SMOS__TCP_RECEIVER_STATE = 8,
    SMOS__TCP_SETUP = 16,          /* the handshake is done on both ends */
    SMOS__TCP_CLOSED = 32,         /* both ends are done */
    SMOS__TCP_RESET = 64,          /* a valid RST ended it */
    SMOS__TCP_OUTSIDE = 256,       /* not valid: it carries bytes beyond the receiver's window */
    SMOS__TCP_REVIVED = 128        /* what looked like its end was forged: the handshake goes on */
};

/* The clock of ts_time: nearly seconds, without a division. */
#define SMOS__TS_SHIFT 30
static inline uint32_t smos__ts_clock(int64_t now_ns) { return (uint32_t)((uint64_t)now_ns >> SMOS__TS_SHIFT); }

/* How far beyond its left edge a receiver with this window may be sent bytes, as far as we can tell. */
static inline uint32_t smos__window_slack(uint32_t window) { return window > SMOS__SLACK ? 2 * window : window + SMOS__SLACK; }

uint32_t smos__tcp_sender(smos__tcp_t *, const smos__layer_t *, int from);
uint32_t smos__tcp_receiver(smos__tcp_t *, const smos__layer_t *, int from, uint32_t facts);

/* ordinary.c: the same two steps, shorter, of a segment without data that opens or closes a connection as it should be. The first gives 0 for all others: then nothing was
 * changed, and smos__tcp_sender takes it. The second may only follow the first. */
uint32_t smos__tcp_ordinary(smos__tcp_t *, const smos__layer_t *, int from);
uint32_t smos__tcp_ordinary_receiver(smos__tcp_t *, const smos__layer_t *, int from, uint32_t facts);

/* Round-trip times of a segment that went the short way (fast.h). */
void smos__tcp_rtt(smos__tcp_t *, const smos__layer_t *, int from);

/* Delivers what waits behind holes, reporting these, and the hole before a FIN or an acknowledged end: the flow ends. */
void smos__tcp_finish(smos__tcp_t *);

/* stream.c */
void smos__stream_segment(smos__tcp_t *, int from, uint32_t seq, const uint8_t *data, uint32_t captured, uint32_t length);
/* One byte that is left out of the stream on purpose: a GAP, but nothing is missing. */
void smos__stream_omit(smos__tcp_t *, int from, uint32_t seq);
/* The peer's acknowledgement reached into a hole: what waits behind it is delivered. */
void smos__stream_acked(smos__tcp_t *, int from);
void smos__stream_syn_data(smos__tcp_t *, int from, bool accepted);
void smos__stream_finish(smos__tcp_t *, int from);

/* handshake.c: the stream of `from` begins at seq and not where it was thought; and a segment with SYN moves its sender. SMOS__TCP_VALID among the facts: it is acceptable. What is wrong with it has its name from notice.c. */
void smos__tcp_rebase(smos__tcp_t *, int from, uint32_t seq);
void smos__tcp_syn(smos__tcp_t *, const smos__layer_t *, int from, uint32_t *facts);
void smos__tcp_syn_options(smos__tcp_t *, const smos__layer_t *, int from); /* what its options say of a SYN's sender */

/* rtt.c: a probe of what `from` sent begins, to end with the acknowledgement of `ends_with`; it ends if that was acknowledged. */
void smos__tcp_rtt_begin(smos__tcp_t *, int from, uint32_t ends_with);
void smos__tcp_rtt_end(smos__tcp_t *, int from);

/* notice.c: smos__tcp_notice names what is odd about a segment before it moves anything; the other two name what is wrong with its acknowledgement, or
 * with a place outside the window, by the phase of the connection. */
void smos__tcp_notice(smos__tcp_t *, const smos__layer_t *, int from);
void smos__tcp_notice_ack(smos__tcp_t *, const smos__layer_t *, int from, smos__anomaly_t what);
void smos__tcp_notice_outside(smos__tcp_t *, const smos__layer_t *, int from);

/* sack.c: takes the segment's SACK blocks, of the other end's stream; then, are bytes of the end's own stream that the receiver lacks lost, not late? */
void smos__tcp_sack(smos__tcp_t *, const smos__layer_t *, int from);
bool smos__tcp_lost(const smos__tcp_t *, int from, uint32_t seq);

/* refused.c: keeps the data of a segment that its receiver should refuse; and delivers what of it the receiver acknowledged all the same. */
void smos__refused_keep(smos__tcp_t *, const smos__layer_t *, int from);
void smos__refused_taken(smos__tcp_t *, int from);

/* reset.c: is the RST one that the receiver would obey (RFC 5961 3.2)? */
bool smos__tcp_reset_valid(const smos__tcp_t *, const smos__layer_t *, int from, smos__anomaly_t *why);

static inline void smos__tcp_anomaly(smos__tcp_t *t, smos__anomaly_t anomaly) { t->sink->anomaly(t->context, anomaly); }

#endif
