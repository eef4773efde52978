/* port.h: a source of packets, and where it is inline a sink too, a burst at a time. One file per kind of port. */
#ifndef SMOS__PORT_H
#define SMOS__PORT_H

#include <stddef.h>

#include "wire/packet.h"

#define SMOS__BURST 64
#define SMOS__PORT_ERROR 256

enum { SMOS__PORT_END = -1, SMOS__PORT_FAILED = -2 };

typedef struct smos__port_stats {
    uint64_t packets;       /* delivered by receive */
    uint64_t bytes;         /* on the wire */
    uint64_t dropped;       /* lost before receive, as the source tells it (ring full) */
    uint64_t time_backward; /* timestamps earlier than the packet before */
    uint64_t unordered;     /* delivered before all others that may have older ones had said how far they are */
    uint64_t outgoing;      /* of the packets: sent by this host itself */
    uint64_t segments;      /* what super packets (GRO, TSO) would have been on the wire, beyond one each */
    /* Inline ports. What forward got is counted in exactly one of forwarded and lost_*, what send got likewise in sent and unsent. */
    uint64_t forwarded, forwarded_bytes; /* out of the other end */
    uint64_t sent, sent_bytes;           /* of our own */
    uint64_t lost_full;                  /* no room to transmit */
    uint64_t lost_refused;               /* the device would not have it: link down, gone */
    uint64_t lost_size;                  /* larger than the other end's MTU */
    uint64_t unsent;                     /* frames of our own, for any of these reasons */
    uint64_t completed;                  /* checksums that a sending host had left to its device */
    uint64_t poison;                     /* frames that ended a worker and were let go by the next */
} smos__port_stats_t;

typedef struct smos__port smos__port_t;

/* A port owns the memory of the frames it delivers: they stay valid until the next receive or close; on an inline port until
 * forward or drop. */
struct smos__port {
    /* Up to `max` frames into burst. Returns their number; 0 if there is nothing now (see wait_ns); SMOS__PORT_END after the
     * last; SMOS__PORT_FAILED with `error` set (frames before the failure were delivered by earlier calls). */
    int (*receive)(smos__port_t *, smos__frame_t *burst, int max);
    void (*close)(smos__port_t *); /* frees the port */
    /* NULL, or called when there was nothing to receive and `fd` is going to be waited for: has it told. 1: something came after all. */
    int (*arm)(smos__port_t *);
    void (*want_clock)(smos__port_t *, int64_t until_ns); /* a ring of another worker's, who is to say how far it is; NULL elsewhere */
    int64_t clear_ns;              /* after a 0: everything that came before this time was delivered; 0 unknown */
    /* Inline ports only, NULL elsewhere. After a burst was received each of its frames meets exactly one of forward and drop, in order,
     * before the next receive. */
    void (*forward)(smos__port_t *, smos__frame_t *); /* out of the other end as it stands; the port may move the descriptor instead of copying */
    void (*drop)(smos__port_t *, smos__frame_t *);    /* back to the ring */
    /* A frame of ours (an edited packet, an injected one) out of `end`; copied, with the offload state of `like` (NULL: none, and
     * checksums whole). 0; -ENOBUFS or -EMSGSIZE (counted). */
    int (*send)(smos__port_t *, int end, const uint8_t *data, uint32_t length, const smos__frame_t *like);
    void (*flush)(smos__port_t *); /* the end of a burst: what is queued goes out */
    int ends;                      /* 2: a pair; 0 and 1 alike: one */
    int fd;                        /* to poll() when receive gave 0; -1: none */
    int64_t wait_ns;               /* after a 0: how long until it is worth asking again (pacing); 0 unknown */
    bool blocked;                  /* after a 0: it has frames, whose turn comes with what others have */
    uint64_t epoch;                /* grows by one each time a replay starts over: flows of the last round end */
    int64_t now_ns;                /* the clock of a dealt port (the latest time of the capture so far, other workers' packets included)
                                    * or of a live one whose ring is empty (the host's); 0 unknown */
    /* What the next receive walks over and is not in the cache yet: from *ahead to ahead_end. Who processes a burst fetches it meanwhile and
     * moves *ahead on; what it leaves, the walk fetches itself. ahead is NULL where nothing needs it. */
    const uint8_t **ahead;
    const uint8_t *ahead_end;
    smos__port_stats_t stats;
    char error[SMOS__PORT_ERROR];  /* one line, names the file and what is wrong with it */
};

/* Which reader: AUTO maps plain pcap files and takes libpcap for the rest. */
typedef enum smos__reader { SMOS__READER_AUTO, SMOS__READER_PCAP, SMOS__READER_MAPPED } smos__reader_t;

typedef struct smos__replay {
    int loop;         /* start over at the end, times shifted on so that they never go back */
    double rate;      /* packets per second, 0 as fast as possible */
    int as_recorded;  /* keep the capture's own distances in time */
    int reader;       /* smos__reader */
} smos__replay_t;

/* Opens captures as one sequence in time order (k-way merge; within one file the file's order is kept). "-" is standard
 * input. pcap of either byte order, micro- or nanoseconds, pcapng (several interfaces, resolutions, link types), gzip and
 * zstd around either, told by content, not by name. NULL with one line in `error` (at least SMOS__PORT_ERROR bytes). */
smos__port_t *smos__port_open_captures(const char *const *paths, int count, const smos__replay_t *replay, char *error);

/* A port over `inner`, which it owns from now on, that writes what passes into a capture file (nanosecond pcap): what a pair would have forwarded, as it
 * was edited, and what was sent. NULL with one line in `error`; inner is as before then. */
smos__port_t *smos__port_open_write(smos__port_t *inner, const char *path, char *error);

/* All that went to it so far is in the file: 0; -EIO with one line in `error`. 0 also of any other port. */
int smos__port_write_end(smos__port_t *, char *error);

/* Hand-over ring: one producer, one consumer, in shared memory (a memfd both map). smos__ring_push copies a frame in; a port
 * over the ring delivers it without a further copy. A smos__ring_t is one side's private handle, the memory stays its owner's:
 * the producer frees its handle, the consumer's port takes the handle and frees it with close. */
typedef struct smos__ring smos__ring_t;
size_t smos__ring_bytes(uint32_t data_bytes);
smos__ring_t *smos__ring_init(void *memory, uint32_t data_bytes); /* by the producer, once; NULL: out of memory */
smos__ring_t *smos__ring_attach(void *memory, size_t bytes);      /* by the consumer; NULL if it is no ring */
int smos__ring_push(smos__ring_t *, const smos__frame_t *);       /* 1 pushed, 0 full (counted) */
void smos__ring_end(smos__ring_t *, const char *error);           /* no more will come; error or NULL */
void smos__ring_free(smos__ring_t *);
smos__port_t *smos__port_open_ring(smos__ring_t *, char *error);

#endif
