/* packet.h: a captured frame, and the flow-bearing layers that decoding finds in it.
 *
 * wire/ is pure: no I/O, no globals, no allocation (defrag.c works in memory that its caller gives it). Nothing is read
 * beyond frame->data + frame->caplen.
 */
#ifndef SMOS__PACKET_H
#define SMOS__PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shardmos/shardmos.h"

#define SMOS__MAX_LAYERS 4    /* IP packets in one frame that belong to flows; deeper ones are an anomaly */
#define SMOS__MAX_ANOMALIES 6 /* per layer; more are only counted */

/* What the host left for a device to do, in the words of virtio's network header (virtio 1.2, 5.1.6); all zero: nothing. A partial
 * checksum covers the bytes from csum_start on and belongs csum_offset behind that; gso_size cuts a packet that is larger than the MTU. */
typedef struct smos__offload {
    uint8_t flags;    /* SMOS__OFFLOAD_* */
    uint8_t gso_type; /* VIRTIO_NET_HDR_GSO_*, 0 none */
    uint16_t hdr_len, gso_size;
    uint16_t csum_start, csum_offset; /* bytes, from the frame's start */
} smos__offload_t;

enum { SMOS__OFFLOAD_PARTIAL = 1, SMOS__OFFLOAD_VALID = 2 }; /* VIRTIO_NET_HDR_F_NEEDS_CSUM, _DATA_VALID */

/* As a port delivers it. Not owned; valid until the port's next receive. */
typedef struct smos__frame {
    const uint8_t *data;
    uint32_t caplen;
    uint32_t len;      /* on the wire; >= caplen (the port clamps) */
    int64_t time_ns;
    uint64_t number;   /* at its port, from 1 */
    uint16_t linktype; /* LINKTYPE_ value as in capture files; live Ethernet is 1 */
    uint16_t port;
    uint32_t flags;    /* SMOS__FRAME_* */
    uint8_t end;       /* of its port: a pair has ends 0 and 1; 0 elsewhere */
    smos__offload_t offload;
    uint32_t token;    /* the port's own: where the frame lies */
} smos__frame_t;

enum {
    SMOS__FRAME_NO_CHECKSUM = 1, /* do not verify checksums (offloaded or told to ignore) */
    SMOS__FRAME_HANDED = 2,      /* came from another worker, not from a device: the memory is not the port's */
    SMOS__FRAME_COPY = 4,        /* handed: somebody else counts it and passes it on */
    SMOS__FRAME_ROUTED = 16,     /* others have what is theirs of it; with COPY it is one of theirs itself */
    SMOS__FRAME_TIED = 32,       /* handed: an ICMP error that the flow it is about has seen */
    SMOS__FRAME_WHOLE = 64,      /* a datagram that came in fragments, as one frame: it leaves in ones of offload.gso_size bytes of data; csum_start and csum_offset are its identification */
    SMOS__FRAME_JOINED = 256,    /* WHOLE since this worker has it: wherever its last fragment came from, nobody has routed it yet */
    SMOS__FRAME_REDIRECTED = 128, /* handed: a module says that it belongs to one of this worker's flows */
    SMOS__FRAME_CARRIES = 8      /* handed: a last fragment; the last `token` bytes of data are the whole datagram in an Ethernet frame */
};

/* RFC 9293 3.1, bit order of the header's byte 13. */
enum {
    SMOS__FIN = 0x01, SMOS__SYN = 0x02, SMOS__RST = 0x04, SMOS__PSH = 0x08,
    SMOS__ACK = 0x10, SMOS__URG = 0x20, SMOS__ECE = 0x40, SMOS__CWR = 0x80
};

enum { /* smos__layer_t.flags */
    SMOS__L4_WHOLE = 1 << 0,       /* transport header captured whole and well formed: ports, seq and so on are valid */
    SMOS__BAD_CHECKSUM = 1 << 1,   /* transport checksum (or IPv4 header checksum) wrong; the payload is not to be trusted */
    SMOS__TRUNCATED = 1 << 2,      /* payload_captured < payload_len */
    SMOS__REASSEMBLED = 1 << 3,    /* this layer was built from IP fragments */
    SMOS__ICMP_ERROR = 1 << 4,     /* quoted holds the tuple of the packet that the ICMP error is about */
    SMOS__HAS_TIMESTAMP = 1 << 5,  /* TCP options, RFC 7323 */
    SMOS__HAS_MSS = 1 << 6,
    SMOS__HAS_WSCALE = 1 << 7,
    SMOS__SACK_PERMITTED = 1 << 8, /* RFC 2018 */
    SMOS__HAS_TFO = 1 << 9,        /* RFC 7413 option (34) or its experimental form, cookie or request */
    SMOS__BAD_OPTIONS = 1 << 10,   /* a TCP option with an impossible length; those before it are valid */
    SMOS__ECN_CE = 1 << 11,
    SMOS__UNCHECKED = 1 << 12,     /* a checksum could not be verified (truncated, or told not to) */
    SMOS__HAS_SACK = 1 << 13       /* RFC 2018: sack_blocks is not 0 */
};

/* One IP packet within a frame. Pointers are into the frame or, when SMOS__REASSEMBLED, into the defragmenter's buffer; both
 * stay until the end of the burst. */
typedef struct smos__layer {
    smos_tuple_t tuple; /* vlan and tunnel always filled; the flow key masks them by configuration */
    union {
        smos_packet_t packet; /* what handlers see, in place; what it says of the frame is filled in for the first of them */
        struct {
            uint8_t of_frame[offsetof(smos_packet_t, ip)];
            const uint8_t *ip;
            const uint8_t *l4;      /* NULL unless SMOS__L4_WHOLE, or for protocols without a decoder the first byte after IP */
            const uint8_t *payload; /* NULL if payload_captured is 0 */
            uint32_t payload_captured;
            uint32_t payload_len; /* transport payload by the headers, clamped to what the enclosing layer can hold on the wire */
            uint32_t ip_len;
            uint32_t seq, ack; /* TCP, like the next three; else 0 */
            uint16_t window;
            uint16_t urgent;
            uint8_t tcp_flags;
            uint8_t from; /* which end of the flow; set by the shard */
        };
    };
    uint32_t ip_captured; /* bytes readable from ip on */
    uint32_t tsval, tsecr;
    uint16_t mss;
    uint8_t wscale;
    uint8_t sack_blocks;  /* number of blocks, at `sack` as pairs of big-endian uint32 */
    uint8_t tunnel_kind;  /* SMOS_TUNNEL_* of the innermost tunnel around this layer */
    uint8_t anomaly_count;
    uint8_t icmp_type, icmp_code;
    uint16_t vlan[2];     /* outermost first, 0 none */
    uint32_t tunnel_id;   /* VNI, GRE key, TEID, 0 none */
    uint32_t flags;
    uint16_t anomalies[SMOS__MAX_ANOMALIES]; /* smos__anomaly ids found while decoding this layer */
    const uint8_t *sack;
    smos_tuple_t quoted;  /* SMOS__ICMP_ERROR: as quoted, src being the quoted packet's sender */
    uint32_t quoted_seq;  /* TCP */
} smos__layer_t;

#define SMOS__IN_PLACE(field) (offsetof(smos__layer_t, packet.field) == offsetof(smos__layer_t, field))
_Static_assert(SMOS__IN_PLACE(ip) && SMOS__IN_PLACE(payload) && SMOS__IN_PLACE(ip_len) && SMOS__IN_PLACE(seq) && SMOS__IN_PLACE(urgent) && SMOS__IN_PLACE(from), "the decoder fills handlers' view");
_Static_assert(offsetof(smos__frame_t, data) == offsetof(smos_packet_t, frame) && offsetof(smos__frame_t, len) == offsetof(smos_packet_t, len) &&
               offsetof(smos__frame_t, time_ns) == offsetof(smos_packet_t, time_ns), "copied in one piece");
#undef SMOS__IN_PLACE

typedef enum smos__wire_result {
    SMOS__WIRE_OK = 0,        /* at least one layer */
    SMOS__WIRE_FRAGMENT,      /* the innermost packet is a fragment that waits for others (outer layers are still listed) */
    SMOS__WIRE_NOT_IP,        /* ARP, LLDP, unknown ether type …: not ours */
    SMOS__WIRE_MALFORMED,     /* see anomalies */
    SMOS__WIRE_TRUNCATED,     /* cut by the snap length before a tuple was complete */
    SMOS__WIRE_LINKTYPE,      /* link type not supported */
    SMOS__WIRE_RESULTS
} smos__wire_result_t;

typedef struct smos__decoded {
    uint8_t result; /* smos__wire_result of the innermost thing seen */
    uint8_t layers; /* outermost first */
    uint8_t anomaly_count; /* of the frame: those that belong to no layer */
    uint8_t fragments;     /* layers (or the held packet) that came as IP fragments, for counting */
    uint16_t anomalies[SMOS__MAX_ANOMALIES];
    bool waits;            /* result is FRAGMENT: with no other layer around it */
    uint32_t owner_hash;   /* without a layer, who counts the frame: smos__owner_hash of a held fragment's addresses; 0 for what is not IP */
    smos__layer_t layer[SMOS__MAX_LAYERS];
} smos__decoded_t;

#endif
