/* Loaded by model.py: a module of a given shape whose handlers do nothing, for what calling it costs.
 *
 *   shape=together    `count` handlers of PKT_IN at the SENDER hook, all on one socket
 *   shape=apart       the same, each on a socket of its own
 *   shape=filtered    `count` user-defined events over PKT_IN, each with a filter that says yes and a handler
 *   elsewhere=true    the same, over ERROR, which does not come: what the module costs beside its calls
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shardmos/shardmos.h"

static void empty(void *self, const smos_call_t *call)
{
    (void)self;
    (void)call;
}

static int yes(void *self, const smos_call_t *call)
{
    (void)self;
    (void)call;
    return 1;
}

static int init(smos_engine_t *engine, const smos_api_t *api, void **self, char *error, size_t error_size)
{
    const char *shape = api->param(engine, NULL, "shape");
    int elsewhere = !strcmp(api->param(engine, NULL, "elsewhere"), "true"), status = 0;
    uint32_t event = elsewhere ? SMOS_ERROR : SMOS_PKT_IN;
    for (int i = 0, count = atoi(api->param(engine, NULL, "count")); i < count && status >= 0; i++) {
        smos_sock_t sock = 0;
        uint32_t of = event;
        if (!strcmp(shape, "apart") && i)
            status = api->socket(engine, SMOS_STREAM, &sock);
        if (!strcmp(shape, "filtered"))
            status = api->define_event(engine, event, yes, &i, sizeof i, &of);
        if (status >= 0)
            status = api->register_handler(engine, sock, 0, of, elsewhere ? 0 : SMOS_SENDER, SMOS_BOTH, empty, (void *)(uintptr_t)i);
    }
    *self = NULL;
    if (status < 0)
        snprintf(error, error_size, "%s", api->last_error(engine));
    return status < 0 ? status : 0;
}

static const smos_param_t params[] = {
    {"shape", "str", "together", "together, apart or filtered"},
    {"count", "int", "1", "handlers, or events"},
    {"elsewhere", "bool", "false", "registered for an event that does not come"},
    {NULL, NULL, NULL, NULL},
};

SMOS_MODULE = {SMOS_MODULE_HEADER, .name = "model", .params = params, .init = init};
