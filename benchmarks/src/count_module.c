/* Pushed by control.py: counts the bytes of both streams. */
#include "shardmos/shardmos.h"

static uint64_t seen;

static void on_data(void *self, const smos_call_t *call)
{
    (void)self;
    seen += call->length;
}

static const smos_registration_t handlers[] = {
    {.event = SMOS_NEW_DATA, .side = SMOS_BOTH, .handler = on_data},
    {.event = SMOS_EVENT_COUNT},
};

SMOS_MODULE = {SMOS_MODULE_HEADER, .name = "count-c", .registrations = handlers};
