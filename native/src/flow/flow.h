/* flow.h: what a flow is in memory.
 *
 * A flow is three records of one index: the hot one (three cache lines: key, client, server), read and written for every packet, the cold one, and
 * what Zeek's conn.log tells of it, which nobody touches where nobody asked for history. They lie in the state segment, hold no process address and
 * refer to each other by 32-bit index, so the segment means the same wherever it is mapped. flow/ knows nothing of TCP's rules; tcp/ fills the endpoints.
 */
#ifndef SMOS__FLOW_H
#define SMOS__FLOW_H

#include <stddef.h>
#include <stdint.h>

#include "shardmos/shardmos.h"
#include "tcp/assembler.h"
#include "tcp/zeek.h"

#define SMOS__NO_FLOW UINT32_MAX

/* smos__endpoint_t.flags */
enum {
    SMOS__EP_SYN = 1 << 0,          /* its SYN was seen: isn is real */
    SMOS__EP_FIN = 1 << 1,          /* its FIN was seen: fin_seq is set */
    SMOS__EP_FIN_RECEIVED = 1 << 2, /* the peer's endpoint consumed it, in order */
    SMOS__EP_FIN_ACKED = 1 << 3,
    SMOS__EP_WSCALE = 1 << 4,       /* announced window scaling in its SYN */
    SMOS__EP_TIMESTAMPS = 1 << 5,   /* ts_recent and ts_time are valid */
    SMOS__EP_BASE = 1 << 6,         /* rcv_nxt and offset are valid */
    SMOS__EP_SYN_DATA = 1 << 7,     /* data that came with its SYN waits in the assembler for the peer's word */
    SMOS__EP_RST = 1 << 8,
    SMOS__EP_ZERO_WINDOW = 1 << 9,  /* its last window was zero */
    SMOS__EP_STOPPED = 1 << 10,     /* its stream is left alone: it reached the depth limit, or a bound of memory */
    SMOS__EP_ACKED = 1 << 11,       /* the peer acknowledged it: snd_una is valid */
    SMOS__EP_WINDOW = 1 << 12,      /* window is known and correctly scaled */
    SMOS__EP_RTT = 1 << 13,         /* rtt_seq waits for its acknowledgement */
    SMOS__EP_TFO = 1 << 14,
    SMOS__EP_HOLE = 1 << 15         /* out-of-order data waits in the assembler; hole_ms is set */
};

/* One end as a sender: what it sent, and how far the other end has it. Sequence numbers are as on the wire. */
typedef struct smos__endpoint {
    uint32_t isn;     /* of its SYN; midstream: the first sequence number seen - 1 */
    uint32_t snd_nxt; /* above everything it sent */
    uint32_t snd_una; /* highest acknowledgement by the peer */
    uint32_t rcv_nxt; /* of its stream at the peer: everything below was delivered or given up */
    uint64_t offset;  /* stream offset of rcv_nxt; 0 is isn + 1 */
    uint64_t packets;
    uint64_t payload_bytes;
    uint64_t wire_bytes;
    uint32_t window;    /* it last advertised, scaled, bytes */
    uint32_t ts_recent; /* RFC 7323 4.3 */
    uint32_t ts_time;   /* packet time of ts_recent, 2^30 ns */
    uint8_t state;      /* smos_tcp_state */
    uint8_t wscale;     /* 255: not announced */
    uint16_t flags;
} smos__endpoint_t;

/* smos__flow_t.flags */
enum {
    SMOS__FLOW_MIDSTREAM = 1 << 0,
    SMOS__FLOW_EXISTING = 1 << 1, /* a module was pushed while it ran */
    SMOS__FLOW_RESET = 1 << 2,    /* a module reset it: later packets are dropped */
    SMOS__FLOW_ENDED = 1 << 3,    /* CONN_END was raised; what follows is only counted */
    SMOS__FLOW_STARTED_RECEIVER = 1 << 4, /* CONN_START was raised at the RECEIVER hook */
    SMOS__FLOW_SETUP = 1 << 5,    /* CONN_SETUP was raised */
    SMOS__FLOW_TWO_SIDED = 1 << 6, /* both ends were heard */
    SMOS__FLOW_BLOCKED = 1 << 7,  /* a handler dropped NEW_DATA: later copies are dropped too */
    SMOS__FLOW_QUEUED = 1 << 8,   /* on the queue of unconfirmed flows, given up first */
    SMOS__FLOW_EDITED = 1 << 11,  /* a middlebox changed its packets: numbers are translated */
    SMOS__FLOW_SYN_AGAIN = 1 << 12, /* a SYN with another number waits for its answer */
    SMOS__FLOW_REFUSED = 1 << 13, /* bytes that their receiver should have refused wait for its word: tcp/refused.h */
    SMOS__FLOW_STREAMS = 3 << 9   /* somebody wants its bytes: SMOS__FLOW_STREAM_OF(sender) */
};
#define SMOS__FLOW_STREAM_OF(from) (1u << (9 + (from))) /* what that end sends */

/* Which timeout applies, and in which order flows are given up when the table is full. */
typedef enum smos__class {
    SMOS__CLASS_FREE = 0,
    SMOS__CLASS_EMBRYONIC, /* TCP before both ends were heard and agreed */
    SMOS__CLASS_ESTABLISHED,
    SMOS__CLASS_CLOSED,
    SMOS__CLASS_RESET,
    SMOS__CLASS_UDP,
    SMOS__CLASS_ICMP, /* and every other protocol */
    SMOS__CLASSES
} smos__class_t;

typedef struct smos__flow {
    smos_tuple_t tuple;  /* client is src, server is dst; key fields masked by configuration */
    uint32_t generation; /* bit 0: being written (odd); above it the incarnation of the slot, never 0 while in use */
    int64_t last_ns;     /* of its last packet */
    uint16_t set;        /* subscription set */
    uint16_t epoch;      /* of the modules' commits that `set` reflects */
    uint16_t flags;
    uint8_t class_;      /* smos__class */
    uint8_t end_reason;  /* smos_end_reason once known, else 255 */
    smos__endpoint_t end[2];
} __attribute__((aligned(64))) smos__flow_t;

/* smos__endpoint_cold_t.marks */
enum {
    SMOS__MARK_ALTERNATE_ISN = 1, /* several SYN/ACKs with different ISNs: the acknowledgement decides */
    SMOS__MARK_LOSS = 2           /* lost_below is set; no RTT probe goes meanwhile */
};

typedef struct smos__endpoint_cold {
    smos__assembler_t assembler; /* of the stream it sends */
    uint64_t skipped : 48;       /* bytes of its stream that were given up; 256 TiB */
    uint64_t missing_high : 16;
    uint32_t missing_low;        /* those of them that the peer had acknowledged (Zeek's missed_bytes): smos__missing() */
    uint32_t fin_seq;
    uint32_t retransmits;
    uint32_t out_of_order;
    uint32_t conflicts;     /* overlaps_conflicting */
    uint32_t zero_ms;       /* time with a zero window; less the time since the flow's start while SMOS__EP_ZERO_WINDOW */
    union {
        uint32_t rtt_seq;    /* while SMOS__EP_RTT: acknowledgement that ends the probe; sent at rtt_sent_us after the start */
        uint32_t lost_below; /* while SMOS__MARK_LOSS: what the receiver lacks below this is lost on the way, as its SACKs tell */
    };
    uint32_t rtt_sent_us;   /* wraps: differences only */
    uint32_t rtt_handshake_us;
    uint32_t rtt_min_us;
    uint32_t hole_ms;       /* since the flow's start: when the oldest hole opened */
    uint16_t mss;
    uint8_t options;
    uint8_t marks : 4;      /* SMOS__MARK_* */
    uint8_t overlap : 4;    /* policy of the network that receives its stream, + 1; 0: the configured one */
} smos__endpoint_cold_t;

typedef struct smos__flow_cold {
    int64_t start_ns;
    uint16_t vlan[2];
    uint32_t tunnel_id;
    uint32_t anomalies;
    uint8_t tunnel;
    uint8_t published; /* anomalies of this flow that went into the event queue */
    uint16_t round;    /* of the replay */
    uint32_t hash;     /* of the table */
    uint32_t next_free; /* slot, while this one is free */
    smos__endpoint_cold_t end[2];
} smos__flow_cold_t;

typedef struct smos__flow_conn {
    smos__zeek_t zeek;
    char history[SMOS_HISTORY_MAX];
} smos__flow_conn_t;

static inline uint64_t smos__missing(const smos__endpoint_cold_t *c) { return (uint64_t)c->missing_high << 32 | c->missing_low; }

static inline void smos__add_missing(smos__endpoint_cold_t *c, uint64_t bytes)
{
    bytes += smos__missing(c);
    c->missing_high = bytes >> 32 & 0xffff;
    c->missing_low = (uint32_t)bytes;
}

_Static_assert(sizeof(smos__endpoint_t) == 64, "an endpoint is one cache line");
_Static_assert(sizeof(smos__flow_t) == 192, "a hot flow is three cache lines");
_Static_assert(sizeof(smos__endpoint_cold_t) == 72 && sizeof(smos__flow_cold_t) == 176, "a cold flow is less than three cache lines");
_Static_assert(sizeof(smos__flow_t) + sizeof(smos__flow_cold_t) + sizeof(smos__flow_conn_t) <= 472, "a flow stays within 512 bytes all told");

#endif
