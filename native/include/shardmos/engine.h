/* engine.h: one shard as a library, for what embeds it (the Python binding, the C tests, the fuzzers).
 *
 * A shard is single-threaded: every function is called from the thread that runs it, but those marked (any thread).
 * Ownership: what a function returns by pointer belongs to the shard unless said otherwise. Errors: NULL or a negative errno,
 * with one line in `error` (SMOS_ERROR_SIZE bytes) that says what, where, and how to mend it.
 */
#ifndef SHARDMOS_ENGINE_H
#define SHARDMOS_ENGINE_H

#include "shardmos/shardmos.h"

#define SMOS_ERROR_SIZE 512
#define SMOS_MAX_MODULES 64

typedef struct smos_shard smos_shard_t;
typedef struct smos_box smos_box_t; /* a module, prepared or active */

#define SMOS_MAX_PREFIXES 64

/* A policy for a network. */
typedef struct smos_prefix_policy {
    uint8_t address[16]; /* as in smos_tuple: IPv4 as ::ffff:a.b.c.d */
    uint8_t bits;        /* of those 128 that count: an IPv4 prefix has 96 more than it says */
    uint8_t version;     /* 4 or 6 */
    uint8_t policy;
    uint8_t reserved[5];
} smos_prefix_policy_t;

/* compare_bytes, unless it is set: 16 KiB of the streams of flows whose ANOMALY a module listens to, or of all while anomalies are published, as long as half
 * of buffer_bytes is free. */
#define SMOS_COMPARE_HEARD UINT32_MAX

typedef struct smos_config {
    uint32_t size;           /* sizeof(smos_config_t), set by smos_config_default */
    uint32_t worker;         /* this shard among `workers` */
    uint32_t workers;
    uint32_t owner_seed;
    uint64_t max_flows;      /* slots of the flow arena */
    uint64_t buffer_bytes;   /* out-of-order bytes of the whole worker */
    uint32_t flow_buffer;    /* out-of-order bytes per direction of a flow */
    uint32_t flow_segments;  /* out-of-order segments per direction */
    uint64_t depth;          /* bytes delivered per direction, then the stream is left alone; 0 no limit */
    uint64_t defrag_bytes;
    uint8_t defrag_policy;   /* smos__defrag_policy */
    uint8_t overlap_policy;  /* smos__overlap */
    uint8_t urgent_policy;   /* 0 inline, 1 out-of-band, 2 drop */
    uint8_t midstream;       /* 0 track, 1 ignore */
    uint8_t checksums;       /* 0 verify, 1 ignore */
    uint8_t key;             /* 0 5tuple, 1 vlan */
    uint8_t live;            /* 1: established timeout applies */
    uint8_t records;         /* 1: collect smos_flow_info_t of ended flows */
    uint8_t detail;          /* SMOS_DETAIL_*: per-flow work that records or someone else asked for */
    uint8_t publish;         /* SMOS_PUBLISH_*: what goes into the event queue */
    uint8_t refuse;          /* SMOS_REFUSE_*: what an inline port does not pass on */
    uint8_t acked_gaps;      /* SMOS_GAPS_*: when a gap that the peer acknowledged is told, if nothing waits behind it */
    uint8_t flow_full;       /* SMOS_FULL_*: what happens when flow_buffer or flow_segments is reached */
    uint8_t worker_full;     /* likewise when buffer_bytes is */
    uint8_t table_full;      /* 0: evict the flow that is missed least; 1: refuse the new one */
    uint8_t adaptive;        /* per cent of max_flows from which on timeouts get shorter, half-open flows' first; 0 or from 100 on: never */
    int64_t timeout_syn_ns, timeout_established_ns, timeout_closed_ns, timeout_reset_ns, timeout_udp_ns, timeout_icmp_ns; /* 0 never */
    int64_t gap_ns;          /* packet time a hole may stay open while later data waits; 0 no limit */
    uint32_t gap_bytes;      /* out-of-order bytes behind a hole before it is given up; 0 no limit */
    uint32_t gap_segments;   /* likewise in segments */
    uint32_t compare_bytes;  /* delivered bytes of each stream that are kept for comparing later copies with them; 0: only the history that sockets ask for; SMOS_COMPARE_HEARD */
    int64_t max_jump_ns;     /* a larger step forward in time is an anomaly */
    /* Policies of the receiving host's network, the longest prefix first; else overlap_policy, defrag_policy. */
    smos_prefix_policy_t overlap_prefixes[SMOS_MAX_PREFIXES], defrag_prefixes[SMOS_MAX_PREFIXES];
    uint32_t overlap_prefix_count, defrag_prefix_count;
    uint64_t hash_key[4];    /* of the flow table; all zero: drawn from getrandom() */
    int stats_fd, state_fd, breadcrumb_fd; /* memfds to lay the segments out in (resized by the shard); -1: private memory */
} smos_config_t;

enum { SMOS_DETAIL_HISTORY = 1, SMOS_DETAIL_RTT = 2, SMOS_DETAIL_ANOMALIES = 4 };
enum { SMOS_GAPS_AUTO = 0 /* live at once, else with the next data */, SMOS_GAPS_AT_ONCE = 1, SMOS_GAPS_WITH_DATA = 2 };
enum {
    SMOS_FULL_SKIP = 0,   /* the oldest holes are given up until the segment fits */
    SMOS_FULL_REFUSE = 1, /* the segment is not kept: whoever sent it may have to say it again */
    SMOS_FULL_STOP = 2    /* the stream is left alone from there on, as beyond `depth` */
};
enum { SMOS_REFUSE_NOT_IP = 1, SMOS_REFUSE_MALFORMED = 2 /* or cut */ };
enum { SMOS_PUBLISH_FLOWS = 1, SMOS_PUBLISH_ANOMALIES = 2, SMOS_PUBLISH_MODULES = 4, SMOS_PUBLISH_LOG = 8 };

void smos_config_default(smos_config_t *config);
/* Sets max_flows and the buffer sizes so that all that the shard lays out stays within `bytes`: flows, table, queues, buffers, fragments, records, and
 * 1 MiB for subscriptions and timers. What modules allocate, and their state per flow, comes on top. -EINVAL if too small. */
int smos_config_memory(smos_config_t *config, uint64_t bytes);

smos_shard_t *smos_shard_create(const smos_config_t *config, char *error);
void smos_shard_destroy(smos_shard_t *);

/* Ports. A shard has one. Captures as in port.h: several paths are one sequence in time order; "-" standard input. */
typedef struct smos_replay_options {
    double rate;
    uint8_t loop, as_recorded, reader; /* reader: 0 auto, 1 libpcap, 2 mapped */
    uint8_t reserved[5];
} smos_replay_options_t;
int smos_shard_open_captures(smos_shard_t *, const char *const *paths, int count, const smos_replay_options_t *, char *error);
/* Linux packet sockets, opened, bound and configured by whoever has the right to (see shardmos/control/af_packet.py); they are mapped here,
 * and stay the caller's. Several passive ports may be added to a shard, or one pair. */
typedef struct smos_packet_port {
    int32_t fd[2];        /* fd[1] -1: a passive port with a TPACKET_V3 ring. Else a pair: TPACKET_V2, PACKET_VNET_HDR, PACKET_COPY_THRESH */
    uint32_t block_bytes, blocks, frame_bytes; /* as PACKET_RX_RING got them */
    uint32_t mtu;
    uint16_t linktype;    /* LINKTYPE_ value */
    uint8_t resumed;      /* 1: another process used the rings before */
    uint8_t fail_open;    /* pair: 1 a frame that ended two workers is passed on unseen, 0 dropped */
    char name[2][16];     /* of the interfaces, for messages */
} smos_packet_port_t;
int smos_shard_add_packet_port(smos_shard_t *, const smos_packet_port_t *, char *error);
/* Between runs: in the place of the port that was added as number `place`, whose interface was replaced. */
int smos_shard_replace_packet_port(smos_shard_t *, int place, const smos_packet_port_t *, char *error);
/* AF_XDP sockets (see shardmos/control/af_xdp.py) that share one UMEM, which memory_fd holds: `frames` frames, and behind them the ledger, by which a
 * process goes on where another was. They are mapped here and stay the caller's. sockets[1] is 0 for a passive port; else a pair whose second end has that many. */
#define SMOS_XSK_SOCKETS 64
typedef struct smos_xsk_port {
    int32_t memory_fd;             /* frames * frame_bytes, 4096 for the ledger's head, 4 for each frame (SMOS__XSK_* of it) */
    int32_t fd[SMOS_XSK_SOCKETS];  /* those of end 0, then those of end 1 */
    uint32_t sockets[2];
    uint32_t frames, frame_bytes;  /* as XDP_UMEM_REG got them; fewer than 2^24 */
    uint32_t ring;                 /* entries of each of a socket's four rings, a power of two */
    uint32_t mtu;
    uint8_t fail_open;             /* as smos_packet_port_t */
    uint8_t busy_poll;             /* 1: drive the device's queue from the worker */
    uint8_t reserved[2];
    char name[2][16];              /* of the interfaces, for messages */
} smos_xsk_port_t;
int smos_shard_add_xsk_port(smos_shard_t *, const smos_xsk_port_t *, char *error);
int smos_shard_replace_xsk_port(smos_shard_t *, int place, const smos_xsk_port_t *, char *error);
/* A port of `ends` ends without an interface, until that comes back: in the place of number `place`, or -1: one more. */
int smos_shard_set_away(smos_shard_t *, int place, int ends, char *error);
/* After the ports were added: rings from and to every other worker, arrays of `workers` memfds of equal size (at least 1 MiB and a page; whoever
 * comes first lays them out), and an eventfd for each worker, nonblocking. What is at this worker's own place is not looked at.
 * `scattered`: packets are known to come to any worker; each then waits, at most 200 ms, until all workers are as far as it. Without, that
 * begins with the first packet that is handed over. */
int smos_shard_set_handover(smos_shard_t *, const int *from, const int *to, const int *bells, int scattered, char *error);
/* A hand-over ring in the memory of fd (see smos_dealer). */
int smos_shard_open_ring(smos_shard_t *, int fd, char *error);
/* Writes what passes, edited and injected packets included, into a pcap file. After the port was opened, before the first run. */
int smos_shard_write(smos_shard_t *, const char *path, char *error);
/* After the end: all of it is in the file. 0; -EIO with one line in `error` where it could not be written. 0 also where nothing is. */
int smos_shard_write_end(smos_shard_t *, char *error);
/* Only packets that match go to the flows; the rest are counted. Before the first run. */
int smos_shard_set_filter(smos_shard_t *, const char *filter, char *error);

/* Runs until something needs the caller; returns SMOS_RUN_* bits. `max_ns` of host time bounds it. */
enum {
    SMOS_RUN_TIME = 1,     /* max_ns is over */
    SMOS_RUN_IDLE = 2,     /* nothing to receive now: wait (smos_shard_wait_ns) */
    SMOS_RUN_RECORDS = 4,  /* the record buffer is full (or a quarter full and idle): take them */
    SMOS_RUN_EVENTS = 8,   /* the event queue wants emptying */
    SMOS_RUN_END = 16,     /* the port has ended; call smos_shard_finish */
    SMOS_RUN_FAILED = 32,  /* the port failed: smos_shard_error; then as END */
    SMOS_RUN_INTERRUPTED = 64 /* smos_shard_interrupt was called */
};
uint32_t smos_shard_run(smos_shard_t *, int64_t max_ns);
/* As smos_shard_run, but where nothing is to be received it sleeps itself: until the port is ready, until one of `fds` is readable
 * (SMOS_RUN_INTERRUPTED), or for idle_ns (SMOS_RUN_IDLE). */
uint32_t smos_shard_run_waiting(smos_shard_t *, int64_t max_ns, int64_t idle_ns, const int *fds, int count);
int64_t smos_shard_wait_ns(const smos_shard_t *); /* after IDLE: how long to sleep, or -1 for until smos_shard_fd is ready */
int smos_shard_fd(const smos_shard_t *);
const char *smos_shard_error(const smos_shard_t *);
void smos_shard_interrupt(smos_shard_t *); /* (any thread, signal-safe) makes a running smos_shard_run return soon */

/* Ends open flows with `reason` (SMOS_END_CAPTURE, SMOS_END_STOPPED), a bounded number per call. Returns SMOS_RUN_RECORDS/EVENTS
 * bits while there are more, SMOS_RUN_END when none is left. Beyond `report_limit` flows end without record or event, counted (0: no limit). */
uint32_t smos_shard_finish(smos_shard_t *, uint32_t reason, uint64_t report_limit);

/* Records of ended flows: a contiguous array; taking empties it (the array stays valid until the next run or finish). */
uint64_t smos_shard_take_records(smos_shard_t *, const smos_flow_info_t **records);
/* Published events: a msgpack array of event maps (docs/protocol.md); 0 if none. Valid until the next run or finish. */
uint64_t smos_shard_take_events(smos_shard_t *, const uint8_t **msgpack);
/* Switches SMOS_PUBLISH_* bits at run time. */
void smos_shard_set_publish(smos_shard_t *, uint32_t publish);
/* 1: every packet is dropped, and counted as drop_resting, before any flow sees it; what belongs to another worker goes to that one. 0 again: as before. */
void smos_shard_set_closed(smos_shard_t *, int closed);

/* ---- Modules ---- */

/* PREPARE, (any thread): a C module from a shared object. fd is of a sealed memfd or a file; `path` is for messages only. Params are
 * "key=value" strings. Loads, checks magic, ABI, name, events, filter and parameters, runs init. NULL: refused, `error` says why. */
smos_box_t *smos_box_load(smos_shard_t *, int fd, const char *path, const char *version, const char *const *params, int count, char *error);
/* PREPARE, (any thread): a module whose handlers are the embedder's (Python classes). `manifest` is copied, its strings too;
 * `self` is passed to every handler. release(self) is called when the box is freed. */
smos_box_t *smos_box_create(smos_shard_t *, const smos_module_t *manifest, const char *version, void *self, void (*release)(void *), char *error);
/* Frees a prepared box that was never committed (any thread), or was removed. */
void smos_box_free(smos_box_t *);
const char *smos_box_name(const smos_box_t *);
/* A handler failed (raised): counted against the module. */
void smos_box_count_error(smos_box_t *);

/* COMMIT, between runs: adds the box at the chain's end, or puts it in the place of the active one of its name. The replaced box is
 * returned in *old (freed by the caller once smos_box_idle says so), NULL if none. -ENOSPC beyond SMOS_MAX_MODULES. Cost is independent
 * of the number of flows: each flow takes its new subscriptions at its next packet. */
int smos_shard_commit(smos_shard_t *, smos_box_t *box, smos_box_t **old);
/* Takes the module of that name out; -ENOENT. Its per-flow state is gone. */
int smos_shard_remove(smos_shard_t *, const char *name, smos_box_t **old);
int smos_box_idle(const smos_box_t *);

/* Functions for embedders' handlers; the same that modules get. */
const smos_api_t *smos_shard_api(void);
smos_engine_t *smos_shard_engine(smos_shard_t *);
/* The following calls of the table by this thread are the box's, as if from one of its handlers (NULL: nobody's); returns whose they were. For
 * an active box between runs. (any thread) for one that was not committed yet, which may set up its sockets, but not touch flows. */
smos_box_t *smos_shard_use(smos_shard_t *, smos_box_t *);
uint32_t smos_shard_flow_limit(const smos_shard_t *); /* slots; a flow's index is below it */

/* Called by smos_shard_run before the first handler call of a box with `self` hooks in a burst, and at the burst's end (for the GIL). */
void smos_shard_set_bracket(smos_shard_t *, void (*enter)(void *), void (*leave)(void *), void *arg);

/* ---- Stats segment ---- */

/* Single writer; a reader copies everything between two equal, even values of `sequence`. All counters are uint64_t and only grow,
 * unless their name ends in "_now". Offsets are in bytes from the segment's start. */
typedef struct smos_stats_header {
    uint8_t magic[8]; /* "SMOSSTAT" */
    uint32_t version; /* 2 */
    uint32_t bytes;   /* of the segment */
    uint64_t sequence; /* odd while the writer changes anything */
    uint32_t counters, counters_offset; /* number; uint64_t[counters] */
    uint32_t names_offset, names_bytes; /* counters names, each NUL-terminated, in order */
    uint32_t modules, modules_offset;   /* SMOS_MAX_MODULES; smos_stats_module_t[modules], empty name: free */
    uint64_t heartbeat;                 /* grows with every burst and idle turn */
} smos_stats_header_t;

#define SMOS_MODULE_COUNTERS 32

typedef struct smos_module_counter {
    char name[32]; /* "" ends the list */
    uint64_t value;
} smos_module_counter_t;

typedef struct smos_stats_module {
    char name[64];
    char version[72];
    uint64_t calls, errors, cycles, drops, resets, emitted, flows_now;
    uint64_t event_calls[16]; /* by smos_event; 15: timers and ends of bursts. calls is their sum */
    uint64_t commit_ns; /* pause of its last commit */
    smos_module_counter_t counters[SMOS_MODULE_COUNTERS]; /* its own */
} smos_stats_module_t;

/* The shard's own view of its segment (for embedders without a memfd). */
const smos_stats_header_t *smos_shard_stats(const smos_shard_t *);

/* What the worker is doing now, for whoever finds it dead. */
typedef struct smos_breadcrumb {
    uint8_t magic[8]; /* "SMOSCRMB" */
    uint32_t version; /* 1 */
    uint32_t module;  /* slot + 1 of the module whose handler runs, 0 none */
    uint64_t flow;
    uint64_t packet;  /* number at the port */
    uint64_t heartbeat;
    char module_name[64];
} smos_breadcrumb_t;

/* ---- Dealing out what cannot be mapped ---- */

/* Reads captures once and copies each frame to the rings of the workers that own a layer of it (fragments go to all). `fds` are
 * memfds, one per worker; smos_dealer_open sizes them. */
typedef struct smos_dealer smos_dealer_t;
smos_dealer_t *smos_dealer_open(const char *const *paths, int count, const smos_replay_options_t *, const int *fds, int workers, uint32_t owner_seed, uint32_t ring_bytes, char *error);
/* Deals for at most max_ns; waits when a ring is full (nothing is lost). SMOS_RUN_TIME, SMOS_RUN_END or SMOS_RUN_FAILED. */
uint32_t smos_dealer_run(smos_dealer_t *, int64_t max_ns);
const char *smos_dealer_error(const smos_dealer_t *);
void smos_dealer_close(smos_dealer_t *);

/* ---- Giving up rights: what a worker process does before its first packet ---- */

/* Drops every capability of the calling thread but that those in `keep` (1 << CAP_*) stay permitted and effective; empties the bounding set where it may; sets
 * no_new_privs. Threads that it makes afterwards have no more; those made before keep theirs. 0 or -errno. */
int smos_confine_capabilities(uint64_t keep);
/* no_new_privs, and a seccomp filter on all threads of the process (confine/calls.c says what it denies, with EPERM). 0; -ENOTSUP for another processor
 * than x86-64 and aarch64; -ENOSYS or -EINVAL where the kernel has no seccomp filters; another -errno. */
int smos_confine_calls(void);

const char *smos_version(void);
const char *smos_anomaly_name(uint32_t anomaly);
uint32_t smos_anomaly_count(void);

#endif
