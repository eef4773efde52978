/* Sets of registrations, interned: what a listener gives its flows, and what one flow changed of it. A set holds, per hook and built-in
 * event, the walk over the tree of user-defined events under it: each filter once, a parent's callback before its children's. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "layer.h"

#define BUCKETS 1024
#define MAX_DEPTH 512 /* of user-defined events in one walk; more is refused at registration */

static regs_t *buckets[BUCKETS];





static uint32_t hash_of(const reg_t *reg, uint32_t count) { return count ? XXH32(reg, count * sizeof *reg, count) : 0; }


/* ---- the walk ---- */

typedef struct building {
    const reg_t *reg;
    uint32_t count;
    int hook;
    step_t *step; /* NULL: only counted */
    uint32_t at;
} building_t;


/* The child of `above` that `event` lies under (or is); 0: it does not lie under it. */
static event_t child_towards(event_t event, event_t above)
{
    while (event != above) {
        const ude_t *u = mos__ude(event);
        if (!u) return 0;
        if (u->parent == above) return event;
        event = u->parent;
    }
    return 0;
}


static void put(building_t *b, step_t step)
{
    if (b->step) b->step[b->at] = step;
    b->at++;
}


static void lay_out(building_t *b, event_t event)
{
    for (uint32_t i = 0; i < b->count; i++)
        if (b->reg[i].event == event && b->reg[i].hook == b->hook) put(b, (step_t){.call = b->reg[i].call, .event = event});
    for (uint32_t i = 0; i < b->count; i++) {
        event_t child = b->reg[i].hook == b->hook ? child_towards(b->reg[i].event, event) : 0;
        bool seen = !child;
        for (uint32_t k = 0; k < i && !seen; k++) seen = b->reg[k].hook == b->hook && child_towards(b->reg[k].event, event) == child;
        if (seen) continue;
        uint32_t question = b->at;
        put(b, (step_t){.ude = mos__ude(child), .event = child});
        lay_out(b, child);
        if (b->step) b->step[question].skip = b->at - question - 1;
    }
}


static void lay_out_all(regs_t *r, building_t *b)
{
    static const int HOOK[HOOKS] = {MOS_HK_SND, MOS_HK_RCV, MOS_NULL};
    for (int h = 0; h < HOOKS; h++) {
        b->hook = HOOK[h];
        for (int root = 0; root < BUILT_IN; root++) {
            r->first[h][root] = b->at;
            lay_out(b, (event_t)1 << root);
            if (b->at > r->first[h][root]) r->roots[h] |= 1u << root;
        }
        r->first[h][BUILT_IN] = b->at;
    }
}


/* ---- interning ---- */

static regs_t *intern(const reg_t *reg, uint32_t count)
{
    uint32_t hash = hash_of(reg, count);
    for (regs_t *r = buckets[hash % BUCKETS]; r; r = r->next)
        if (r->hash == hash && r->count == count && !memcmp(r->reg, reg, count * sizeof *reg)) return mos__regs_hold(r);
    regs_t *r = calloc(1, sizeof *r);
    building_t b = {.reg = reg, .count = count};
    if (r) lay_out_all(r, &b);
    reg_t *own = malloc((count + 1) * sizeof *own);
    step_t *step = malloc((b.at + 1) * sizeof *step);
    if (!r || !own || !step) return free(r), free(own), free(step), errno = ENOMEM, NULL;
    if (count) memcpy(own, reg, count * sizeof *reg);
    r->reg = own;
    r->step = step;
    r->count = count;
    r->step_count = b.at;
    r->hash = hash;
    r->refs = 1;
    b.step = step;
    b.at = 0;
    lay_out_all(r, &b);
    r->next = buckets[hash % BUCKETS];
    buckets[hash % BUCKETS] = r;
    return r;
}


regs_t *mos__regs_empty(void) { return intern(NULL, 0); }


regs_t *mos__regs_hold(regs_t *r)
{
    r->refs++;
    return r;
}


void mos__regs_release(regs_t *r)
{
    if (!r || --r->refs) return;
    regs_t **at = &buckets[r->hash % BUCKETS];
    while (*at != r) at = &(*at)->next;
    *at = r->next;
    free(r->reg);
    free(r->step);
    free(r);
}


static int depth_of(event_t event)
{
    int depth = 0;
    for (const ude_t *u = mos__ude(event); u; u = mos__ude(u->parent)) depth++;
    return depth;
}


regs_t *mos__regs_change(const regs_t *old, event_t event, int hook, callback_t call)
{
    uint32_t n = old->count, at = 0;
    while (at < n && !(old->reg[at].event == event && old->reg[at].hook == hook)) at++;
    if (!call && at == n) return errno = ENOENT, NULL;
    if (call && depth_of(event) > MAX_DEPTH) return errno = EINVAL, NULL;
    reg_t *reg = calloc(n + 1, sizeof *reg);
    if (!reg) return errno = ENOMEM, NULL;
    if (n) memcpy(reg, old->reg, n * sizeof *reg);
    if (!call) {
        memmove(reg + at, reg + at + 1, (n - at - 1) * sizeof *reg);
        n--;
    } else {
        reg[at].event = event;
        reg[at].hook = hook;
        reg[at].call = call;
        if (at == n) n++;
    }
    regs_t *r = intern(reg, n);
    free(reg);
    return r;
}


/* ---- calling ---- */

static void walk(const step_t *step, uint32_t at, uint32_t end, bool only_raised, int sock, int side)
{
    while (at < end && !mos__over) {
        const step_t *s = &step[at];
        uint32_t next = at + 1 + s->skip;
        if (!s->ude) {
            if (!only_raised) {
                const ude_t *u = mos__ude(s->event);
                filter_arg_t arg = u ? u->arg : (filter_arg_t){0};
                s->call(&mos__context, sock, side, s->event, arg.len ? &arg : NULL);
            }
        } else if (!s->ude->filter) {
            if (mos__raised(s->event)) walk(step, at + 1, next, false, sock, side);
        } else if (!only_raised) {
            /* What a filter raised happened, whatever it says of its own event. */
            bool yes = mos__happened(s->ude, sock, side);
            walk(step, at + 1, next, !yes, sock, side);
        }
        at = next;
    }
}


void mos__regs_run(regs_t *r, int hook, int root, int sock, int side)
{
    if (!(r->roots[hook] & 1u << root)) return;
    mos__regs_hold(r); /* a callback may register */
    walk(r->step, r->first[hook][root], r->first[hook][root + 1], false, sock, side);
    mos__regs_release(r);
}


/* ---- mtcp_register_callback ---- */

static bool legal(int root, int hook, bool raw)
{
    const int flow = 1 << 0 | 1 << 2 | 1 << 7 | 1 << 9 | 1 << 10, none = 1 << 4 | 1 << 5 | 1 << 8;
    if (root < 0 || (hook != (int)MOS_HK_SND && hook != MOS_HK_RCV && hook != MOS_NULL)) return false;
    if (raw) return root == 0 && hook == MOS_NULL;
    return (hook == MOS_NULL ? none : flow) >> root & 1;
}


static int watch_orphans(listener_t *l)
{
    char text[1024];
    if (l->orphans || !(l->regs->roots[HOOK_NULL] & MOS_ON_ORPHAN)) return 0;
    int status = ENGINE(socket, SMOS_STREAM, &l->orphans);
    if (status) return status;
    snprintf(text, sizeof text, l->orphan_filter ? "ip and tcp and (%s)" : "ip and tcp", l->orphan_filter);
    status = ENGINE(bind, l->orphans, text, NULL);
    if (!status) status = ENGINE(register_handler, l->orphans, 0, SMOS_ORPHAN, 0, SMOS_BOTH, mos__on_orphan, l);
    if (!status) status = ENGINE(register_handler, l->orphans, 0, SMOS_PKT_IN, SMOS_SENDER, SMOS_BOTH, mos__on_orphan, l);
    return status;
}


static intptr_t change(const intptr_t *a)
{
    int sock = (int)a[0], hook = (int)a[2], root = mos__root((event_t)a[1]);
    listener_t *l = mos__listener(sock);
    entry_t *e = l ? NULL : mos__entry(sock);
    if (!l && !e) return FAIL(EBADF);
    if (!legal(root, hook, l && l->raw)) return FAIL(EINVAL);
    if (e && root == 8) return FAIL(EINVAL); /* an orphan is no flow's */
    regs_t **place = l ? &l->regs : &e->regs;
    regs_t *made = mos__regs_change(*place, (event_t)a[1], hook, (callback_t)a[3]);
    if (!made) return -1;
    bool told_before = (*place)->roots[HOOK_NULL] & MOS_ON_CONN_NEW_DATA;
    if (e && e->dirty && made->roots[HOOK_NULL] & MOS_ON_CONN_NEW_DATA && !told_before) e->dirty = 4; /* what came before is not told */
    mos__regs_release(*place);
    *place = made;
    int status = l ? mos__want(l->sock, 0, l->raw ? 1 : mos__needs(made), &l->wants) : mos__want(e->listener->sock, e->flow, mos__needs(made), &e->wants);
    if (!status && l && !l->raw) status = watch_orphans(l);
    return status ? FAIL(-status) : 0;
}


int mtcp_register_callback(mctx_t mctx, int sock, event_t event, int hook_point, callback_t cb)
{
    if (!mctx) return FAIL(EACCES);
    return (int)THERE(change, -1, sock, (intptr_t)event, hook_point, (intptr_t)cb);
}


int mtcp_unregister_callback(mctx_t mctx, int sock, event_t event, int hook_point) { return mtcp_register_callback(mctx, sock, event, hook_point, NULL); }
