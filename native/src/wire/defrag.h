/* defrag.h: IPv4 and IPv6 reassembly (RFC 791 3.2, RFC 8200 4.5, RFC 5722), bounded in memory and packet time. */
#ifndef SMOS__DEFRAG_H
#define SMOS__DEFRAG_H

#include <stddef.h>

#include "wire/packet.h"

/* How overlapping fragments are resolved; the seven that Suricata and Snort implement. */
typedef enum smos__defrag_policy {
    SMOS__DEFRAG_FIRST, SMOS__DEFRAG_LAST, SMOS__DEFRAG_BSD, SMOS__DEFRAG_BSD_RIGHT,
    SMOS__DEFRAG_LINUX, SMOS__DEFRAG_WINDOWS, SMOS__DEFRAG_SOLARIS, SMOS__DEFRAG_POLICIES
} smos__defrag_policy_t;

typedef struct smos__defrag_config {
    uint32_t max_datagrams;  /* under reassembly at once, e.g. 4096 */
    uint32_t max_bytes;      /* buffered in all */
    uint32_t max_fragments;  /* per datagram */
    int64_t timeout_ns;      /* 60 s: RFC 791 and RFC 8200 */
    uint8_t policy;
    uint64_t key[2];         /* of its hash, random */
} smos__defrag_config_t;

typedef struct smos__defrag smos__defrag_t;

/* Bytes of memory the configuration needs; smos__defrag_init lays the object out in them (aligned to 64). */
size_t smos__defrag_size(const smos__defrag_config_t *config);
smos__defrag_t *smos__defrag_init(void *memory, const smos__defrag_config_t *config);

/* A fragment: returns the datagram that it completes, or NULL (waiting or dropped). `ip` points to the fragment's IP header, with
 * what lies between it and the fragment header in IPv6; `captured` bytes are readable; ip_len is the fragment's total length on the
 * wire. `meta` gives the addresses, version, VLAN and tunnel id (the key, with ip_id of IPv4 and the protocol) and takes nothing.
 * The datagram begins with the first fragment's IP header, mended: no fragment header (IPv6), no MF, no offset, its own length
 * and header checksum (IPv4). *length is its bytes; it stays until smos__defrag_release. Anomalies are appended, each once per call, to
 * anomalies[SMOS__MAX_ANOMALIES]; what is beyond that only counts in *anomaly_count's cap. */
const uint8_t *smos__defrag_add(smos__defrag_t *d, const smos__frame_t *frame, const uint8_t *ip, uint32_t captured, uint32_t ip_len,
                                const smos__layer_t *meta, uint32_t *length, uint16_t *anomalies, uint8_t *anomaly_count);

/* Gives back the datagrams that were completed since the last call: call at the end of a burst. */
void smos__defrag_release(smos__defrag_t *d);

/* Drops what waited longer than the timeout; at most `limit` datagrams. Returns how many. */
uint32_t smos__defrag_expire(smos__defrag_t *d, int64_t now_ns, uint32_t limit);

typedef struct smos__defrag_stats {
    uint64_t fragments, completed, timed_out, evicted, bad;
    uint64_t waiting; /* datagrams now */
    uint64_t bytes;   /* buffered now */
} smos__defrag_stats_t;
const smos__defrag_stats_t *smos__defrag_stats(const smos__defrag_t *d);

#endif
