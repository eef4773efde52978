/* synwatch: connections that were asked for, answered, and refused; says so when too many go unanswered.
 *
 *     shardmos push examples/synwatch.c --set every=500
 */
#include <shardmos/shardmos.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct {
    smos_engine_t *engine;
    const smos_api_t *api;
    uint64_t asked, answered, refused, ended;
    uint64_t every;
} synwatch_t;

typedef struct {
    uint8_t asked, answered;
} flow_t;


static void on_start(void *self, const smos_call_t *call)
{
    synwatch_t *w = self;
    flow_t *flow = call->state;
    if (call->tuple->proto != 6 || flow->asked) return;
    flow->asked = 1;
    w->asked++;
}


static void on_setup(void *self, const smos_call_t *call)
{
    synwatch_t *w = self;
    flow_t *flow = call->state;
    if (!flow->asked || flow->answered) return;
    flow->answered = 1;
    w->answered++;
}


static void on_end(void *self, const smos_call_t *call)
{
    synwatch_t *w = self;
    flow_t *flow = call->state;
    if (!flow->asked) return; /* older than this module, or the other side was told already */
    if (!flow->answered && call->detail == SMOS_END_RST) w->refused++;
    flow->asked = 0;
    if (w->every && ++w->ended % w->every == 0) {
        char text[160];
        int length = snprintf(text, sizeof text, "asked %llu, answered %llu, refused %llu", (unsigned long long)w->asked,
                              (unsigned long long)w->answered, (unsigned long long)w->refused);
        w->api->emit(w->engine, "summary", text, (size_t)length);
    }
}


static int init(smos_engine_t *engine, const smos_api_t *api, void **self, char *error, size_t error_size)
{
    synwatch_t *w = calloc(1, sizeof *w);
    if (!w) {
        snprintf(error, error_size, "out of memory");
        return -ENOMEM;
    }
    w->engine = engine;
    w->api = api;
    *self = w;
    const char *every = api->param(engine, w, "every");
    w->every = every ? strtoull(every, NULL, 10) : 0;
    return 0;
}


static const smos_param_t params[] = {
    {"every", "int", "1000", "publish a summary after so many connections that end; 0 never"},
    {NULL, NULL, NULL, NULL},
};

static const smos_registration_t registrations[] = {
    {.event = SMOS_CONN_START, .side = SMOS_BOTH, .handler = on_start},
    {.event = SMOS_CONN_SETUP, .side = SMOS_BOTH, .handler = on_setup},
    {.event = SMOS_CONN_END, .side = SMOS_BOTH, .handler = on_end},
    {.event = SMOS_EVENT_COUNT},
};

SMOS_MODULE = {
    SMOS_MODULE_HEADER,
    .name = "synwatch",
    .filter = "tcp",
    .state_size = sizeof(flow_t),
    .layout = 1,
    .params = params,
    .registrations = registrations,
    .init = init,
    .fini = free,
};
