/* Sockets, registrations, user-defined events and contexts, as modules call them. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "shard/api.h"


/* ---- who calls ---- */

int smos__caller(smos__caller_t *c, smos_engine_t *engine)
{
    *c = (smos__caller_t){.shard = (smos_shard_t *)engine, .flow = SMOS__NO_FLOW};
    if (!engine) return -EINVAL;
    c->preparing = smos__box_preparing != NULL;
    c->box = c->preparing ? smos__box_preparing : c->shard->events.current;
    return c->box ? 0 : -EPERM;
}


int smos__caller_socket(smos__caller_t *c, smos_engine_t *engine, smos_sock_t sock)
{
    int status = smos__caller(c, engine);
    if (status) return status;
    c->socket = smos__socket_find(c->box, sock);
    return c->socket ? 0 : -EBADF;
}


static int find_flow(smos__caller_t *c, smos_flow_t flow)
{
    if (!flow) return 0;
    if (c->preparing) return -EPERM;
    c->flow = smos__flow_find(&c->shard->arena, flow);
    return c->flow == SMOS__NO_FLOW ? -ESTALE : 0;
}


int smos__caller_flow(smos__caller_t *c, smos_engine_t *engine, smos_sock_t sock, smos_flow_t flow)
{
    int status = smos__caller_socket(c, engine, sock);
    return status ? status : find_flow(c, flow);
}


int smos__caller_watching(smos__caller_t *c, smos_engine_t *engine, smos_sock_t sock, smos_flow_t flow)
{
    int status = flow ? smos__caller_flow(c, engine, sock, flow) : smos__caller_socket(c, engine, sock);
    if (status) return status;
    if (!flow) return -EINVAL;
    return smos__events_watches(&c->shard->events, c->flow, c->box, c->socket) ? 0 : -ENOTCONN;
}


int smos__failed(const smos__caller_t *c, const char *what, int status)
{
    if (!c->box || status >= 0) return status;
    const char *why = status == -EBADF ? "no such socket of this module" : status == -ESTALE ? "the flow is over" : status == -ENOTCONN ? "the socket does not watch this flow"
                    : status == -EPERM ? "not possible here" : status == -ENOSPC ? "too many" : strerror(-status);
    snprintf(c->box->last_error, sizeof c->box->last_error, "%s: %s", what, why);
    return status;
}


const char *smos__api_last_error(smos_engine_t *engine)
{
    smos__caller_t c;
    return smos__caller(&c, engine) ? "" : c.box->last_error;
}


/* ---- sockets ---- */

int smos__api_socket(smos_engine_t *engine, int type, smos_sock_t *out)
{
    smos__caller_t c;
    int status = smos__caller(&c, engine);
    if (!status && (!out || (type != SMOS_STREAM && type != SMOS_RAW))) status = -EINVAL;
    if (status) return smos__failed(&c, "socket", status);
    c.socket = smos__socket_make(c.box, type);
    if (!c.socket) return smos__failed(&c, "socket", -ENOSPC);
    if (c.box->active) status = smos__events_open(&c.shard->events, c.socket);
    if (status) {
        c.box->sockets[c.socket->number & 0xff] = NULL;
        smos__socket_free(c.socket);
        return smos__failed(&c, "socket", status);
    }
    *out = c.socket->number;
    return 0;
}


int smos__api_bind(smos_engine_t *engine, smos_sock_t sock, const char *filter, const char *orphan_filter)
{
    char why[SMOS__BOX_ERROR - 32] = "";
    smos__caller_t c;
    int status = smos__caller_socket(&c, engine, sock);
    if (!status) status = smos__socket_filter(c.socket, filter, orphan_filter, why, sizeof why);
    if (status == -EINVAL && why[0]) return snprintf(c.box->last_error, sizeof c.box->last_error, "bind: bad filter: %s", why), status;
    return smos__failed(&c, "bind", status);
}


int smos__api_close(smos_engine_t *engine, smos_sock_t sock, smos_flow_t flow)
{
    smos__caller_t c;
    int status = smos__caller_flow(&c, engine, sock, flow);
    if (!status && flow) status = smos__events_leave(&c.shard->events, c.flow, c.socket);
    if (!status && !flow && c.socket == c.box->sockets[0]) status = -EPERM;
    if (status || flow) return smos__failed(&c, "close", status);
    if (c.socket->slot >= 0) {
        smos__events_close(&c.shard->events, c.socket);
    } else {
        c.box->sockets[sock & 0xff] = NULL;
        smos__socket_free(c.socket);
    }
    return 0;
}


/* ---- registrations ---- */

typedef struct registration {
    const smos_box_t *box;
    uint32_t event;
    int hook, side;
    smos_handler_t handler;
    void *arg;
} registration_t;


static int add(smos__wants_t *w, const void *what)
{
    const registration_t *r = what;
    return smos__wants_add(w, r->box, r->event, r->hook, r->side, r->handler, r->arg);
}


static int take_away(smos__wants_t *w, const void *what)
{
    const registration_t *r = what;
    return smos__wants_remove(w, r->event, r->handler, r->arg);
}


int smos__api_register(smos_engine_t *engine, smos_sock_t sock, smos_flow_t flow, uint32_t event, int hook, int side, smos_handler_t handler, void *arg)
{
    smos__caller_t c;
    int status = smos__caller_flow(&c, engine, sock, flow);
    registration_t r = {c.box, event, hook, side, handler, arg};
    if (!status) status = smos__events_change(&c.shard->events, c.socket, c.flow, add, &r);
    return smos__failed(&c, "register_handler", status);
}


int smos__api_unregister(smos_engine_t *engine, smos_sock_t sock, smos_flow_t flow, uint32_t event, smos_handler_t handler, void *arg)
{
    smos__caller_t c;
    int status = smos__caller_flow(&c, engine, sock, flow);
    registration_t r = {c.box, event, 0, 0, handler, arg};
    if (!status) status = smos__events_change(&c.shard->events, c.socket, c.flow, take_away, &r);
    return smos__failed(&c, "unregister_handler", status);
}


/* ---- user-defined events ---- */

int smos__api_define(smos_engine_t *engine, uint32_t parent, smos_predicate_t predicate, const void *arg, size_t arg_size, uint32_t *out)
{
    smos__caller_t c;
    int status = smos__caller(&c, engine);
    if (!status) status = out && predicate ? smos__define(c.box, parent, predicate, arg, arg_size, out) : -EINVAL;
    return smos__failed(&c, "define_event", status);
}


int smos__api_alloc(smos_engine_t *engine, uint32_t parent, uint32_t *out)
{
    smos__caller_t c;
    int status = smos__caller(&c, engine);
    if (!status) status = out ? smos__define(c.box, parent, NULL, NULL, 0, out) : -EINVAL;
    return smos__failed(&c, "alloc_event", status);
}


int smos__api_raise(smos_engine_t *engine, uint32_t event)
{
    smos__caller_t c;
    int status = smos__caller(&c, engine);
    if (!status) status = c.preparing ? -EPERM : smos__events_raise_event(&c.shard->events, c.box, event);
    return smos__failed(&c, "raise_event", status);
}


int smos__api_remove_event(smos_engine_t *engine, uint32_t event)
{
    smos__caller_t c;
    int status = smos__caller(&c, engine);
    if (!status) status = smos__undefine(c.box, event);
    return smos__failed(&c, "remove_event", status);
}


/* ---- of one flow ---- */

int smos__api_stop_socket(smos_engine_t *engine, smos_sock_t sock, smos_flow_t flow, int side)
{
    smos__caller_t c;
    int status = smos__caller_watching(&c, engine, sock, flow);
    if (!status) status = smos__events_stop(&c.shard->events, c.flow, c.box, c.socket, side);
    return smos__failed(&c, "stop_socket", status);
}


int smos__api_set_context(smos_engine_t *engine, smos_sock_t sock, smos_flow_t flow, void *context)
{
    smos__caller_t c;
    int status = flow ? smos__caller_watching(&c, engine, sock, flow) : smos__caller_socket(&c, engine, sock);
    if (status) return smos__failed(&c, "set_context", status);
    if (!flow) {
        c.socket->context = context;
        if (c.preparing)
            c.box->per_flow = true;
        else
            smos__events_keep(&c.shard->events, c.box);
        return 0;
    }
    smos__watch_t *w = smos__events_watch(&c.shard->events, c.socket, c.flow);
    if (!w) return smos__failed(&c, "set_context", -ENOMEM);
    w->context = context;
    c.shard->events.placed = NULL;
    return 0;
}


void *smos__api_get_context(smos_engine_t *engine, smos_sock_t sock, smos_flow_t flow)
{
    smos__caller_t c;
    int status = flow ? smos__caller_watching(&c, engine, sock, flow) : smos__caller_socket(&c, engine, sock);
    if (status) return smos__failed(&c, "get_context", status), NULL;
    if (!flow) return c.socket->context;
    return c.socket->watches ? c.socket->watches[c.flow].context : NULL;
}


void *smos__api_state(smos_engine_t *engine, smos_flow_t flow)
{
    smos__caller_t c;
    int status = smos__caller(&c, engine);
    if (!status) status = flow ? find_flow(&c, flow) : -EINVAL;
    if (!status && !smos__events_watches(&c.shard->events, c.flow, c.box, NULL)) status = -ENOTCONN;
    if (status) return smos__failed(&c, "state", status), NULL;
    return c.box->state ? c.box->state + (size_t)c.flow * c.box->module.state_size : NULL;
}
