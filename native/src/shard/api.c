/* The functions that modules call. None aborts, whatever its arguments. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shard/api.h"

#define MAX_EMIT 65536

static smos_shard_t *shard_of(smos_engine_t *engine) { return (smos_shard_t *)engine; }
smos_engine_t *smos_shard_engine(smos_shard_t *shard) { return (smos_engine_t *)shard; }


/* In init(), which runs beside the packet thread: flows, verdicts and the event queue are that thread's alone. */
static bool preparing(void) { return smos__box_preparing != NULL; }


static int api_flow_info(smos_engine_t *engine, smos_flow_t flow, smos_flow_info_t *out)
{
    if (!engine || !out) return -EINVAL;
    if (preparing()) return -EPERM;
    smos_shard_t *s = shard_of(engine);
    uint32_t i = smos__flow_find(&s->arena, flow);
    if (i == SMOS__NO_FLOW) return -ESTALE;
    smos__flow_info(s, i, out);
    return 0;
}


static int api_drop(smos_engine_t *engine)
{
    if (!engine) return -EINVAL;
    if (preparing()) return -EPERM;
    if (!shard_of(engine)->events.in_packet) return -EINVAL;
    shard_of(engine)->events.dropped = true;
    return 0;
}


static int api_reset(smos_engine_t *engine, smos_flow_t flow)
{
    if (!engine) return -EINVAL;
    if (preparing()) return -EPERM;
    smos_shard_t *s = shard_of(engine);
    uint32_t i = smos__flow_find(&s->arena, flow);
    if (i == SMOS__NO_FLOW || s->arena.hot[i].flags & SMOS__FLOW_ENDED) return -ESTALE;
    if (!(s->arena.hot[i].flags & SMOS__FLOW_RESET)) smos__send_resets(s, i);
    s->arena.hot[i].flags |= SMOS__FLOW_RESET;
    if (i != s->flow) { /* no packet of its own ends it: the linger does */
        s->arena.hot[i].class_ = SMOS__CLASS_RESET;
        if (s->arena.hot[i].end_reason == 255) s->arena.hot[i].end_reason = SMOS_END_RST;
    }
    if (s->events.current) s->events.current->stats.resets++;
    return 0;
}


static int api_stop(smos_engine_t *engine, smos_flow_t flow, int side)
{
    if (!engine || side < 0 || side > SMOS_BOTH) return -EINVAL;
    if (preparing()) return -EPERM;
    smos_shard_t *s = shard_of(engine);
    uint32_t i = smos__flow_find(&s->arena, flow);
    if (i == SMOS__NO_FLOW) return -ESTALE;
    if (!s->events.current) return -EINVAL;
    return smos__events_stop(&s->events, i, s->events.current, NULL, side);
}


static int api_emit(smos_engine_t *engine, const char *topic, const void *data, size_t length)
{
    if (!engine || !topic || (!data && length)) return -EINVAL;
    if (preparing()) return -EPERM;
    if (length > MAX_EMIT || strnlen(topic, 65) > 64) return -EMSGSIZE;
    smos_shard_t *s = shard_of(engine);
    smos_box_t *box = s->events.current;
    if (!box) return -EINVAL;
    box->stats.emitted++;
    if (!(s->config.publish & SMOS_PUBLISH_MODULES)) return 0;
    smos_flow_t flow = s->flow == SMOS__NO_FLOW ? 0 : smos__flow_handle(&s->arena, s->flow);
    return smos__outbox_module(&s->outbox, s->now_ns, box->name, topic, flow, data, (uint32_t)length);
}


/* Kept with the module until it is committed. */
static void log_later(smos_box_t *box, int level, const char *text)
{
    if (box->line_count == SMOS__MAX_LINES) return;
    char *copy = strdup(text);
    if (copy) box->lines[box->line_count++] = (smos__line_t){level, copy};
}


void smos__log_lines(smos_shard_t *s, smos_box_t *box)
{
    for (uint32_t i = 0; i < box->line_count; i++) {
        if (s->config.publish & SMOS_PUBLISH_LOG) smos__outbox_log(&s->outbox, s->now_ns, box->name, box->lines[i].level, box->lines[i].text);
        free(box->lines[i].text);
    }
    box->line_count = 0;
}


static void api_log(smos_engine_t *engine, int level, const char *text)
{
    if (!engine || !text) return;
    if (preparing()) {
        log_later(smos__box_preparing, level, text);
        return;
    }
    smos_shard_t *s = shard_of(engine);
    if (!(s->config.publish & SMOS_PUBLISH_LOG)) return;
    if (!s->log_budget) {
        s->outbox.lost++;
        return;
    }
    s->log_budget--;
    smos__outbox_log(&s->outbox, s->now_ns, s->events.current ? s->events.current->name : "", level, text);
}


static bool counter_name(const char *name)
{
    size_t n = strnlen(name, sizeof((smos_module_counter_t *)0)->name);
    return n && n < sizeof((smos_module_counter_t *)0)->name && strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_") == n;
}


static uint64_t *api_counter(smos_engine_t *engine, const char *name)
{
    smos_box_t *box = smos__box_preparing;
    if (!engine || !name || !box || !counter_name(name)) return NULL;
    for (smos_module_counter_t *c = box->stats.counters; c < box->stats.counters + SMOS_MODULE_COUNTERS; c++) {
        if (!c->name[0]) memcpy(c->name, name, strlen(name));
        if (!strcmp(c->name, name)) return &c->value;
    }
    return NULL;
}


static int64_t api_now_ns(smos_engine_t *engine) { return engine ? shard_of(engine)->now_ns : 0; }
static uint64_t api_flow_count(smos_engine_t *engine) { return engine ? shard_of(engine)->arena.header->in_use : 0; }


static const char *api_state_name(uint32_t state)
{
    static const char *const NAMES[] = {"CLOSED", "LISTEN", "SYN_SENT", "SYN_RECEIVED", "ESTABLISHED", "FIN_WAIT_1",
                                        "FIN_WAIT_2", "CLOSE_WAIT", "CLOSING", "LAST_ACK", "TIME_WAIT"};
    return state < sizeof NAMES / sizeof *NAMES ? NAMES[state] : "unknown";
}


static const char *api_param(smos_engine_t *engine, void *self, const char *name)
{
    (void)self;
    if (!engine || !name) return NULL;
    smos_box_t *box = smos__box_preparing ? smos__box_preparing : shard_of(engine)->events.current;
    return box ? smos__box_parameter(box, name) : NULL;
}


const smos_api_t *smos_shard_api(void)
{
    static const smos_api_t API = {
        .size = sizeof(smos_api_t), .abi_major = SMOS_ABI_MAJOR, .abi_minor = SMOS_ABI_MINOR,
        .flow_info = api_flow_info, .drop = api_drop, .reset = api_reset, .stop = api_stop, .emit = api_emit, .log = api_log, .now_ns = api_now_ns,
        .anomaly_name = smos__anomaly_name, .state_name = api_state_name, .param = api_param, .flow_count = api_flow_count,
        .last_error = smos__api_last_error, .socket = smos__api_socket, .bind = smos__api_bind, .close = smos__api_close,
        .register_handler = smos__api_register, .unregister_handler = smos__api_unregister,
        .define_event = smos__api_define, .alloc_event = smos__api_alloc, .raise_event = smos__api_raise, .remove_event = smos__api_remove_event,
        .set_option = smos__api_set_option, .get_option = smos__api_get_option, .peek = smos__api_peek, .peek_at = smos__api_peek_at,
        .buffered = smos__api_buffered, .buffer_info = smos__api_buffer_info, .stop_socket = smos__api_stop_socket,
        .set_context = smos__api_set_context, .get_context = smos__api_get_context, .state = smos__api_state,
        .set_timer = smos__api_set_timer, .cancel_timer = smos__api_cancel_timer, .at_burst_end = smos__api_at_burst_end,
        .overwrite = smos__api_overwrite, .insert = smos__api_insert, .remove = smos__api_remove, .inject = smos__api_inject,
        .owner = smos__api_owner, .worker = smos__api_worker, .counter = api_counter, .redirect = smos__api_redirect,
    };
    return &API;
}


smos_box_t *smos_shard_use(smos_shard_t *s, smos_box_t *box)
{
    smos_box_t **user = (box && !box->active) || smos__box_preparing ? &smos__box_preparing : &s->events.current;
    smos_box_t *before = *user;
    *user = box;
    return before;
}
