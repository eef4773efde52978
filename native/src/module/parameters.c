/* The parameters of a C module: text, checked against the declared type before init() sees them. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "module/module.h"


static bool is_type(const char *type) { return !strcmp(type, "str") || !strcmp(type, "bool") || !strcmp(type, "int") || !strcmp(type, "float"); }


static bool has_type(const char *value, const char *type)
{
    char *end;
    errno = 0;
    if (!strcmp(type, "str")) return true;
    if (!strcmp(type, "bool")) return !strcmp(value, "true") || !strcmp(value, "false") || !strcmp(value, "1") || !strcmp(value, "0");
    if (!*value) return false;
    if (!strcmp(type, "int")) return strtoll(value, &end, 0), !*end && !errno;
    if (!strcmp(type, "float")) return strtod(value, &end), !*end && !errno;
    return false;
}


int smos__box_parameters(smos_box_t *box, const char *const *params, int count, char *error)
{
    const smos_param_t *declared = box->module.params;
    int n = 0;
    while (declared && declared[n].name) n++;
    box->param_names = calloc((size_t)n + 1, sizeof *box->param_names);
    box->param_values = calloc((size_t)n + 1, sizeof *box->param_values);
    if (!box->param_names || !box->param_values) goto OutOfMemory;
    for (int i = 0; i < n; i++) {
        const char *type = declared[i].type ? declared[i].type : "str", *value = declared[i].default_value ? declared[i].default_value : "";
        if (!is_type(type)) {
            snprintf(error, SMOS_ERROR_SIZE, "module %s: parameter %.64s is of type \"%.64s\"; there are int, float, bool and str", box->name, declared[i].name, type);
            return -EINVAL;
        }
        if (declared[i].default_value && !has_type(value, type)) {
            snprintf(error, SMOS_ERROR_SIZE, "module %s: parameter %.64s is of type %s; its default \"%.64s\" is not", box->name, declared[i].name, type, value);
            return -EINVAL;
        }
        box->param_names[i] = strdup(declared[i].name);
        box->param_values[i] = strdup(value);
        box->param_count = i + 1;
        if (!box->param_names[i] || !box->param_values[i]) goto OutOfMemory;
    }
    for (int k = 0; k < count; k++) {
        const char *equals = strchr(params[k], '=');
        size_t length = equals ? (size_t)(equals - params[k]) : strlen(params[k]);
        int i = 0;
        while (i < n && !(strlen(box->param_names[i]) == length && !memcmp(box->param_names[i], params[k], length))) i++;
        if (!equals || i == n) {
            snprintf(error, SMOS_ERROR_SIZE, "module %s has no parameter \"%.*s\"", box->name, (int)(length > 64 ? 64 : length), params[k]);
            return -EINVAL;
        }
        if (!has_type(equals + 1, declared[i].type ? declared[i].type : "str")) {
            snprintf(error, SMOS_ERROR_SIZE, "module %s: parameter %s is of type %s; \"%.64s\" is not", box->name, declared[i].name, declared[i].type, equals + 1);
            return -EINVAL;
        }
        char *value = strdup(equals + 1);
        if (!value) goto OutOfMemory;
        free(box->param_values[i]);
        box->param_values[i] = value;
    }
    return 0;
OutOfMemory:
    snprintf(error, SMOS_ERROR_SIZE, "module %s: out of memory", box->name);
    return -ENOMEM;
}


const char *smos__box_parameter(const smos_box_t *box, const char *name)
{
    for (int i = 0; i < box->param_count; i++)
        if (!strcmp(box->param_names[i], name)) return box->param_values[i];
    return NULL;
}
