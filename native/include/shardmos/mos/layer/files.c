/* Relative paths count from the folder where the program was started or pushed from, whatever the worker's own is. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "layer.h"

#define OURS __attribute__((visibility("hidden"), weak))
#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_DEFAULT, name)

static const char *folder = "";


void mos__set_folder(const char *path) { folder = path; }


static const char *from_folder(const char *path, char *room)
{
    if (!path || !*path || *path == '/' || !*folder) return path;
    return snprintf(room, PATH_MAX, "%s/%s", folder, path) < PATH_MAX ? room : path;
}


/* Live workers change no files. That is told once: programs seldom say why. */
static void told(bool failed, const char *path)
{
    static bool once;
    int error = errno;
    if (!failed || error != EPERM || once) return;
    once = true;
    mos__warn("%s: %s (workers of `shardmos up` may not change files: docs/mos.md)", path, strerror(error));
    errno = error;
}


OURS FILE *fopen(const char *path, const char *mode)
{
    char room[PATH_MAX];
    REAL(FILE *, "fopen", const char *, const char *);
    FILE *file = real ? real(from_folder(path, room), mode) : NULL;
    told(!file, path);
    return file;
}

OURS FILE *fopen64(const char *path, const char *mode) { return fopen(path, mode); }


OURS FILE *freopen(const char *path, const char *mode, FILE *file)
{
    char room[PATH_MAX];
    REAL(FILE *, "freopen", const char *, const char *, FILE *);
    return real ? real(from_folder(path, room), mode, file) : NULL;
}


OURS int open(const char *path, int flags, ...)
{
    char room[PATH_MAX];
    va_list args;
    REAL(int, "open", const char *, int, ...);
    va_start(args, flags);
    mode_t mode = (mode_t)(flags & O_CREAT ? va_arg(args, int) : 0);
    va_end(args);
    int file = real ? real(from_folder(path, room), flags, mode) : FAIL(ENOSYS);
    told(file < 0, path);
    return file;
}

OURS int open64(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = (mode_t)(flags & O_CREAT ? va_arg(args, int) : 0);
    va_end(args);
    return open(path, flags, mode);
}


OURS int creat(const char *path, mode_t mode) { return open(path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
OURS int creat64(const char *path, mode_t mode) { return creat(path, mode); }


OURS DIR *opendir(const char *path)
{
    char room[PATH_MAX];
    REAL(DIR *, "opendir", const char *);
    return real ? real(from_folder(path, room)) : NULL;
}


/* ---- of one path ---- */

#define OF_PATH(name) \
    OURS int name(const char *path) \
    { \
        char room[PATH_MAX]; \
        REAL(int, #name, const char *); \
        int status = real ? real(from_folder(path, room)) : FAIL(ENOSYS); \
        told(status, path); \
        return status; \
    }
OF_PATH(unlink)
OF_PATH(remove)
OF_PATH(rmdir)

#define OF_PATH_AND(name, type) \
    OURS int name(const char *path, type value) \
    { \
        char room[PATH_MAX]; \
        REAL(int, #name, const char *, type); \
        int status = real ? real(from_folder(path, room), value) : FAIL(ENOSYS); \
        told(status, path); \
        return status; \
    }
OF_PATH_AND(access, int)
OF_PATH_AND(mkdir, mode_t)
OF_PATH_AND(mkfifo, mode_t)
OF_PATH_AND(chmod, mode_t)
OF_PATH_AND(truncate, off_t)


OURS int rename(const char *from, const char *to)
{
    char room[PATH_MAX], another[PATH_MAX];
    REAL(int, "rename", const char *, const char *);
    return real ? real(from_folder(from, room), from_folder(to, another)) : FAIL(ENOSYS);
}


/* stat64 and lstat64 are what stat and lstat are called where a program asks for large files: the same here. */
#define STAT(name, out_type, flags) \
    OURS int name(const char *restrict path, out_type *restrict out) \
    { \
        char room[PATH_MAX]; \
        return fstatat(AT_FDCWD, from_folder(path, room), (struct stat *)out, flags); \
    }
STAT(stat, struct stat, 0)
STAT(stat64, struct stat64, 0)
STAT(lstat, struct stat, AT_SYMLINK_NOFOLLOW)
STAT(lstat64, struct stat64, AT_SYMLINK_NOFOLLOW)


/* ---- the folder itself: the worker's own stays where it is ---- */

OURS int chdir(const char *path)
{
    char room[PATH_MAX], whole[PATH_MAX];
    struct stat what;
    if (!realpath(from_folder(path, room), whole) || stat(whole, &what)) return -1;
    if (!S_ISDIR(what.st_mode)) return FAIL(ENOTDIR);
    char *kept = strdup(whole); /* never freed: other threads may be reading the one before */
    if (!kept) return FAIL(ENOMEM);
    folder = kept;
    return 0;
}


OURS char *getcwd(char *out, size_t size)
{
    REAL(char *, "getcwd", char *, size_t);
    if (!*folder || !real) return real ? real(out, size) : NULL;
    size_t length = strlen(folder) + 1;
    if (out && size < length) return errno = size ? ERANGE : EINVAL, NULL;
    if (!out) out = malloc(size > length ? size : length);
    return out ? memcpy(out, folder, length) : NULL;
}
