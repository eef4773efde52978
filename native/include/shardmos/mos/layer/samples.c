/* What mOS's samples share: reading "name = value" files, names of events, a little HTTP. Weak: programs bring their own. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "layer.h"
#include "../fallback/applib.h"
#include "../fallback/http_parsing.h"

#define OURS __attribute__((visibility("hidden"), weak))


OURS char *strevent(uint64_t event)
{
    if (event == MOS_EPOLLONESHOT) return (char *)"MOS_EPOLLONESHOT";
    if (event == (uint32_t)MOS_EPOLLET || event == (uint64_t)MOS_EPOLLET) return (char *)"MOS_EPOLLET";
    char *name = event <= UINT32_MAX ? EventToString((uint32_t)event) : NULL;
    return name && strcmp(name, "NULL") ? name : (char *)"Unknown";
}


OURS char *strcbevent(uint64_t event)
{
    static const char *const NAMES[BUILT_IN] = {
        "MOS_ON_PKT_IN",  "MOS_ON_PKT_OUT", "MOS_ON_CONN_START",       "MOS_ON_CONN_SETUP", "MOS_ON_CONN_NEW_DATA", "MOS_ON_ERROR",
        "MOS_ON_TIMEOUT", "MOS_ON_TCP_STATE_CHANGE", "MOS_ON_ORPHAN", "MOS_ON_REXMIT",     "MOS_ON_CONN_END",      "MOS_ON_DEBUG_MESSAGE",
    };
    for (unsigned i = 0; i < BUILT_IN; i++)
        if (event == 1u << i) return (char *)NAMES[i];
    return (char *)"Unknown";
}


static char *trim(char *text)
{
    while (isspace((unsigned char)*text)) text++;
    for (size_t n = strlen(text); n && isspace((unsigned char)text[n - 1]); n--) text[n - 1] = '\0';
    return text;
}


OURS int LoadConfig(char *file_name, struct conf_var *list, int size)
{
    char line[MAX_LINE_LEN];
    FILE *file = file_name ? fopen(file_name, "r") : NULL;
    if (!file) return fprintf(stderr, "%s not found\n", file_name ? file_name : "(no name)"), -1;
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "#")] = '\0';
        char *value = strchr(line, '=');
        if (!value) continue;
        *value++ = '\0';
        value = trim(value);
        for (int i = 0; i < size; i++)
            if (!strcmp(list[i].name, trim(line)) && strlen(value) <= CONF_VALUE_LEN) strcpy(list[i].value, value);
    }
    fclose(file);
    return 0;
}


/* ---- HTTP ---- */

OURS int find_http_header(char *data, int len)
{
    for (int i = 0; i + 1 < len; i++) {
        if (data[i] != '\n') continue;
        int after = data[i + 1] == '\n' ? i + 2 : i + 2 < len && data[i + 1] == '\r' && data[i + 2] == '\n' ? i + 3 : 0;
        if (after) return data[after - 1] = '\0', after;
    }
    return 0;
}


OURS int is_http_request(char *data, int len)
{
    return len >= 4 && !memcmp(data, "GET ", 4) ? GET : len >= 5 && !memcmp(data, "POST ", 5) ? POST : 0;
}

OURS int is_http_response(char *data, int len) { return len >= 5 && !memcmp(data, "HTTP/", 5); }


OURS char *http_header_str_val(const char *buf, const char *key, const int key_len, char *value, int value_len)
{
    if (value_len <= 0) return NULL;
    *value = '\0';
    for (const char *line = strchr(buf, '\n'); line; line = strchr(line, '\n')) {
        if (strncasecmp(++line, key, (size_t)key_len)) continue;
        const char *from = line + key_len + strspn(line + key_len, " \t");
        int n = (int)strcspn(from, "\r\n");
        if (n >= value_len) n = value_len - 1;
        memcpy(value, from, (size_t)n);
        value[n] = '\0';
        return n ? value : NULL;
    }
    return NULL;
}


OURS long int http_header_long_val(const char *buf, const char *key, int key_len)
{
    char value[32], *end;
    if (!http_header_str_val(buf, key, key_len, value, sizeof value)) return -1;
    long n = strtol(value, &end, 10);
    return end == value ? -1 : n;
}


OURS char *http_get_url(char *data, int data_len, char *value, int value_len)
{
    if (value_len > 0) *value = '\0';
    if (value_len <= 0 || data_len < 4 || memcmp(data, "GET ", 4)) return NULL;
    int at = 4, n = 0;
    while (at < data_len && data[at] == ' ') at++;
    while (at + n < data_len && n + 1 < value_len && data[at + n] && !isspace((unsigned char)data[at + n])) value[n] = data[at + n], n++;
    value[n] = '\0';
    return data + at;
}


OURS int http_get_status_code(void *response)
{
    int code;
    return response && sscanf(response, "HTTP/%*d.%*d %3d", &code) == 1 ? code : -1;
}
