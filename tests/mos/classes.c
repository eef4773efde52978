/* Detection with several outcomes: one filter looks for all patterns of a rule file and raises an event for each class of them; filters of their own ask on
 * about one class, two levels deep. */
#define _GNU_SOURCE
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <mos_api.h>

enum { WEB, SHELL, LEAK, CLASSES };
#define KEPT 16 /* bytes of what came before, for patterns that are cut */

struct rule { int class; char pattern[64]; };
struct flow { char text[2][4096]; size_t kept[2]; };
static struct rule rules[32];
static int rule_count, asked, found, of_class[CLASSES], admin, deep, of_admin;
static event_t any, class[CLASSES], to_admin, to_deep;

static bool match(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg)
{
    struct flow *f = mtcp_get_uctx(mctx, sock);
    char *text = f->text[side];
    size_t length = f->kept[side];
    ssize_t got = mtcp_peek(mctx, sock, side, text + length, sizeof(f->text[side]) - 1 - length);
    bool yes = false;
    int i;
    asked++;
    assert(event == any && got >= 0);
    text[length += got] = 0;
    for (i = 0; i < rule_count; i++) {
        if (!memmem(text, length, rules[i].pattern, strlen(rules[i].pattern))) continue;
        yes = true;
        assert(mtcp_raise_event(mctx, class[rules[i].class]) == 0);
    }
    assert(mtcp_raise_event(mctx, to_admin) == -1 && mtcp_raise_event(mctx, MOS_ON_PKT_IN) == -1); /* they happen by themselves */
    return yes;
}

static bool contains(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg)
{
    struct flow *f = mtcp_get_uctx(mctx, sock);
    of_admin += event == to_admin;
    return strstr(f->text[side], arg->arg) != NULL;
}

static void told(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg)
{
    int i;
    found += event == any;
    for (i = 0; i < CLASSES; i++) of_class[i] += event == class[i];
    admin += event == to_admin && !strcmp(arg->arg, "admin");
    deep += event == to_deep && !strcmp(arg->arg, "etc");
    assert(mtcp_raise_event(mctx, class[WEB]) == -1); /* in filters only */
}

static void keep(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg)
{
    struct flow *f = mtcp_get_uctx(mctx, sock);
    size_t length = strlen(f->text[side]), kept = length < KEPT ? length : KEPT;
    memmove(f->text[side], f->text[side] + length - kept, kept + 1);
    f->kept[side] = kept;
}

static void started(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg) { mtcp_set_uctx(mctx, sock, calloc(1, sizeof(struct flow))); }
static void ended(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg) { if (side == MOS_SIDE_SVR) free(mtcp_get_uctx(mctx, sock)); }
static bool always(mctx_t mctx, int sock, int side, event_t event, filter_arg_t *arg) { return true; }

static void read_rules(const char *path)
{
    char line[256], name[16];
    FILE *file = fopen(path, "r");
    if (!file) perror(path), exit(1);
    while (rule_count < 32 && fgets(line, sizeof(line), file))
        if (sscanf(line, "%15s \"%63[^\"]\"", name, rules[rule_count].pattern) == 2)
            rules[rule_count++].class = !strcmp(name, "web") ? WEB : !strcmp(name, "shell") ? SHELL : LEAK;
    fclose(file);
}

int main(int argc, char **argv)
{
    filter_arg_t admin_arg = {"admin", 6}, deep_arg = {"etc", 4};
    mctx_t mctx = mtcp_create_context(0);
    int i, sock = mtcp_socket(mctx, AF_INET, MOS_SOCK_MONITOR_STREAM, 0);
    read_rules(argv[1]);
    any = mtcp_define_event(MOS_ON_CONN_NEW_DATA, match, NULL);
    for (i = 0; i < CLASSES; i++) class[i] = mtcp_alloc_event(any);
    to_admin = mtcp_define_event(class[WEB], contains, &admin_arg);
    to_deep = mtcp_define_event(to_admin, contains, &deep_arg);
    assert(class[WEB] != class[SHELL] && mtcp_define_event(MOS_ON_CONN_NEW_DATA, match, NULL) == any && !mtcp_alloc_event(MOS_ON_PKT_IN));
    mtcp_define_event(class[SHELL], contains, &admin_arg); /* nobody registers for it: it is not asked */
    mtcp_register_callback(mctx, sock, MOS_ON_CONN_START, MOS_HK_SND, started);
    mtcp_register_callback(mctx, sock, MOS_ON_CONN_END, MOS_HK_SND, ended);
    for (i = 0; i < CLASSES; i++) assert(mtcp_register_callback(mctx, sock, class[i], MOS_NULL, told) == 0);
    assert(!mtcp_register_callback(mctx, sock, any, MOS_NULL, told) && !mtcp_register_callback(mctx, sock, to_admin, MOS_NULL, told));
    assert(!mtcp_register_callback(mctx, sock, to_deep, MOS_NULL, told) && mtcp_register_callback(mctx, sock, to_deep, MOS_HK_SND, told) == -1);
    assert(!mtcp_register_callback(mctx, sock, mtcp_define_event(MOS_ON_CONN_NEW_DATA, always, NULL), MOS_NULL, keep)); /* registered last, told last */
    mtcp_app_join(mctx);
    printf("asked %d, found %d, web %d, shell %d, leak %d, admin %d of %d, deep %d\n", asked, found, of_class[WEB], of_class[SHELL], of_class[LEAK], admin, of_admin, deep);
    return 0;
}
