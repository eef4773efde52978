/* C modules: a shared object by descriptor, its manifest, its init(). And boxes of the embedder. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "module/module.h"
#include "shard/shard.h"

__thread smos_box_t *smos__box_preparing;


static int check_manifest(const smos_module_t *m, const char *path, char *error)
{
    if (m->magic != SMOS_MODULE_MAGIC) {
        snprintf(error, SMOS_ERROR_SIZE, "%s: smos_module is no shardmos manifest (wrong magic; start it with SMOS_MODULE_HEADER)", path);
        return -EINVAL;
    }
    if (m->abi_major != SMOS_ABI_MAJOR || m->abi_minor > SMOS_ABI_MINOR) {
        snprintf(error, SMOS_ERROR_SIZE, "%s was compiled for module ABI %u.%u, this engine has %u.%u: compile it against this engine's headers", path, m->abi_major,
                 m->abi_minor, SMOS_ABI_MAJOR, SMOS_ABI_MINOR);
        return -EINVAL;
    }
    return 0;
}


smos_box_t *smos_box_load(smos_shard_t *shard, int fd, const char *path, const char *version, const char *const *params, int count, char *error)
{
    char name[64];
    smos_box_t *box = NULL;
    void *library = NULL;
    /* The loader knows libraries by name: the descriptor, and so the name, stays ours for as long as the library is loaded. */
    int own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (own < 0) return snprintf(error, SMOS_ERROR_SIZE, "%s: %s", path, strerror(errno)), NULL;
    snprintf(name, sizeof name, "/proc/self/fd/%d", own);
    library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        const char *why = dlerror();
        snprintf(error, SMOS_ERROR_SIZE, "%s does not load: %.400s", path, why ? why : "unknown reason");
        goto Refused;
    }
    const smos_module_t *manifest = dlsym(library, "smos_module");
    if (!manifest) {
        snprintf(error, SMOS_ERROR_SIZE, "%s defines no smos_module (see SMOS_MODULE in shardmos.h)", path);
        goto Refused;
    }
    if (check_manifest(manifest, path, error) < 0) goto Refused;
    box = smos__box_make(manifest, version, smos_shard_flow_limit(shard), error);
    if (!box) goto Refused;
    if (smos__box_parameters(box, params, count, error) < 0) goto Refused;
    if (manifest->init) {
        char why[SMOS_ERROR_SIZE] = "";
        smos__box_preparing = box;
        int status = manifest->init(smos_shard_engine(shard), smos_shard_api(), &box->self, why, sizeof why);
        smos__box_preparing = NULL;
        if (status) {
            why[sizeof why - 1] = '\0';
            snprintf(error, SMOS_ERROR_SIZE, "module %s: init failed: %.400s", box->name, why[0] ? why : strerror(status < 0 ? -status : status));
            goto Refused;
        }
    }
    box->library = library;
    box->library_fd = own;
    return box;
Refused:
    if (box) smos__box_destroy(box);
    if (library) dlclose(library);
    close(own);
    return NULL;
}


smos_box_t *smos_box_create(smos_shard_t *shard, const smos_module_t *manifest, const char *version, void *self, void (*release)(void *), char *error)
{
    smos_box_t *box = smos__box_make(manifest, version, smos_shard_flow_limit(shard), error);
    if (!box) return NULL;
    box->module.filter = NULL; /* the embedder's strings need not outlive this call */
    box->module.params = NULL;
    box->module.registrations = NULL;
    box->self = self;
    box->release = release;
    box->embedded = true;
    return box;
}


void smos_box_free(smos_box_t *box)
{
    if (!box) return;
    void *library = box->library;
    int fd = box->library_fd;
    if (box->release)
        box->release(box->self);
    else if (library && box->module.fini)
        box->module.fini(box->self);
    smos__box_destroy(box);
    if (library) dlclose(library);
    if (fd >= 0) close(fd);
}
