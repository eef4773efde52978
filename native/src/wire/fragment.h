/* fragment.h: what an IP fragment's headers say, and the header of the datagram made of them. */
#ifndef SMOS__FRAGMENT_H
#define SMOS__FRAGMENT_H

#include <stdbool.h>
#include <stdint.h>

#define SMOS__DATAGRAM_MAX 65535u /* IPv4: total length; IPv6: payload length */

typedef struct smos__fragment {
    uint8_t version;
    uint8_t protocol; /* IPv4: protocol; IPv6: the fragment header's next header */
    bool more, df;
    uint32_t id;
    uint32_t offset; /* bytes */
    uint32_t length; /* of the data, by the headers */
    uint32_t captured; /* of them */
    const uint8_t *data;
    const uint8_t *header; /* what comes before the data in the datagram: without IPv6's fragment header */
    uint32_t header_length;
    uint32_t next_at; /* IPv6: where in the header the next header's number stands */
} smos__fragment_t;

typedef enum smos__fragment_result { SMOS__FRAGMENT_OK, SMOS__FRAGMENT_CUT, SMOS__FRAGMENT_BAD } smos__fragment_result_t;

/* CUT: `captured` ends within the headers. BAD: they contradict themselves, or there is no fragment header. */
smos__fragment_result_t smos__fragment_parse(const uint8_t *ip, uint32_t captured, uint32_t ip_len, smos__fragment_t *out);

/* A header of that length with that much data is within what its length field can say. */
bool smos__datagram_fits(int version, uint32_t header_length, uint32_t data_length);

/* Mends the header of a first fragment, which stands at `header`, for the whole datagram. `protocol` and next_at as parsed. */
void smos__datagram_header(uint8_t *header, uint32_t header_length, uint32_t data_length, uint8_t protocol, uint32_t next_at);

#endif
