/* options.h: what the watchers of a flow ask of its two streams, by receiving side. */
#ifndef SMOS__OPTIONS_H
#define SMOS__OPTIONS_H

#include <stdint.h>

#define SMOS__DEFAULT UINT32_MAX
#define SMOS__DEFAULT_POLICY UINT8_MAX

typedef struct smos__stream_options {
    uint32_t history[2]; /* delivered bytes that stay readable */
    uint32_t buffer[2];  /* out-of-order bytes; SMOS__DEFAULT: as configured */
    uint8_t overlap[2];  /* smos__overlap; SMOS__DEFAULT_POLICY: as configured */
    uint8_t reserved[6];
} smos__stream_options_t;

#endif
