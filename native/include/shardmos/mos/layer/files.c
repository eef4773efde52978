/* Relative paths count from the folder where the program was started or pushed from, whatever the worker's own is. */
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
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


OURS FILE *fopen(const char *path, const char *mode)
{
    char room[PATH_MAX];
    REAL(FILE *, "fopen", const char *, const char *);
    return real ? real(from_folder(path, room), mode) : NULL;
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
    return real ? real(from_folder(path, room), flags, mode) : FAIL(ENOSYS);
}

OURS int open64(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = (mode_t)(flags & O_CREAT ? va_arg(args, int) : 0);
    va_end(args);
    return open(path, flags, mode);
}


OURS int access(const char *path, int mode)
{
    char room[PATH_MAX];
    REAL(int, "access", const char *, int);
    return real ? real(from_folder(path, room), mode) : FAIL(ENOSYS);
}


OURS int mkdir(const char *path, mode_t mode)
{
    char room[PATH_MAX];
    REAL(int, "mkdir", const char *, mode_t);
    return real ? real(from_folder(path, room), mode) : FAIL(ENOSYS);
}


OURS DIR *opendir(const char *path)
{
    char room[PATH_MAX];
    REAL(DIR *, "opendir", const char *);
    return real ? real(from_folder(path, room)) : NULL;
}


OURS int stat(const char *restrict path, struct stat *restrict out)
{
    char room[PATH_MAX];
    return fstatat(AT_FDCWD, from_folder(path, room), out, 0);
}
