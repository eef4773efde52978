/* From the engine's events to mOS's: a socket for each flow and listener, NEW_DATA once per burst, CONN_END when mOS would destroy the flow. */
#include <stdio.h>
#include <stdio_ext.h>

#include "layer.h"

#define SECOND 1000000000ll
#define ROOT(event) __builtin_ctz(event)

/* What the engine is asked to tell, by bit: each wants one handler. */
static const struct { uint8_t event, hook; } WANTS[] = {
    {SMOS_PKT_IN, SMOS_SENDER}, {SMOS_PKT_IN, SMOS_RECEIVER}, {SMOS_CONN_START, SMOS_SENDER}, {SMOS_CONN_START, SMOS_RECEIVER},
    {SMOS_REXMIT, SMOS_SENDER}, {SMOS_REXMIT, SMOS_RECEIVER}, {SMOS_NEW_DATA, 0},             {SMOS_ERROR, 0},
    {SMOS_STATE_CHANGE, SMOS_SENDER | SMOS_RECEIVER},          {SMOS_CONN_END, 0},
};
#define WANT_COUNT (sizeof WANTS / sizeof *WANTS)

static entry_t *first_dirty, **last_dirty = &first_dirty;


uint32_t mos__needs(const regs_t *r)
{
    uint32_t needs = 1u << 8 | 1u << 9; /* how a flow is known to be over */
    for (int hook = 0; hook < 2; hook++) {
        if (r->roots[hook] & MOS_ON_PKT_IN) needs |= 1u << hook;
        if (r->roots[hook] & MOS_ON_CONN_START) needs |= 4u << hook;
        if (r->roots[hook] & MOS_ON_REXMIT) needs |= 16u << hook;
    }
    if (r->roots[HOOK_NULL] & MOS_ON_CONN_NEW_DATA) needs |= 1u << 6;
    if (r->roots[HOOK_NULL] & MOS_ON_ERROR) needs |= 1u << 7;
    return needs;
}


int mos__want(smos_sock_t sock, smos_flow_t flow, uint32_t needs, uint32_t *have)
{
    for (uint32_t i = 0; i < WANT_COUNT; i++) {
        if (!(needs & ~*have & 1u << i)) continue;
        int status = ENGINE(register_handler, sock, flow, WANTS[i].event, WANTS[i].hook, SMOS_BOTH, mos__on_event, NULL);
        if (status) return status;
        *have |= 1u << i;
    }
    return 0;
}


/* ---- telling ---- */

static void tell(entry_t *e, int hook, uint32_t event, int side)
{
    if (e->stopped >> side & 1 || mos__over) return;
    mos__now.entry = e;
    mos__regs_run(e->regs, hook, ROOT(event), e->id, side);
    mos__now.entry = NULL;
}


/* Without a packet, whatever the engine has at hand. */
static void tell_bare(entry_t *e, int hook, uint32_t event, int side)
{
    const smos_packet_t *packet = mos__now.packet;
    mos__now.packet = NULL;
    tell(e, hook, event, side);
    mos__now.packet = packet;
}


void mos__flush(entry_t *e, int side)
{
    if (!(e->dirty >> side & 1)) return;
    e->dirty = (uint8_t)((e->dirty & ~(1 << side)) | 4); /* in the list until that is empty */
    tell_bare(e, HOOK_NULL, MOS_ON_CONN_NEW_DATA, side);
}


static void new_data(entry_t *e, const smos_call_t *call)
{
    int side = call->side;
    uint64_t end = call->offset + call->length;
    if (!e->dirty) {
        e->next = NULL;
        *last_dirty = e;
        last_dirty = &e->next;
    }
    if (!(e->dirty >> side & 1)) e->flushed[side] = call->offset;
    e->dirty |= (uint8_t)(1 << side);
    /* A burst may bring more than the buffer holds: told before it is too late. */
    if (end - e->flushed[side] > e->buffer[side] / 2) mos__flush(e, side);
}


static void flush_all(void)
{
    while (first_dirty) {
        entry_t *e = first_dirty;
        first_dirty = e->next;
        if (!first_dirty) last_dirty = &first_dirty;
        if (!e->used || e->ending) {
            e->dirty = 0;
            continue;
        }
        mos__flush(e, SMOS_CLIENT);
        mos__flush(e, SMOS_SERVER);
        e->dirty = 0;
    }
}


/* ---- a flow's end ---- */

static void leave_dirty(const entry_t *gone)
{
    for (entry_t **at = &first_dirty; *at; at = &(*at)->next) {
        if (*at != gone) continue;
        *at = gone->next;
        if (!*at) last_dirty = at;
        return;
    }
}


static void end_flow(entry_t *e, bool engine_ends)
{
    smos_flow_info_t info;
    bool known = ENGINE(flow_info, e->flow, &info) == 0;
    if (e->ending) return;
    mos__flush(e, SMOS_CLIENT);
    mos__flush(e, SMOS_SERVER);
    if (e->dirty) leave_dirty(e);
    e->dirty = 0;
    e->ending = true;
    for (int side = 0; side < 2; side++) {
        bool changes = known && info.side[side].state != SMOS_TCP_CLOSED;
        for (int i = 0; i < 2; i++) {
            int hook = i ? HOOK_SND : HOOK_RCV;
            if (changes) tell_bare(e, hook, MOS_ON_TCP_STATE_CHANGE, side);
            tell_bare(e, hook, MOS_ON_CONN_END, side);
        }
    }
    smos_sock_t sock = e->listener->sock;
    ENGINE(set_context, sock, e->flow, NULL);
    if (!engine_ends) ENGINE(close, sock, e->flow);
    mos__flow_free(e);
}


static entry_t *of_timer(const smos_call_t *call)
{
    entry_t *e = mos__entry((int)(intptr_t)call->arg);
    return e && e->flow == call->flow ? e : NULL; /* the number may be another flow's by now */
}


static void end_closed(const smos_call_t *call)
{
    entry_t *e = of_timer(call);
    if (e) end_flow(e, false);
}

static void on_closed(void *self, const smos_call_t *call) { (void)self; mos__guard(end_closed, call); }


static void on_idle(void *self, const smos_call_t *call);

static void end_idle(const smos_call_t *call)
{
    entry_t *e = of_timer(call);
    smos_flow_info_t info;
    if (!e || ENGINE(flow_info, e->flow, &info)) return;
    int64_t left = info.end_ns + mos__conf.public.tcp_timeout * SECOND - ENGINE(now_ns);
    if (left <= 0)
        end_flow(e, false);
    else
        ENGINE(set_timer, e->flow, left, 0, on_idle, call->arg, NULL);
}

static void on_idle(void *self, const smos_call_t *call) { (void)self; mos__guard(end_idle, call); }


static void state_change(entry_t *e)
{
    smos_flow_info_t info;
    bool waits = false;
    if (ENGINE(flow_info, e->flow, &info)) return;
    for (int side = 0; side < 2; side++) {
        if (info.side[side].state == SMOS_TCP_TIME_WAIT) waits = true;
        else if (info.side[side].state != SMOS_TCP_CLOSED) return;
    }
    int64_t delay = waits && mos__conf.public.tcp_timewait > 0 ? mos__conf.public.tcp_timewait * SECOND : 0;
    ENGINE(set_timer, e->flow, delay, 0, on_closed, (void *)(intptr_t)e->id, NULL);
}


/* ---- the engine's events ---- */

/* The flow's socket; NULL if the program does not watch it: mOS follows connections from their SYN on only. */
static entry_t *attach(listener_t *l, const smos_call_t *call)
{
    smos_flow_info_t info;
    entry_t *e = NULL;
    bool ours = !call->existing && !ENGINE(flow_info, call->flow, &info) && !info.midstream;
    if (ours && l->flows < (uint32_t)mos__conf.public.max_concurrency) e = mos__flow_new(l, call);
    if (!e) {
        ENGINE(close, l->sock, call->flow);
        return NULL;
    }
    if (mos__conf.public.tcp_timeout > 0) ENGINE(set_timer, e->flow, mos__conf.public.tcp_timeout * SECOND, 0, on_idle, (void *)(intptr_t)e->id, NULL);
    return e;
}


/* CONN_START at RCV is told when the receiver's end was updated, after PKT_IN. */
static void tell_start(entry_t *e, int side)
{
    if (!e->starting) return;
    e->starting = false;
    tell(e, HOOK_RCV, MOS_ON_CONN_START, side);
}


static void flow_event(entry_t *e, const smos_call_t *call)
{
    int side = call->side, hook = call->hook == SMOS_SENDER ? HOOK_SND : HOOK_RCV;
    switch (call->event) {
    case SMOS_PKT_IN:
        tell(e, hook, MOS_ON_PKT_IN, side);
        if (hook == HOOK_RCV) tell_start(e, side);
        break;
    case SMOS_CONN_START:
        if (hook == HOOK_SND) tell(e, hook, MOS_ON_CONN_START, side);
        else e->starting = true;
        break;
    case SMOS_STATE_CHANGE:
        if (hook == HOOK_RCV) tell_start(e, side);
        tell(e, hook, MOS_ON_TCP_STATE_CHANGE, side);
        state_change(e);
        break;
    case SMOS_REXMIT: tell(e, hook, MOS_ON_REXMIT, side); break;
    case SMOS_NEW_DATA: new_data(e, call); break;
    case SMOS_ERROR: tell(e, HOOK_NULL, MOS_ON_ERROR, side); break;
    default: break;
    }
}


static listener_t *listener_of(smos_sock_t sock)
{
    for (int i = 0; i < MAX_LISTENERS; i++)
        if (mos__listeners[i].used && mos__listeners[i].sock == sock) return &mos__listeners[i];
    return NULL;
}


static void event(const smos_call_t *call)
{
    entry_t *e = call->context;
    if (e && (!e->used || e->flow != call->flow)) e = NULL;
    if (call->event == SMOS_CONN_END) {
        if (e) end_flow(e, true);
        return;
    }
    if (!e) {
        listener_t *l = listener_of(call->sock);
        if (!l) return;
        if (l->raw) {
            mos__regs_run(l->regs, HOOK_NULL, ROOT(MOS_ON_PKT_IN), l->id, MOS_SIDE_BOTH);
            return;
        }
        e = attach(l, call);
    }
    if (e && !e->ending) flow_event(e, call);
}

void mos__on_event(void *self, const smos_call_t *call) { (void)self; mos__guard(event, call); }


/* ---- orphans ---- */

/* A packet of a connection that no listener watches: there was no SYN, or the filters refused it, or mOS's flow is over. */
static void orphan(const smos_call_t *call)
{
    listener_t *l = call->arg;
    smos_flow_info_t info;
    uint64_t value;
    if (!l->used) return;
    if (call->event == SMOS_PKT_IN && !ENGINE(flow_info, call->flow, &info) && !info.midstream && !call->existing) {
        for (int i = 0; i < MAX_LISTENERS; i++) {
            const listener_t *each = &mos__listeners[i];
            if (each->used && !each->raw && ENGINE(get_option, each->sock, call->flow, SMOS_CLIENT, SMOS_OPT_HISTORY, &value) == 0) return;
        }
    }
    mos__regs_run(l->regs, HOOK_NULL, ROOT(MOS_ON_ORPHAN), l->id, MOS_SIDE_BOTH);
}

void mos__on_orphan(void *self, const smos_call_t *call) { (void)self; mos__guard(orphan, call); }


static void burst_end(const smos_call_t *call)
{
    (void)call;
    mos__begun = true;
    flush_all();
}

void mos__on_burst_end(void *self, const smos_call_t *call)
{
    (void)self;
    if (first_dirty || !mos__begun) mos__guard(burst_end, call);
    mos__serve_waiting();
    if (__fpending(stdout)) fflush(stdout); /* whoever watches a live box wants to see it now */
}
