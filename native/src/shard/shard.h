/* shard.h: one worker's packet loop and everything it owns. Files: shard.c (life and loop), live.c (ports that wait), process.c (a burst's way), frame.c (a frame and
 * its layers), layer.c (a packet's way through its flow), sinks.c (what its streams give), raise.c (what handlers are told), flows.c (making and ending flows), icmp.c (errors about flows), segments.c (stats and breadcrumb), api.c (what modules call), config.c (defaults), dealer.c (hand-over). */
#ifndef SMOS__SHARD_H
#define SMOS__SHARD_H

#include <stdatomic.h>

#include "event/anomaly.h"
#include "event/events.h"
#include "event/outbox.h"
#include "flow/arena.h"
#include "flow/table.h"
#include "flow/queue.h"
#include "port/filter.h"
#include "port/port.h"
#include "shard/edits.h"
#include "shardmos/engine.h"
#include "socket/history.h"
#include "socket/timers.h"
#include "tcp/tcp.h"
#include "wire/decode.h"
#include "wire/defrag.h"
#include "wire/owner.h"

typedef enum smos__counter {
#define SMOS__COUNTER(id, name) SMOS__C_##id,
#include "shard/counters.def"
#undef SMOS__COUNTER
    SMOS__C_FIXED,
    SMOS__C_COUNT = SMOS__C_FIXED + SMOS__ANOMALY_COUNT /* then one per anomaly, "anomaly.NAME" */
} smos__counter_t;

typedef struct smos__region {
    void *memory; /* mapped */
    size_t bytes;
} smos__region_t;

/* What becomes of a frame on an inline port. */
typedef enum smos__verdict {
    SMOS__PASS,     /* out of the other end as it came */
    SMOS__DROP      /* counted by whoever said so */
} smos__verdict_t;

#define SMOS__NEVER INT64_MAX
#define SMOS__DECODED 32 /* packets between decoding and processing, and some */

/* A SYN inside a connection that has not ended: reuse.c. */
typedef struct smos__late_syn {
    smos_flow_t flow; /* that it was counted with; 0: none */
    int64_t time_ns;  /* of the first copy */
    uint64_t payload_bytes, wire_bytes; /* of all copies */
    uint32_t packets;
    uint8_t from;
    smos__layer_t layer; /* without its bytes */
} smos__late_syn_t;

#define SMOS__LATE_SYNS 16

struct smos_shard {
    union {
        smos__events_t events;
        struct {
            uint8_t before_now[offsetof(smos__events_t, call.time_ns)];
            int64_t now_ns; /* packet time, which never goes back: where handlers see it */
        };
    };
    smos_config_t config;
    smos__arena_t arena;
    smos__table_t table;
    smos__queue_t unconfirmed; /* flows that are given up first, oldest first */
    uint32_t expire_hand;      /* slot that is looked at next for a flow whose time is over */
    int64_t expire_ns;         /* packet time up to which slots were looked at */
    smos__timers_t timers;
    smos__history_t history;
    smos__edits_t edits;
    smos__outbox_t outbox;
    smos__tcp_config_t tcp;
    smos__tcp_t under;              /* the packet's flow for tcp/; what is the same for all flows is set once */
    int64_t timeout[SMOS__CLASSES]; /* SMOS__NEVER: none */
    uint32_t evict_hand;

    smos__port_t *port;
    struct smos__handovers *handover; /* to other workers; NULL: there is none, packets are this worker's or nobody's business */
    smos__filter_t *filter;
    smos__defrag_t *defrag;
    uint64_t round;     /* of the port's epoch */
    bool draining;      /* the flows of the last round are being ended; `pending` frames wait */
    int pending;
    bool ended;
    bool bulk;          /* every flow is being ended: the table is emptied as a whole afterwards */
    uint32_t finish_at; /* next slot of smos_shard_finish */
    uint64_t finish_reported;
    smos__frame_t frames[SMOS__BURST];
    smos__decoded_t decoded[SMOS__DECODED];
    uint32_t hashes[SMOS__BURST];
    const smos__bucket_t *buckets[SMOS__BURST]; /* of the hashes */
    uint32_t hints[SMOS__BURST]; /* where the flow probably is */
    uint8_t whose[SMOS__BURST];  /* as process.c has it */
    uint32_t owner_begun;        /* smos__owner_begin4 */

    /* the packet under the hand */
    bool closed; /* nothing passes: the modules that would judge it rest */
    bool plain; /* no filter, not closed */
    uint32_t unchecked; /* SMOS__FRAME_NO_CHECKSUM: of every frame */
    uint8_t need_cold;  /* TCP flags of packets that look into the cold record */
    bool inline_; /* the port forwards: each frame is settled after its layers */
    bool datagrams; /* fragments wait for each other */
    smos__verdict_t verdict;
    const smos__frame_t *frame;
    smos__layer_t *layer; /* its packet is what handlers see */
    bool can_send;      /* the port sends packets of our own */
    uint32_t sent_before; /* the sender's highest number before this packet (TCP) */
    bool in_raw, redirected; /* PKT_IN of raw sockets is under way; it goes to the owner of `redirect` */
    smos_tuple_t redirect;
    bool nested;        /* it lies in a tunnel, or has one in it */
    uint32_t flow;      /* its flow, SMOS__NO_FLOW outside */
    int64_t anomaly_second; /* event rate limit */
    uint32_t anomaly_budget;
    uint32_t log_budget;

    smos__late_syn_t late_syns[SMOS__LATE_SYNS];
    uint32_t late_syn_next;
    smos__refused_t refused;

    smos_flow_info_t *records, *records_taken; /* double buffer */
    uint32_t record_count;
    bool collect;       /* records are wanted */

    uint64_t counters[SMOS__C_COUNT];
    smos_stats_header_t *stats;
    uint32_t since_publish;
    atomic_int interrupted;
    char error[SMOS_ERROR_SIZE];
    smos__region_t state_region, table_region, stats_region, defrag_region, ring_region, queue_region;
};

#define SMOS__OUTBOX_BYTES (1u << 20)
#define SMOS__RECORDS 4096
#define SMOS__RECORDS_WANT_TAKING 512 /* few, so that they are still in the cache where they are taken; leaves room for all that one burst and its timers can end */

#define SMOS__COUNT(shard, id) ((shard)->counters[SMOS__C_##id]++)
#define SMOS__ADD(shard, id, n) ((shard)->counters[SMOS__C_##id] += (uint64_t)(n))

/* The packet is under the hand: `from` of the flow sent it. */
static inline void smos__take_packet(smos_shard_t *s, uint32_t flow, const smos__flow_t *f, const smos__frame_t *frame, smos__layer_t *l, int from)
{
    s->flow = flow;
    s->events.call.tuple = &f->tuple;
    s->frame = frame;
    s->layer = l;
    l->from = (uint8_t)from;
    l->packet.number = s->events.crumb.packet = frame->number;
    s->events.in_packet = true;
    s->events.dropped = false;
}

static inline void smos__leave_packet(smos_shard_t *s)
{
    s->events.in_packet = false;
    s->events.call.packet = NULL;
    s->flow = SMOS__NO_FLOW;
}

/* process.c */
void smos__process_burst(smos_shard_t *, int frames);

/* frame.c */
void smos__process_frame(smos_shard_t *, smos__frame_t *, smos__decoded_t *, uint32_t first_hash, uint32_t hint);
/* The frame goes no further into the shard, for a reason that is a drop_ counter: that, or its passed_ counter on an inline port. */
smos__counter_t smos__unfollowed(smos_shard_t *, smos__counter_t why);
static inline const smos__frame_t *smos__as_edited(const smos_shard_t *s, const smos__frame_t *frame) { return s->edits.active ? &s->edits.frame : frame; }

/* layer.c: one layer through its flow; not `readable`: its transport header is cut or lies, it is only counted. Returns the counter under which its
 * frame goes if it is the innermost. */
smos__counter_t smos__process_layer(smos_shard_t *, const smos__frame_t *, smos__layer_t *, uint32_t hash, uint32_t hint, bool readable);
/* The short way of a readable layer, which is smos__tcp_usual, of that flow, if it is: the next bytes or an acknowledgement of an established connection, and nothing unusual.
 * False: nothing was changed. */
bool smos__process_plain(smos_shard_t *, const smos__frame_t *, smos__layer_t *, uint32_t flow);

/* sinks.c */
extern const smos__tcp_sink_t smos__shard_sink;
void smos__sink_data(void *shard, int receiver, const uint8_t *data, uint32_t length, uint64_t offset); /* its `data` */

/* raise.c */
/* What the layer's packet says of the frame, brought up to date. */
void smos__show_frame(smos_shard_t *);
void smos__anomaly_raise(smos_shard_t *, uint32_t flow, uint32_t anomaly);
void smos__conflict_raise(smos_shard_t *, uint32_t flow, uint32_t anomaly, const smos__conflict_t *); /* the same, with both versions of the bytes */

/* Raising costs a look into the flow's set where nobody wants the event. `what` packs event, side and hook as in smos_call_t. */
#define SMOS__WHAT(event, side, hook) ((uint32_t)(event) | (uint32_t)(side) << 8 | (uint32_t)(hook) << 16)
void smos__raise_wanted(smos_shard_t *, smos__set_t *, size_t event, uint32_t what);
void smos__raise_detail_wanted(smos_shard_t *, smos__set_t *, uint32_t flow, uint32_t what, uint32_t detail);
void smos__raise_bytes_wanted(smos_shard_t *, smos__set_t *, uint32_t flow, uint32_t what, const uint8_t *data, uint64_t length, uint64_t offset, uint32_t detail);

static inline smos__set_t *smos__set_of(const smos_shard_t *s, const smos__flow_t *f) { return &s->events.sets.set[f->set]; }

/* The flow's set, which is that one, if somebody wants the event; counts it. */
static inline smos__set_t *smos__raised_in(smos_shard_t *s, smos__set_t *set, smos_event_t event, int side, int hook)
{
    s->counters[SMOS__C_event_pkt_in + event]++;
    return set->mask[hook][side] & SMOS_BIT(event) ? set : NULL;
}

static inline smos__set_t *smos__raised(smos_shard_t *s, const smos__flow_t *f, smos_event_t event, int side, int hook) { return smos__raised_in(s, smos__set_of(s, f), event, side, hook); }

/* Of the flow under the hand, by its packet. Nobody behind who dropped it sees it, at no later event either. */
static inline void smos__raise(smos_shard_t *s, uint32_t flow, smos_event_t event, int side, int hook)
{
    smos__set_t *set = smos__raised(s, &s->arena.hot[flow], event, side, hook);
    if (__builtin_expect(set != NULL, 0) && !s->events.dropped) smos__raise_wanted(s, set, event, SMOS__WHAT(event, side, hook));
}

static inline void smos__raise_detail(smos_shard_t *s, uint32_t flow, smos_event_t event, int side, int hook, uint32_t detail)
{
    smos__set_t *set = smos__raised(s, &s->arena.hot[flow], event, side, hook);
    if (__builtin_expect(set != NULL, 0)) smos__raise_detail_wanted(s, set, flow, SMOS__WHAT(event, side, hook), detail);
}

static inline void smos__raise_bytes(smos_shard_t *s, uint32_t flow, smos_event_t event, int side, int hook, const uint8_t *data, uint64_t length, uint64_t offset, uint32_t detail)
{
    smos__set_t *set = smos__raised(s, &s->arena.hot[flow], event, side, hook);
    if (__builtin_expect(set != NULL, 1)) smos__raise_bytes_wanted(s, set, flow, SMOS__WHAT(event, side, hook), data, length, offset, detail);
}

/* api_timers.c: calls the timers that packet time has come to. */
void smos__timers_run(smos_shard_t *);
void smos__timers_arm(smos_shard_t *, smos_box_t *); /* those that its init() set */

/* The clock follows the packets, and never goes back. */
static inline void smos__advance_time(smos_shard_t *s, int64_t time_ns)
{
    if (__builtin_expect(time_ns <= s->now_ns, 0)) return;
    if (__builtin_expect(!s->now_ns, 0)) {
        s->expire_ns = time_ns;
        smos__timers_shift(&s->timers, time_ns);
    } else if (__builtin_expect(time_ns - s->now_ns > s->config.max_jump_ns, 0)) {
        smos__anomaly_raise(s, SMOS__NO_FLOW, SMOS__ANOMALY_TIME_JUMP);
    }
    s->now_ns = time_ns;
    if (__builtin_expect(s->timers.next_ns <= time_ns, 0)) smos__timers_run(s);
}

/* api.c: what its init() had to say. */
void smos__log_lines(smos_shard_t *, smos_box_t *);

/* flows.c */
uint32_t smos__flow_make(smos_shard_t *, const smos__layer_t *, uint32_t hash, int64_t time_ns, int from, smos__class_t class_);
void smos__flow_end(smos_shard_t *, uint32_t flow, smos_end_reason_t reason, bool report);
void smos__flow_info(const smos_shard_t *, uint32_t flow, smos_flow_info_t *out);
void smos__flow_expire(smos_shard_t *);
static inline bool smos__flow_expired(const smos_shard_t *s, const smos__flow_t *f, int64_t now_ns)
{
    return now_ns - f->last_ns > s->timeout[f->class_];
}

/* reuse.c: a SYN with another number, inside a connection that has not ended, is noted; what acknowledges it, when it comes, begins another flow with it. */
void smos__reuse_note(smos_shard_t *, uint32_t flow, const smos__layer_t *, int from);
const smos__late_syn_t *smos__reuse_answered(smos_shard_t *, uint32_t flow, const smos__layer_t *, int from); /* NULL: that is not what it is */
void smos__reuse_begin(smos_shard_t *, uint32_t flow, const smos__late_syn_t *);

/* handover.c: packets that came to the wrong worker. */
void smos__handover_decode(smos_shard_t *, smos__frame_t *, smos__decoded_t *); /* as smos__decode; fragments only at their home */
/* Gives the frame to whoever owns a layer of it. True: it is this worker's to count and to pass on. Leaves in the decoded what is to be done here. */
bool smos__handover_route(smos_shard_t *, smos__frame_t *, smos__decoded_t *);
/* The frame, as it stands, goes to the owner of that tuple, who counts it; where there is no room, this worker does. */
void smos__handover_give(smos_shard_t *, const smos_tuple_t *, const smos__frame_t *, uint32_t flags);
void smos__handover_flush(smos_shard_t *); /* end of a burst: rings the bells of those who sleep */
bool smos__handover_is_hot(const smos_shard_t *); /* others wait for our clock: an idle worker looks up often */
void smos__handover_close(smos_shard_t *);

/* datagrams.c: datagrams that pass as one packet, where a module wants them so. */
bool smos__datagram_waits(const smos__frame_t *, const smos__decoded_t *); /* a fragment for others, which does not pass by itself */
/* Of the decoded last fragment, with its datagram put together: the frame is the datagram from here on. */
void smos__datagram_whole(const smos_shard_t *, smos__frame_t *, smos__decoded_t *);
void smos__datagram_send(smos_shard_t *, int end, const smos__frame_t *); /* in fragments, as it came */

/* live.c: gives the shard one port more, which it owns from then on, also on failure. 0 or a negative errno with one line in error. */
int smos__shard_add_port(smos_shard_t *, smos__port_t *, char *error);
/* Puts a port in the place of the one that was added as number `place`, which is closed; its counts go on. As above. */
int smos__shard_replace_port(smos_shard_t *, int place, smos__port_t *, char *error);

/* icmp.c: what an ICMP error tells the flow that it quotes, if that is this shard's. */
void smos__icmp_error(smos_shard_t *, const smos__frame_t *, smos__layer_t *, const smos_tuple_t *quoted);
/* config.c */
void smos__defrag_config(const smos_config_t *, smos__defrag_config_t *out); /* but for its key */
uint64_t smos__shard_bytes(const smos_config_t *); /* all that a shard of this configuration maps and allocates when it is made, but for its sets */

/* segments.c */
static inline size_t smos__region_bytes(size_t bytes) { return (bytes + 4095) & ~(size_t)4095; }
size_t smos__stats_bytes(void);
int smos__region_map(smos__region_t *, int fd, size_t bytes);
void smos__region_huge(smos__region_t *); /* of large pages, where the host offers them: fewer faults and TLB misses, for what is used all over */
void smos__region_unmap(smos__region_t *);
int smos__segments_open(smos_shard_t *);
void smos__stats_publish(smos_shard_t *);

#endif
