/* What a program finds in libc and must not do to the worker: ending it, its options, its cores (signals: signals.c). Each is hidden, so that these are
 * the program's alone; weak, so that a program may bring its own. */
#include <dlfcn.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "layer.h"

#define OURS __attribute__((visibility("hidden"), weak))


/* ---- the end ---- */

OURS void exit(int status) { mos__exit(status); }
OURS void _exit(int status) { mos__exit(status); }
OURS void _Exit(int status) { mos__exit(status); }
OURS void quick_exit(int status) { mos__exit(status); }

OURS void abort(void)
{
    fprintf(stderr, "the program called abort()\n");
    mos__exit(134);
}


OURS void __assert_fail(const char *what, const char *file, unsigned line, const char *function)
{
    fprintf(stderr, "%s:%u: %s: assertion `%s' failed\n", file, line, function ? function : "?", what);
    mos__exit(134);
}


/* ---- cores ---- */

OURS long sysconf(int name)
{
    static long (*real)(int);
    if (name == _SC_NPROCESSORS_ONLN || name == _SC_NPROCESSORS_CONF) return 1;
    if (!real) real = (long (*)(int))dlsym(RTLD_DEFAULT, "sysconf");
    return real ? real(name) : -1;
}

OURS int get_nprocs(void) { return 1; }
OURS int get_nprocs_conf(void) { return 1; }
OURS int GetNumCPUs(void) { return 1; }
OURS pid_t Gettid(void) { return (pid_t)syscall(SYS_gettid); }


/* ---- options: GNU's order, in which options and operands may be mixed ---- */

OURS char *optarg;
OURS int optind = 1, opterr = 1, optopt = '?';
static char *next_letter;
static int first_operand, last_operand; /* operands passed over: argv[first..last) */


static void exchange(char **argv)
{
    /* argv[first, last) are operands, argv[last, optind) options that came behind them. */
    int operands = last_operand - first_operand, options = optind - last_operand;
    for (int k = 0; k < options; k++) {
        char *option = argv[last_operand + k];
        memmove(&argv[first_operand + k + 1], &argv[first_operand + k], (size_t)operands * sizeof *argv);
        argv[first_operand + k] = option;
    }
    first_operand += options;
    last_operand = optind;
}


static void complain(char *const *argv, const char *what, const char *name, int length)
{
    if (opterr) fprintf(stderr, "%s: %s -- '%.*s'\n", argv[0] ? argv[0] : "", what, length, name);
}


static int take_long(int argc, char **argv, const char *missing, const struct option *options, int *index, char *text)
{
    const char *equals = strchr(text, '=');
    size_t length = equals ? (size_t)(equals - text) : strlen(text);
    int found = -1, matches = 0;
    for (int i = 0; options[i].name; i++) {
        if (strncmp(options[i].name, text, length)) continue;
        found = i;
        if (strlen(options[i].name) == length) {
            matches = 1;
            break;
        }
        matches++;
    }
    optind++;
    if (matches != 1) {
        complain(argv, matches ? "ambiguous option" : "unrecognized option", text, (int)length);
        optopt = 0;
        return '?';
    }
    const struct option *o = &options[found];
    if (equals && o->has_arg == no_argument) return complain(argv, "option takes no argument", text, (int)length), optopt = o->val, '?';
    if (equals) optarg = (char *)equals + 1;
    else if (o->has_arg == required_argument && optind < argc) optarg = argv[optind++];
    else if (o->has_arg == required_argument) return complain(argv, "option requires an argument", text, (int)length), optopt = o->val, *missing == ':' ? ':' : '?';
    if (index) *index = found;
    if (!o->flag) return o->val;
    *o->flag = o->val;
    return 0;
}


static int take_letter(int argc, char **argv, const char *letters)
{
    int letter = *next_letter++;
    const char *known = letter == ':' ? NULL : strchr(letters, letter);
    if (!known) {
        complain(argv, "invalid option", (char[]){(char)letter}, 1);
        optopt = letter;
        if (!*next_letter) optind++;
        return '?';
    }
    if (known[1] != ':') {
        if (!*next_letter) optind++;
        return letter;
    }
    if (*next_letter) {
        optarg = next_letter;
        optind++;
    } else if (known[2] == ':') {
        optind++;
    } else if (++optind < argc) {
        optarg = argv[optind++];
    } else {
        complain(argv, "option requires an argument", (char[]){(char)letter}, 1);
        optopt = letter;
        letter = *letters == ':' || ((*letters == '+' || *letters == '-') && letters[1] == ':') ? ':' : '?';
    }
    next_letter = NULL;
    return letter;
}


static int take(int argc, char **argv, const char *letters, const struct option *options, int *index, bool only)
{
    bool in_order = *letters == '+';
    if (optind == 0) optind = 1, next_letter = NULL;
    if (optind == 1 && !next_letter) first_operand = last_operand = 1;
    optarg = NULL;
    if (next_letter && *next_letter) return take_letter(argc, argv, letters);
    next_letter = NULL;
    if (last_operand > optind) last_operand = optind;
    if (first_operand > optind) first_operand = optind;
    if (first_operand != last_operand && last_operand != optind) exchange(argv);
    else if (last_operand != optind) first_operand = last_operand = optind;
    if (!in_order) {
        while (optind < argc && (argv[optind][0] != '-' || !argv[optind][1])) optind++;
        last_operand = optind;
    }
    if (optind < argc && !strcmp(argv[optind], "--")) {
        optind++;
        if (first_operand != last_operand && last_operand != optind) exchange(argv);
        else if (first_operand == last_operand) first_operand = optind;
        last_operand = optind = argc;
        if (first_operand != last_operand) optind = first_operand;
        return -1;
    }
    if (optind >= argc || argv[optind][0] != '-' || !argv[optind][1]) {
        if (first_operand != last_operand) optind = first_operand;
        return -1;
    }
    if (options && argv[optind][1] == '-') return take_long(argc, argv, letters + (*letters == '+' || *letters == '-'), options, index, argv[optind] + 2);
    if (options && only && (argv[optind][2] || !strchr(letters, argv[optind][1])))
        return take_long(argc, argv, letters + (*letters == '+' || *letters == '-'), options, index, argv[optind] + 1);
    next_letter = argv[optind] + 1;
    return take_letter(argc, argv, letters + (*letters == '+' || *letters == '-'));
}


OURS int getopt(int argc, char *const argv[], const char *letters) { return take(argc, (char **)argv, letters, NULL, NULL, false); }

OURS int getopt_long(int argc, char *const argv[], const char *letters, const struct option *options, int *index)
{
    return take(argc, (char **)argv, letters, options, index, false);
}

OURS int getopt_long_only(int argc, char *const argv[], const char *letters, const struct option *options, int *index)
{
    return take(argc, (char **)argv, letters, options, index, true);
}
