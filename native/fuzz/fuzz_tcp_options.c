/* Any bytes as TCP options: what is taken from them lies within them. */
#include <stdlib.h>
#include <string.h>

#include "wire/walk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > 41) return 0;
    static smos__decoded_t decoded;
    smos__layer_t layer = { .tcp_flags = data[0] };
    smos__walk_t walk = { .out = &decoded, .layer = &layer };
    uint8_t *copy = malloc(size);
    if (copy == NULL) abort();
    memcpy(copy, data + 1, size - 1);
    smos__tcp_options(&walk, &layer, copy, (uint32_t)size - 1);
    if (layer.wscale > 14 || layer.anomaly_count > SMOS__MAX_ANOMALIES) abort();
    if (layer.sack_blocks && (layer.sack < copy || layer.sack + 8 * layer.sack_blocks > copy + size - 1)) abort();
    free(copy);
    return 0;
}
