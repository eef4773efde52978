/* User-defined events: a table that only grows, guarded by a lock: mOS programs define events before they have a context. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "life.h"

#define MAX_RAISED 64

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static ude_t *events[MAX_EVENTS];
static uint32_t event_count;
static event_t raised[MAX_RAISED];
static int raised_count;


const ude_t *mos__ude(event_t event)
{
    if (event < FIRST_EVENT || event >= FIRST_EVENT + __atomic_load_n(&event_count, __ATOMIC_ACQUIRE)) return NULL;
    return events[event - FIRST_EVENT];
}


int mos__root(event_t event)
{
    const ude_t *u = mos__ude(event);
    if (u) return u->root;
    if (!event || event >= 1 << BUILT_IN || event & (event - 1)) return -1;
    return __builtin_ctzll(event);
}


static ude_t *equal(event_t parent, filter_t filter, const filter_arg_t *arg)
{
    size_t length = arg ? arg->len : 0;
    for (uint32_t i = 0; i < event_count; i++) {
        ude_t *u = events[i];
        if (u->parent == parent && u->filter == filter && u->arg.len == length && (!length || !memcmp(u->arg.arg, arg->arg, length))) return u;
    }
    return NULL;
}


static ude_t *add(event_t parent, filter_t filter, const filter_arg_t *arg)
{
    if (event_count == MAX_EVENTS) return errno = ENOMEM, NULL;
    ude_t *u = calloc(1, sizeof *u);
    if (!u) return errno = ENOMEM, NULL;
    *u = (ude_t){.id = FIRST_EVENT + event_count, .parent = parent, .root = mos__root(parent), .filter = filter};
    if (arg && arg->len) {
        u->arg = (filter_arg_t){malloc(arg->len), arg->len};
        if (!u->arg.arg) return free(u), errno = ENOMEM, NULL;
        memcpy(u->arg.arg, arg->arg, arg->len);
    }
    events[event_count] = u;
    __atomic_store_n(&event_count, event_count + 1, __ATOMIC_RELEASE);
    return u;
}


static event_t define(event_t parent, filter_t filter, const filter_arg_t *arg)
{
    mos__hold(&lock);
    ude_t *u = filter ? equal(parent, filter, arg) : NULL;
    if (!u) u = add(parent, filter, arg);
    pthread_mutex_unlock(&lock);
    return u ? u->id : MOS_NULL_EVENT;
}


event_t mtcp_define_event(event_t event, filter_t filter, struct filter_arg *arg)
{
    if (mos__root(event) < 0 || !filter || (arg && arg->len && !arg->arg)) return errno = EINVAL, MOS_NULL_EVENT;
    return define(event, filter, arg);
}


event_t mtcp_alloc_event(event_t event)
{
    const ude_t *parent = mos__ude(event);
    if (!parent || !parent->filter) return errno = EINVAL, MOS_NULL_EVENT; /* nobody could raise it */
    return define(event, NULL, NULL);
}


int mtcp_raise_event(mctx_t mctx, event_t event)
{
    const ude_t *u = mos__ude(event);
    if (!mctx || !u || u->filter) return FAIL(EINVAL);
    if (!mos__here || !mos__now.question || mos__now.question->id != u->parent) return FAIL(EPERM);
    if (mos__raised(event)) return 0;
    if (raised_count == MAX_RAISED) return FAIL(ENOMEM);
    raised[raised_count++] = event;
    return 0;
}


bool mos__raised(event_t event)
{
    for (int i = 0; i < raised_count; i++)
        if (raised[i] == event) return true;
    return false;
}


bool mos__happened(const ude_t *u, int sock, int side)
{
    int kept = 0;
    for (int i = 0; i < raised_count; i++) /* what it raised the last time */
        if (mos__ude(raised[i])->parent != u->id) raised[kept++] = raised[i];
    raised_count = kept;
    const ude_t *before = mos__now.question;
    filter_arg_t arg = u->arg;
    mos__now.question = u;
    bool yes = u->filter(&mos__context, sock, side, u->id, arg.len ? &arg : NULL);
    mos__now.question = before;
    return yes;
}
