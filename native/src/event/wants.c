/* What a socket wants of a flow, and how registrations and options change it. */
#include <errno.h>
#include <string.h>

#include "event/box.h"
#include "tcp/assembler.h"

#define BOTH_SIDES 3

static const uint8_t DEFAULT_HOOKS[SMOS_EVENT_COUNT] = {
    [SMOS_PKT_IN] = SMOS_SENDER, [SMOS_CONN_START] = SMOS_SENDER, [SMOS_CONN_SETUP] = SMOS_RECEIVER,
    [SMOS_REXMIT] = SMOS_RECEIVER, [SMOS_STATE_CHANGE] = SMOS_SENDER | SMOS_RECEIVER,
};


uint8_t smos__default_hooks(uint32_t event) { return event < SMOS_EVENT_COUNT ? DEFAULT_HOOKS[event] : 0; }


void smos__wants_init(smos__wants_t *w)
{
    memset(w, 0, sizeof *w);
    w->options = (smos__stream_options_t){.buffer = {SMOS__DEFAULT, SMOS__DEFAULT}, .overlap = {SMOS__DEFAULT_POLICY, SMOS__DEFAULT_POLICY}};
}


int smos__wants_add(smos__wants_t *w, const smos_box_t *box, uint32_t event, int hook, int side, smos_handler_t call, void *arg)
{
    uint32_t root = event;
    if (!call || side < 0 || side > SMOS_BOTH || hook < 0 || hook > (SMOS_SENDER | SMOS_RECEIVER)) return -EINVAL;
    if (event >= SMOS_USER_EVENT) {
        const smos__definition_t *d = smos__definition(box, event);
        if (!d) return -ENOENT;
        root = d->root;
    } else if (event >= SMOS_EVENT_COUNT) {
        return -ENOENT;
    }
    if (hook && !DEFAULT_HOOKS[root]) return -EINVAL;
    smos__entry_t entry = {event, hook ? (uint8_t)hook : DEFAULT_HOOKS[root], side == SMOS_BOTH ? BOTH_SIDES : (uint8_t)(1 << side), 0, call, arg};
    for (uint64_t i = 0; i < w->count; i++) {
        const smos__entry_t *e = &w->entry[i];
        if (e->event == event && e->call == call && e->arg == arg && e->hooks == entry.hooks && e->sides == entry.sides) return 0;
    }
    if (w->count == SMOS__MAX_HANDLERS) return -ENOSPC;
    w->entry[w->count++] = entry;
    return 0;
}


int smos__wants_remove(smos__wants_t *w, uint32_t event, smos_handler_t call, const void *arg)
{
    uint64_t kept = 0;
    for (uint64_t i = 0; i < w->count; i++)
        if (w->entry[i].event != event || (call && (w->entry[i].call != call || w->entry[i].arg != arg))) w->entry[kept++] = w->entry[i];
    if (kept == w->count) return -ENOENT;
    memset(&w->entry[kept], 0, (w->count - kept) * sizeof w->entry[0]);
    w->count = kept;
    return 0;
}


int smos__wants_option(smos__wants_t *w, int side, int option, uint64_t value)
{
    if (side < 0 || side > SMOS_BOTH) return -EINVAL;
    for (int s = 0; s < 2; s++) {
        if (side != SMOS_BOTH && side != s) continue;
        switch (option) {
        case SMOS_OPT_HISTORY:
            if (value >= SMOS__DEFAULT) return -EINVAL;
            w->options.history[s] = (uint32_t)value;
            break;
        case SMOS_OPT_BUFFER:
            if (value >= SMOS__DEFAULT) return -EINVAL;
            w->options.buffer[s] = (uint32_t)value;
            break;
        case SMOS_OPT_OVERLAP:
            if (value >= SMOS__OVERLAP_POLICIES) return -EINVAL;
            w->options.overlap[s] = (uint8_t)value;
            break;
        default: return -EINVAL;
        }
    }
    return 0;
}
