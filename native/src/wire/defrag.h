/* defrag.h: IPv4 and IPv6 reassembly (RFC 791 3.2, RFC 8200 4.5, RFC 5722), bounded in memory and packet time. */
#ifndef SMOS__DEFRAG_H
#define SMOS__DEFRAG_H

#include <stddef.h>

#include "wire/packet.h"
#include "wire/prefix.h"

/* How overlapping fragments are resolved; the seven that Suricata and Snort implement. */
typedef enum smos__defrag_policy {
    SMOS__DEFRAG_FIRST, SMOS__DEFRAG_LAST, SMOS__DEFRAG_BSD, SMOS__DEFRAG_BSD_RIGHT,
    SMOS__DEFRAG_LINUX, SMOS__DEFRAG_WINDOWS, SMOS__DEFRAG_SOLARIS, SMOS__DEFRAG_POLICIES
} smos__defrag_policy_t;

typedef struct smos__defrag_config {
    uint32_t max_datagrams;  /* under reassembly at once, e.g. 4096 */
    uint32_t max_bytes;      /* fragments, and the completed datagrams of a burst; at least 400 KiB are taken */
    uint32_t max_fragments;  /* per datagram; at most 32,768 */
    int64_t timeout_ns;      /* 60 s: RFC 791 and RFC 8200 */
    uint8_t policy;
    const smos_prefix_policy_t *prefixes; /* policies of networks, by the datagram's destination: wire/prefix.h; the caller's, sorted */
    uint32_t prefix_count;
    uint64_t key[2];         /* of its hash, random */
} smos__defrag_config_t;

typedef struct smos__defrag smos__defrag_t;

#define SMOS__DEFRAG_ROOM 32

/* Bytes of memory the configuration needs; smos__defrag_init lays the object out in them (aligned to 64). */
size_t smos__defrag_size(const smos__defrag_config_t *config);
smos__defrag_t *smos__defrag_init(void *memory, const smos__defrag_config_t *config);

/* A fragment: returns the datagram that it completes, or NULL (waiting or dropped). `ip` points to the fragment's IP header, with
 * what lies between it and the fragment header in IPv6; `captured` bytes are readable; ip_len is the fragment's total length on the
 * wire. `meta` gives the addresses, version, VLAN and tunnel id (the key, with the identification and IPv4's protocol).
 * The datagram begins with the first fragment's IP header, mended: no fragment header (IPv6), no MF, no offset, its own length
 * and header checksum (IPv4). SMOS__DEFRAG_ROOM bytes before it are the caller's to write. *length is its bytes; it stays until smos__defrag_release. Anomalies are appended, each once per call, to
 * anomalies[SMOS__MAX_ANOMALIES] as far as there is room. */
const uint8_t *smos__defrag_add(smos__defrag_t *d, const smos__frame_t *frame, const uint8_t *ip, uint32_t captured, uint32_t ip_len,
                                const smos__layer_t *meta, uint32_t *length, uint16_t *anomalies, uint8_t *anomaly_count);

/* IPv4 overlaps are resolved by the configured policy, IPv6 ones by `first` (RFC 5722 would have the datagram dropped: the anomaly
 * tells). Exact copies of a fragment are ignored. A datagram is given up, and its further fragments with it, when one is cut by the snap length,
 * and when it has more fragments or overlaps than it may. */

/* Data bytes of the largest fragment but the last of the datagram that was completed last. */
uint32_t smos__defrag_largest(const smos__defrag_t *d);
uint32_t smos__defrag_id(const smos__defrag_t *d); /* its identification */

/* Gives back the datagrams that were completed since the last call: call at the end of a burst. */
void smos__defrag_release(smos__defrag_t *d);

/* Drops what waited longer than the timeout; at most `limit` datagrams. Returns how many. */
uint32_t smos__defrag_expire(smos__defrag_t *d, int64_t now_ns, uint32_t limit);

typedef struct smos__defrag_stats {
    uint64_t fragments; /* added */
    uint64_t completed, timed_out; /* datagrams */
    uint64_t evicted; /* datagrams dropped unfinished for room, or complete when a burst's room for these was full */
    uint64_t bad;     /* fragments refused: malformed, cut, or of a datagram that was given up for such a one */
    uint64_t waiting; /* datagrams now */
    uint64_t bytes;   /* buffered now */
} smos__defrag_stats_t;
const smos__defrag_stats_t *smos__defrag_stats(const smos__defrag_t *d);

#endif
