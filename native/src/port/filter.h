/* filter.h: pcap filter expressions over the innermost IP packet (compiled for LINKTYPE_RAW by libpcap, run by bpf_filter). */
#ifndef SMOS__FILTER_H
#define SMOS__FILTER_H

#include <stddef.h>
#include <stdint.h>

typedef struct smos__filter smos__filter_t;

/* NULL with libpcap's own words in `error`. Empty or NULL text matches all. */
smos__filter_t *smos__filter_compile(const char *text, char *error, size_t error_size);
int smos__filter_match(const smos__filter_t *, const uint8_t *ip, uint32_t length, uint32_t captured);
void smos__filter_free(smos__filter_t *);

#endif
