#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "module/module.h"

#define MAX_STATE 4096

static bool valid_name(const char *name)
{
    size_t n = name ? strnlen(name, 64) : 0;
    if (!n || n > 63) return false;
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)name[i]) && name[i] != '_' && name[i] != '-') return false;
    return true;
}


static int take_registrations(smos_box_t *box, const smos_registration_t *regs, char *error)
{
    for (int i = 0; regs && regs[i].event != SMOS_EVENT_COUNT; i++) {
        const smos_registration_t *r = &regs[i];
        if (i >= SMOS__MAX_HANDLERS) return snprintf(error, SMOS_ERROR_SIZE, "module %s registers more than %d handlers", box->name, SMOS__MAX_HANDLERS), -EINVAL;
        if (r->event > SMOS_EVENT_COUNT) return snprintf(error, SMOS_ERROR_SIZE, "module %s registers for event %d, which this engine does not know", box->name, r->event), -EINVAL;
        if (!r->handler) return snprintf(error, SMOS_ERROR_SIZE, "module %s registers no handler for event %d", box->name, r->event), -EINVAL;
        if (r->side > SMOS_BOTH || r->hook > (SMOS_SENDER | SMOS_RECEIVER))
            return snprintf(error, SMOS_ERROR_SIZE, "module %s registers for event %d with an unknown side or hook", box->name, r->event), -EINVAL;
        if (r->hook && !smos__default_hooks(r->event))
            return snprintf(error, SMOS_ERROR_SIZE, "module %s registers for event %d at a hook, but that event has none", box->name, r->event), -EINVAL;
        int status = smos__wants_add(&box->sockets[0]->wants, box, r->event, r->hook, r->side, r->handler, NULL);
        if (status) return snprintf(error, SMOS_ERROR_SIZE, "module %s: its handler of event %d cannot be registered: %s", box->name, r->event, strerror(-status)), -EINVAL;
    }
    return 0;
}


smos_box_t *smos__box_make(const smos_module_t *m, const char *version, uint32_t capacity, char *error)
{
    if (!valid_name(m->name)) return snprintf(error, SMOS_ERROR_SIZE, "a module's name must be 1 to 63 letters, digits, '-' or '_'"), NULL;
    if (m->state_size > MAX_STATE) return snprintf(error, SMOS_ERROR_SIZE, "module %s asks for %u bytes of state per flow; at most %d", m->name, m->state_size, MAX_STATE), NULL;
    smos_box_t *box = calloc(1, sizeof *box);
    if (!box) return snprintf(error, SMOS_ERROR_SIZE, "module %s: out of memory", m->name), NULL;
    box->library_fd = -1;
    box->module = *m;
    snprintf(box->name, sizeof box->name, "%s", m->name);
    snprintf(box->version, sizeof box->version, "%s", version ? version : "");
    memcpy(box->stats.name, box->name, sizeof box->name);
    memcpy(box->stats.version, box->version, sizeof box->version);
    for (int i = 0; i < 16; i++) box->untimed[i] = SMOS__CYCLE_SAMPLE;
    box->module.name = box->name;
    box->capacity = capacity;
    if (!smos__socket_make(box, SMOS_STREAM)) {
        snprintf(error, SMOS_ERROR_SIZE, "module %s: out of memory", m->name);
        return smos__box_destroy(box), NULL;
    }
    if (take_registrations(box, m->registrations, error) < 0) return smos__box_destroy(box), NULL;
    char why[256] = "";
    int status = smos__socket_filter(box->sockets[0], m->filter, NULL, why, sizeof why);
    if (status) {
        snprintf(error, SMOS_ERROR_SIZE, "module %s: bad filter \"%.120s\": %s", box->name, m->filter ? m->filter : "", status == -EINVAL ? why : strerror(-status));
        return smos__box_destroy(box), NULL;
    }
    if (m->state_size) {
        /* Reserved by slot and touched when a flow joins: no allocation per flow. */
        box->state_bytes = (size_t)capacity * m->state_size;
        void *state = mmap(NULL, box->state_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (state == MAP_FAILED) {
            box->state_bytes = 0;
            snprintf(error, SMOS_ERROR_SIZE, "module %s: no address space for its state of %u bytes per flow", box->name, m->state_size);
            return smos__box_destroy(box), NULL;
        }
        box->state = state;
        box->per_flow = true;
    }
    return box;
}


void smos__box_destroy(smos_box_t *box)
{
    for (int i = 0; i < SMOS_MAX_MODULES; i++) smos__socket_free(box->sockets[i]);
    smos__definitions_free(box);
    if (box->state) munmap(box->state, box->state_bytes);
    for (int i = 0; i < box->param_count; i++) {
        free(box->param_names[i]);
        free(box->param_values[i]);
    }
    free(box->pending);
    for (uint32_t i = 0; i < box->line_count; i++) free(box->lines[i].text);
    free(box->param_names);
    free(box->param_values);
    free(box);
}


const char *smos_box_name(const smos_box_t *box) { return box->name; }
int smos_box_idle(const smos_box_t *box) { return box->idle; }
void smos_box_count_error(smos_box_t *box) { box->stats.errors++; }
