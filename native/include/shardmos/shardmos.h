/* shardmos.h: what a C middlebox includes, and the whole of its contract.
 *
 * A middlebox is one C file that defines one `smos_module` (see SMOS_MODULE at the end). It links against nothing:
 * it reaches the engine through the table of functions `smos_api_t` that init() receives. The table only ever grows at
 * its end; `abi_major` changes when that promise is broken.
 *
 * Threads: every callback of a module but init() and fini() runs in the worker's one packet thread; init() runs in a
 * thread beside it. A module keeps no lock and needs none. Each worker has its own instance.
 * Errors: functions return 0 or a count on success and a negative errno value on failure; none aborts.
 * Time: int64_t nanoseconds since the epoch, packet time. Byte order: host order everywhere but inside packets.
 */
#ifndef SHARDMOS_SHARDMOS_H
#define SHARDMOS_SHARDMOS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SMOS_ABI_MAJOR 1
#define SMOS_ABI_MINOR 2
#define SMOS_MODULE_MAGIC 0x534d4f53u /* "SMOS" */


/* The two ends of a flow. At the SENDER hook `side` is the sender, at the RECEIVER hook the receiver; for NEW_DATA,
 * GAP and buffers it is the receiving endpoint: SMOS_SERVER is what the client sent. */
enum { SMOS_CLIENT = 0, SMOS_SERVER = 1, SMOS_BOTH = 2 };

/* Where in a packet's way an event is raised: after the sender's endpoint was updated, or after the receiver's. */
enum { SMOS_NO_HOOK = 0, SMOS_SENDER = 1, SMOS_RECEIVER = 2 };

/* Built-in events; see docs/events.md for when and in which order each is raised. */
typedef enum smos_event {
    SMOS_PKT_IN = 0,       /* a packet of the flow, once per hook */
    SMOS_CONN_START = 1,   /* the flow was made, once per hook, whatever its first packet */
    SMOS_CONN_SETUP = 2,   /* TCP handshake done on both ends */
    SMOS_NEW_DATA = 3,     /* contiguous bytes for `side`: data, length, offset */
    SMOS_REXMIT = 4,       /* the packet carries sequence numbers that were sent before */
    SMOS_STATE_CHANGE = 5, /* `side` entered TCP state `detail` */
    SMOS_GAP = 6,          /* `length` bytes at `offset` will never come */
    SMOS_ANOMALY = 7,      /* `detail` is the anomaly; api->anomaly_name() names it */
    SMOS_ERROR = 8,        /* a buffer or memory limit was met; `detail` is a SMOS_ERR_* code */
    SMOS_CONN_END = 9,     /* once per side, `detail` the smos_end_reason */
    SMOS_ORPHAN = 10,      /* a packet of no flow */
    SMOS_EVENT_COUNT = 11
} smos_event_t;

#define SMOS_BIT(event) (1u << (event))

/* RFC 9293 section 3.3.2; the order is part of the ABI. */
typedef enum smos_tcp_state {
    SMOS_TCP_CLOSED = 0,
    SMOS_TCP_LISTEN = 1,
    SMOS_TCP_SYN_SENT = 2,
    SMOS_TCP_SYN_RECEIVED = 3,
    SMOS_TCP_ESTABLISHED = 4,
    SMOS_TCP_FIN_WAIT_1 = 5,
    SMOS_TCP_FIN_WAIT_2 = 6,
    SMOS_TCP_CLOSE_WAIT = 7,
    SMOS_TCP_CLOSING = 8,
    SMOS_TCP_LAST_ACK = 9,
    SMOS_TCP_TIME_WAIT = 10
} smos_tcp_state_t;

typedef enum smos_end_reason {
    SMOS_END_FIN = 0,
    SMOS_END_RST = 1,
    SMOS_END_IDLE = 2,
    SMOS_END_EVICTED = 3,
    SMOS_END_CAPTURE = 4,
    SMOS_END_STOPPED = 5
} smos_end_reason_t;

/* SMOS_ERR_WINDOW: the packet's bytes lie beyond the receiver's window, and count for nothing. SMOS_ERR_UNREAD: history that a socket had not peeked yet was given up; offset and length say which bytes. SMOS_ERR_TABLE: the flow is given up for a
 * newer one. */
enum { SMOS_ERR_FLOW_BUFFER = 1, SMOS_ERR_WORKER_BUFFER = 2, SMOS_ERR_WINDOW = 3, SMOS_ERR_DEPTH = 4, SMOS_ERR_UNREAD = 5, SMOS_ERR_TABLE = 6 };

enum { SMOS_LOG_DEBUG = 0, SMOS_LOG_INFO = 1, SMOS_LOG_WARNING = 2, SMOS_LOG_ERROR = 3 };


/* A flow as a handle: slot index in the low 32 bits, its incarnation above. A handle whose flow has ended is stale:
 * every function then returns -ESTALE. 0 is no flow. */
typedef uint64_t smos_flow_t;

/* Addresses are 16 bytes in network order, IPv4 as ::ffff:a.b.c.d. Ports are host order; for ICMP echo and the like both
 * are the identifier, for other ICMP both are type * 256 + code. */
typedef struct smos_tuple {
    uint8_t src[16];
    uint8_t dst[16];
    uint16_t sport;
    uint16_t dport;
    uint8_t proto;   /* IP protocol number */
    uint8_t version; /* 4 or 6 */
    uint16_t vlan;   /* outermost VLAN id of the key, 0 if none or not in the key */
    uint32_t tunnel; /* id of the tunnel in the key, 0 likewise */
} smos_tuple_t;

/* The current packet. Every pointer is into the frame (or the reassembled datagram) and valid only during the call;
 * the memory may be read up to frame + caplen, and payload + payload_captured. */
typedef struct smos_packet {
    const uint8_t *frame;
    uint32_t caplen; /* captured bytes of the frame */
    uint32_t len;    /* bytes of the frame on the wire */
    int64_t time_ns;
    const uint8_t *ip;      /* IP header of the layer that belongs to this flow */
    const uint8_t *l4;      /* transport header, NULL if it was not captured whole */
    const uint8_t *payload; /* transport payload, NULL if none was captured */
    uint32_t payload_captured;
    uint32_t payload_len; /* by the headers; may exceed payload_captured */
    uint32_t ip_len;      /* IP total length, headers included */
    uint32_t seq;         /* TCP only, like the next five */
    uint32_t ack;
    uint16_t window; /* as on the wire, not scaled */
    uint16_t urgent;
    uint8_t tcp_flags; /* CWR ECE URG ACK PSH RST SYN FIN from bit 7 to bit 0 */
    uint8_t from;      /* SMOS_CLIENT or SMOS_SERVER: who sent it */
    uint16_t reserved;
    uint64_t number; /* of the packet at its port, from 1 */
} smos_packet_t;

/* One endpoint of a flow, as a snapshot. Counters count what this endpoint sent. */
typedef struct smos_endpoint_info {
    uint64_t packets;
    uint64_t payload_bytes; /* transport payload by the headers, retransmissions included */
    uint64_t wire_bytes;    /* frame bytes */
    uint64_t stream_bytes;  /* delivered in order */
    uint64_t stream_span;   /* distance in sequence space */
    uint64_t missing_bytes;
    uint32_t retransmits;
    uint32_t out_of_order;
    uint32_t overlaps_conflicting;
    uint32_t zero_window_ms;
    uint32_t rtt_handshake_us; /* from this endpoint's SYN or SYN/ACK to its acknowledgement, 0 unknown */
    uint32_t rtt_min_us;       /* of data, 0 unknown */
    uint16_t mss;              /* 0 if not announced */
    uint8_t wscale;            /* 255 if not announced */
    uint8_t state;             /* smos_tcp_state */
    uint8_t options;           /* bit 0 SACK permitted, 1 timestamps, 2 Fast Open, 3 ECN */
    uint8_t reserved[3];
} smos_endpoint_info_t;

#define SMOS_HISTORY_MAX 40

/* A flow as a snapshot; also the record that is written when it ends. Fixed layout, 8-byte aligned, no padding. */
typedef struct smos_flow_info {
    smos_flow_t flow;
    smos_tuple_t tuple; /* client is src, server is dst */
    uint32_t reserved;
    int64_t start_ns;
    int64_t end_ns; /* last packet */
    smos_endpoint_info_t side[2];
    char conn_state[8];              /* Zeek's, "" if not TCP/UDP/ICMP */
    char history[SMOS_HISTORY_MAX];  /* Zeek's letters, NUL-terminated, cut at the end if longer */
    uint16_t vlan[2];                /* of the first packet, outermost first, 0 none */
    uint32_t tunnel_id;
    uint8_t tunnel;     /* 0 none, else a SMOS_TUNNEL_* kind */
    uint8_t end_reason; /* smos_end_reason; 255 while it lives */
    uint8_t midstream;  /* no SYN seen */
    uint8_t existing;   /* the module was pushed into the running flow */
    uint32_t anomalies; /* raised on this flow */
} smos_flow_info_t;

enum {
    SMOS_TUNNEL_NONE = 0,
    SMOS_TUNNEL_IPIP = 1,
    SMOS_TUNNEL_GRE = 2,
    SMOS_TUNNEL_VXLAN = 3,
    SMOS_TUNNEL_GENEVE = 4,
    SMOS_TUNNEL_GTPU = 5,
    SMOS_TUNNEL_ERSPAN = 6,
    SMOS_TUNNEL_TEREDO = 7,
    SMOS_TUNNEL_PPPOE = 8,
    SMOS_TUNNEL_MPLS = 9,
    SMOS_TUNNEL_L2TP = 10 /* id: tunnel and session, 16 bits each */
};

/* ---- Sockets ----
 *
 * A module watches through monitoring sockets. It has one without asking, number 0: the manifest's filter and registrations. More are
 * made with api->socket(). A socket is a template: what is registered and set on it is what a flow that its filter matches begins
 * with. From then on the pair (socket, flow) stands for the socket of that one flow, with registrations, options and a context of its
 * own; flow 0 in a call means the template. Flows with equal registrations and options share one interned set.
 * A socket number is good in its own module only. */
typedef uint32_t smos_sock_t;

enum {
    SMOS_STREAM = 1, /* flows: TCP connections, UDP and ICMP flows */
    SMOS_RAW = 2     /* packets: PKT_IN without hook and flow, once for each packet that the filter matches */
};

/* Events of the module's own: a filter over another event. Numbers from here on, good in their own module only. */
#define SMOS_USER_EVENT 64u

/* smos_call_t.event of callbacks that no packet event causes. */
enum { SMOS_TIMER = 254, SMOS_BURST_END = 255 };

/* What a handler is called with. Valid only during the call. */
typedef struct smos_call {
    smos_flow_t flow; /* 0 for ORPHAN */
    void *state;      /* this module's state_size bytes for the flow, zeroed when the flow began; NULL if size is 0 */
    const smos_tuple_t *tuple;     /* client is src, server is dst */
    const smos_packet_t *packet;   /* NULL where no packet caused the event (CONN_END of an idle flow) */
    const uint8_t *data;           /* NEW_DATA: the bytes. ANOMALY of overlapping data that differs: `length` bytes that waited, and behind them `length` of the packet. Else NULL */
    uint64_t offset;               /* NEW_DATA, GAP, that ANOMALY: of the first byte in the stream, 0 being the byte after the SYN */
    uint64_t length;               /* NEW_DATA, GAP: bytes; that ANOMALY: from the first that differs on, at most 256; else 0 */
    int64_t time_ns;
    uint32_t detail; /* state, anomaly, end reason or error, by event */
    uint8_t event;
    uint8_t side;
    uint8_t hook;
    uint8_t existing; /* the flow was there before the module */
    /* since ABI 1.1 */
    uint32_t id;        /* of the event as registered: a smos_event, or a user-defined one */
    smos_sock_t sock;   /* whose registration this is */
    void *arg;          /* of the registration, the definition (filters) or the timer */
    void *context;      /* set_context() of (sock, flow), NULL before */
} smos_call_t;

typedef void (*smos_handler_t)(void *self, const smos_call_t *call);

/* Filter of a user-defined event: not 0 where the event happened. Called once per parent event and socket, with call->arg the
 * definition's argument. It may raise() events allocated under its own. */
typedef int (*smos_predicate_t)(void *self, const smos_call_t *call);

/* Options of a socket, per side (the receiving endpoint) or SMOS_BOTH. On the template: for flows to come. */
typedef enum smos_option {
    SMOS_OPT_HISTORY = 1, /* delivered bytes that stay readable with peek(), default 0; a flow keeps the most that any of its sockets asks for */
    SMOS_OPT_BUFFER = 2,  /* limit of out-of-order bytes, default the configuration's; 0: do not reassemble, deliver in-order bytes only */
    SMOS_OPT_OVERLAP = 3, /* enum smos_overlap: which copy of overlapping out-of-order bytes counts */
    SMOS_OPT_FRAMES = 4,  /* raw sockets without a filter: 1: also frames that hold no IP packet (packet->ip is NULL) */
    /* Since ABI 1.2. Template of a stream socket, on ports that can send: 1: fragments wait for each other instead of passing one by one (those within tunnels excepted). The datagram goes
     * through its flow as one packet, which can be edited and dropped as any other, and leaves in fragments no larger than it came in. */
    SMOS_OPT_DATAGRAMS = 5
} smos_option_t;

enum smos_overlap { SMOS_OVERLAP_FIRST = 0, SMOS_OVERLAP_LAST = 1 }; /* further numbers: docs/anomalies.md, policies */

/* Bytes [start, end) of a stream; 0 is the byte after the SYN. */
typedef struct smos_range {
    uint64_t start, end;
} smos_range_t;

typedef struct smos_buffer_info {
    uint32_t init_seq;        /* sequence number of offset 0 */
    uint32_t out_of_order;    /* bytes that wait behind a hole */
    uint64_t history_start;   /* oldest byte still readable */
    uint64_t read;            /* this socket's cursor */
    uint64_t next;            /* the byte expected next: history ends here */
    uint64_t last;            /* after the highest byte buffered; next if nothing waits */
} smos_buffer_info_t;

/* Where an edit of the current packet counts its offset from. */
enum { SMOS_FROM_FRAME = 0, SMOS_FROM_IP = 1, SMOS_FROM_L4 = 2, SMOS_FROM_PAYLOAD = 3 };

/* A packet to be sent into a flow. Addresses, ports and link-layer headers are the flow's own. Zeroed members take the engine's choice. */
typedef struct smos_injection {
    uint8_t to;            /* SMOS_CLIENT or SMOS_SERVER: who receives it; it seems to come from the other end */
    uint8_t tcp_flags;
    uint8_t set_seq;       /* 1: seq and ack as given, in the numbers that the receiver knows; 0: what the emulated endpoints would send next */
    uint8_t reserved;
    uint16_t window;       /* as on the wire; 0: the last one that the apparent sender advertised */
    uint16_t urgent;
    uint32_t seq, ack;
    const void *payload;
    uint32_t length;
} smos_injection_t;

typedef struct smos_engine smos_engine_t; /* opaque; the worker that runs the module */

/* The engine's functions. `size` is sizeof(smos_api_t) of the engine: a module compiled against a newer header must
 * check that a function it uses lies below it (the loader does so for abi_minor). */
typedef struct smos_api {
    uint32_t size;
    uint16_t abi_major;
    uint16_t abi_minor;

    /* flow_info, drop, reset, stop and emit: -EPERM in init(), which runs beside the packet thread; -EINVAL without an engine, and stop and emit outside callbacks. */

    /* The flow as it is now. 0, -ESTALE, -EINVAL. */
    int (*flow_info)(smos_engine_t *, smos_flow_t, smos_flow_info_t *out);
    /* Drops the current packet: later middleboxes, the receiver's endpoint and the port do not see it; dropped at the SENDER hook, its bytes count
     * as never sent (they are new when they come again, and can be edited). In NEW_DATA it drops
     * the packet and every later copy of those bytes. 0, -EINVAL outside a packet. */
    int (*drop)(smos_engine_t *);
    /* Ends the flow: on an inline port a RST goes to both ends; everywhere the flow's later packets are dropped (inline)
     * and counted. CONN_END (reason rst) follows after the current packet. 0, -ESTALE. */
    int (*reset)(smos_engine_t *, smos_flow_t);
    /* This module gets no more events for `side` (SMOS_BOTH: none at all but CONN_END); 0 also where it gets none anyway. -ESTALE, -EINVAL. */
    int (*stop)(smos_engine_t *, smos_flow_t, int side);
    /* Publishes an event on topic "module.NAME.TOPIC" (UTF-8; what is none is replaced); `data` is UTF-8 text or bytes of up to 64 KiB, copied; a topic has 64 bytes at most. 0,
     * -EMSGSIZE, -EINVAL, -ENOBUFS when the queue is full (counted). */
    int (*emit)(smos_engine_t *, const char *topic, const void *data, size_t length);
    /* UTF-8; what is none is replaced, and a line is cut at 4,096 bytes. Never blocks; lines above the rate limit are counted and dropped. The first
     * 16 of init() are published when the module is committed. */
    void (*log)(smos_engine_t *, int level, const char *text);
    int64_t (*now_ns)(smos_engine_t *);
    /* Never NULL; "unknown" for what is not one. Static storage. */
    const char *(*anomaly_name)(uint32_t anomaly);
    const char *(*state_name)(uint32_t state);
    /* The value given with --set for a declared parameter, or its default. NULL if not declared. Valid until fini(). */
    const char *(*param)(smos_engine_t *, void *self, const char *name);
    /* Flows alive in this worker. */
    uint64_t (*flow_count)(smos_engine_t *);

    /* ---- since ABI 1.1. All return -EINVAL for a NULL or nonsense argument, -EBADF for a socket that is not this module's or was
     * closed, -ESTALE for a flow that is over, -ENOTCONN for a flow that the socket does not watch, -EPERM outside init() and
     * callbacks of the packet thread. last_error() says the last failure in words. ---- */

    /* One line about this module's last failed call, "" before; valid until the next. */
    const char *(*last_error)(smos_engine_t *);

    /* Makes a template socket at the end of this module's chain. -ENOSPC beyond 64 sockets in all modules. */
    int (*socket)(smos_engine_t *, int type, smos_sock_t *out);
    /* Which flows (or packets) it watches; pcap syntax over the innermost IP packet, NULL or "" for all. A flow is asked once, at its first
     * packet. For ORPHAN another filter may count: NULL the same, "" none. -EINVAL for a bad filter. */
    int (*bind)(smos_engine_t *, smos_sock_t, const char *filter, const char *orphan_filter);
    /* flow 0: closes the socket, now, even from its own callback; nothing of it is called any more. The module's own socket 0 goes with the
     * module: -EPERM. Else only leaves that flow, from its next event on. */
    int (*close)(smos_engine_t *, smos_sock_t, smos_flow_t flow);

    /* Calls `handler` at an event (smos_event or user-defined) of the template's future flows, or of one flow from its next event on. hook, side as in
     * smos_registration; 0 is the event's default hook. Handlers of one event are called in the order of their registration; registering the
     * very same again changes nothing. -ENOENT for an event that is not defined, -ENOSPC beyond 64 registrations on a socket or 1,000 calls in a chain. */
    int (*register_handler)(smos_engine_t *, smos_sock_t, smos_flow_t flow, uint32_t event, int hook, int side, smos_handler_t handler, void *arg);
    /* Undoes it, at every hook and side; handler NULL: every handler of that event, whatever its arg. -ENOENT if there was none. */
    int (*unregister_handler)(smos_engine_t *, smos_sock_t, smos_flow_t flow, uint32_t event, smos_handler_t handler, void *arg);

    /* A user-defined event: `parent` happened and predicate says so. `arg` (arg_size bytes, or NULL) is copied; equal definitions share one number.
     * -ENOENT unknown parent, -ENOSPC beyond 16,384 events. */
    int (*define_event)(smos_engine_t *, uint32_t parent, smos_predicate_t predicate, const void *arg, size_t arg_size, uint32_t *out);
    /* An event without a predicate of its own: one of several outcomes that the predicate of `parent` (user-defined) raises. */
    int (*alloc_event)(smos_engine_t *, uint32_t parent, uint32_t *out);
    /* Within the predicate of the event's parent: it happened. -EPERM elsewhere. */
    int (*raise_event)(smos_engine_t *, uint32_t event);
    /* As many times as it was defined: the event and those under it happen no more. */
    int (*remove_event)(smos_engine_t *, uint32_t event);

    /* -EINVAL for a side, option or value that there is not. */
    int (*set_option)(smos_engine_t *, smos_sock_t, smos_flow_t flow, int side, int option, uint64_t value);
    /* What counts now, the configuration's where nothing was set. Of one side. */
    int (*get_option)(smos_engine_t *, smos_sock_t, smos_flow_t flow, int side, int option, uint64_t *value);
    /* Copies the next unread in-order bytes of `side` and moves this socket's cursor over them. Returns their number, 0 if there are none.
     * Bytes that went unread (given up by the history, or never came) are stepped over and counted in *lost (may be NULL); with length 0
     * that is all that is done. Needs SMOS_OPT_HISTORY. */
    int64_t (*peek)(smos_engine_t *, smos_sock_t, smos_flow_t flow, int side, void *buffer, size_t length, uint64_t *lost);
    /* Copies bytes from `offset` on, out-of-order ones too, up to the first that is absent; moves nothing. -ENODATA if the first is. */
    int64_t (*peek_at)(smos_engine_t *, smos_sock_t, smos_flow_t flow, int side, void *buffer, size_t length, uint64_t offset);
    /* The contiguous stretches that can be read now, lowest first. Returns how many were written, at most `max`. */
    int (*buffered)(smos_engine_t *, smos_sock_t, smos_flow_t flow, int side, smos_range_t *ranges, int max);
    int (*buffer_info)(smos_engine_t *, smos_sock_t, smos_flow_t flow, int side, smos_buffer_info_t *out);
    /* As stop(), for one socket of the module. */
    int (*stop_socket)(smos_engine_t *, smos_sock_t, smos_flow_t flow, int side);

    /* A pointer of the module's for (socket, flow), call->context from then on; NULL to begin with. On the template: of the template. */
    int (*set_context)(smos_engine_t *, smos_sock_t, smos_flow_t flow, void *context);
    void *(*get_context)(smos_engine_t *, smos_sock_t, smos_flow_t flow); /* NULL also on error */
    /* The module's state_size bytes of a flow that one of its sockets watches; NULL otherwise. */
    void *(*state)(smos_engine_t *, smos_flow_t flow);

    /* Calls `handler` (call->event SMOS_TIMER, call->flow, call->arg) when packet time has come `delay_ns` further, then every period_ns if that is not 0.
     * Those due at the same time are called in the order in which they were set. A flow's timers end with it. *timer (may be NULL) is for cancel_timer. -ENOSPC beyond 1,048,576 timers. */
    int (*set_timer)(smos_engine_t *, smos_flow_t flow, int64_t delay_ns, int64_t period_ns, smos_handler_t handler, void *arg, uint64_t *timer);
    int (*cancel_timer)(smos_engine_t *, uint64_t timer); /* -ENOENT if it is over */
    /* Calls `handler` (call->event SMOS_BURST_END) after each burst of packets; NULL: no more. */
    int (*at_burst_end)(smos_engine_t *, smos_handler_t handler, void *arg);

    /* ---- The current packet, and new ones. Edits show in call->packet at once, for later middleboxes, streams and the port. Checksums and lengths
     * follow (a wrong checksum stays wrong where headers are overwritten: RFC 1624). -EPERM where there is no current packet (or it was handed to its receiver already, for insert and remove), -EMSGSIZE beyond what
     * a packet can hold, -EOPNOTSUPP for a fragment or a packet that was not captured whole. ---- */

    /* Overwrites bytes in place. -EINVAL beyond the packet, and where its headers would not be those of this packet any more (another length, protocol, no header). */
    int (*overwrite)(smos_engine_t *, int from, uint32_t offset, const void *data, uint32_t length);
    /* Puts bytes into the payload, or takes some out. In TCP the sequence and acknowledgement numbers, SACK blocks included, of both directions are
     * mended for the rest of the flow's life. At the SENDER hook only. Bytes that come again go out as they did the first time: an edit of
     * them has no effect (nor has overwrite() in the payload of TCP), and returns 0; the same holds for bytes that come late, behind others that
     * went out already: where that matters, drop what comes ahead of its turn. -ENOSPC beyond 65,536 edits or 4 MiB of text that a receiver has
     * not acknowledged, or 256 MiB in all flows. */
    int (*insert)(smos_engine_t *, uint32_t offset, const void *data, uint32_t length);
    int (*remove)(smos_engine_t *, uint32_t offset, uint32_t length);
    /* Sends a packet of our own. 0; -ENOTSUP where the port cannot send (captures without --write: counted, not sent). */
    int (*inject)(smos_engine_t *, smos_flow_t flow, const smos_injection_t *what);
    /* Which worker's flows this tuple belongs to, from 0: who translates addresses takes ports whose answers come to itself. -EINVAL. */
    int (*owner)(smos_engine_t *, const smos_tuple_t *);
    /* This worker's number; how many there are in *workers (may be NULL). */
    int (*worker)(smos_engine_t *, uint32_t *workers);

    /* ---- since ABI 1.2 ---- */

    /* In init(): a counter of the module's own, shown under its name with the module's statistics and added up over the workers. The module counts in it,
     * in the packet thread, until fini(); a name that was given before is the same counter. NULL beyond 32 of them, or for a name that is not [a-z0-9_]{1,31}. */
    uint64_t *(*counter)(smos_engine_t *, const char *name);
    /* In PKT_IN of a raw socket: the packet is one of the flow that has this name, whatever it says itself, and goes to that flow's owner; here it is no packet
     * of any flow. For answers from a place that a translation fixed, which no choice of a port can bring to their worker. 0, also where that is this worker; -ENOTSUP
     * where workers hand nothing over (captures). */
    int (*redirect)(smos_engine_t *, const smos_tuple_t *);
} smos_api_t;

typedef struct smos_param {
    const char *name;          /* NULL ends the list */
    const char *type;          /* "int", "float", "bool" or "str"; checked before init() */
    const char *default_value; /* text */
    const char *help;
} smos_param_t;

typedef struct smos_registration {
    uint8_t event;          /* smos_event; SMOS_EVENT_COUNT ends the list */
    uint8_t hook;           /* SMOS_SENDER, SMOS_RECEIVER, both or'd; 0: the event's own default (see docs/events.md) */
    uint8_t side;           /* SMOS_CLIENT, SMOS_SERVER, SMOS_BOTH */
    uint8_t reserved[5];
    smos_handler_t handler;
} smos_registration_t;

/* The manifest. All pointers are to static storage of the module. */
typedef struct smos_module {
    uint32_t magic;      /* SMOS_MODULE_MAGIC */
    uint16_t abi_major;  /* SMOS_ABI_MAJOR it was compiled with; must be the engine's */
    uint16_t abi_minor;  /* at most the engine's */
    const char *name;    /* [a-zA-Z0-9_-]{1,63} */
    const char *filter;  /* pcap syntax over the innermost IP packet; NULL or "" for all flows */
    uint32_t state_size; /* bytes of per-flow state, at most 4096 */
    uint32_t layout;     /* change it when the state's layout changes: equal (size, layout) keeps the state on a push */
    uint8_t fail_closed; /* 1: packets of its flows are dropped while it is broken */
    uint8_t reserved[7];
    const smos_param_t *params;               /* NULL if none */
    const smos_registration_t *registrations; /* ends with SMOS_EVENT_COUNT */
    /* Returns 0 and sets *self, or a negative errno with one line in `error`. Runs beside the packet thread. NULL: none. */
    int (*init)(smos_engine_t *, const smos_api_t *, void **self, char *error, size_t error_size);
    /* Frees what init() made; no callback is running and none follows. NULL: none. */
    void (*fini)(void *self);
    /* Fills a flow's new state from the old version's, when the layouts differ. NULL: the state starts zeroed. */
    void (*migrate)(void *self, const void *old_state, uint32_t old_size, uint32_t old_layout, void *new_state);
} smos_module_t;

/* Defines the manifest: SMOS_MODULE = { .name = "count", .registrations = handlers, ... }; magic and ABI are set by
 * SMOS_MODULE_HEADER as its first initializers. */
#define SMOS_MODULE_HEADER .magic = SMOS_MODULE_MAGIC, .abi_major = SMOS_ABI_MAJOR, .abi_minor = SMOS_ABI_MINOR
#define SMOS_MODULE __attribute__((visibility("default"))) const smos_module_t smos_module

#ifdef __cplusplus
}
#endif
#endif
