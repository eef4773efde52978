/* module.h: PREPARE: from a manifest to a box that a shard can commit. Runs in any thread; touches no flow state. */
#ifndef SMOS__MODULE_H
#define SMOS__MODULE_H

#include "event/events.h"

/* Checks the manifest, copies it, compiles the filter, reserves per-flow state for `capacity` slots. NULL with one line in `error`. */
smos_box_t *smos__box_make(const smos_module_t *manifest, const char *version, uint32_t capacity, char *error);
void smos__box_destroy(smos_box_t *);

/* Parameters "key=value" against the declared ones: unknown names and wrong types are refused. 0, -EINVAL. */
int smos__box_parameters(smos_box_t *, const char *const *params, int count, char *error);
const char *smos__box_parameter(const smos_box_t *, const char *name);

/* The box whose init() runs in this thread, for api->param. */
extern __thread smos_box_t *smos__box_preparing;

#endif
