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
