#include "event/anomaly.h"

const char *smos__anomaly_name(uint32_t anomaly)
{
    static const char *const names[] = {
#define SMOS__ANOMALY(id, name, text) name,
#include "wire/anomalies.def"
#include "tcp/anomalies.def"
#undef SMOS__ANOMALY
    };
    return anomaly < SMOS__ANOMALY_COUNT ? names[anomaly] : "unknown";
}
