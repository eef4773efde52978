/* anomaly.h: every named anomaly, those of wire/ first, then those of tcp/. */
#ifndef SMOS__ANOMALY_H
#define SMOS__ANOMALY_H

#include <stdint.h>

typedef enum smos__anomaly {
#define SMOS__ANOMALY(id, name, text) SMOS__ANOMALY_##id,
#include "wire/anomalies.def"
#include "tcp/anomalies.def"
#undef SMOS__ANOMALY
    SMOS__ANOMALY_COUNT
} smos__anomaly_t;

/* "unknown" for what is not one. */
const char *smos__anomaly_name(uint32_t anomaly);

#endif
