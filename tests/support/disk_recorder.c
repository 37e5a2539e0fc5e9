/* Preloaded into a process: writes down what it writes to the files of a database, and what it syncs.
 *
 * One record: kind (W write, T truncate, S sync, U unlink, A what was told), offset, length of the name, length of the
 * data; then the name and the data. DISK_RECORD names the file of the records, DISK_DIRECTORY the directory to watch.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

struct header {
    int64_t kind, offset, name_length, data_length;
};

static int records = -1;
static const char *directory;
static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off64_t);
static int (*real_truncate)(int, off64_t);
static int (*real_fsync)(int), (*real_fdatasync)(int), (*real_unlink)(const char *);

__attribute__((constructor)) static void begin(void)
{
    real_write = dlsym(RTLD_NEXT, "write");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    real_truncate = dlsym(RTLD_NEXT, "ftruncate64");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_unlink = dlsym(RTLD_NEXT, "unlink");
    directory = getenv("DISK_DIRECTORY");
    if (directory && getenv("DISK_RECORD"))
        records = open(getenv("DISK_RECORD"), O_CREAT | O_APPEND | O_WRONLY | O_CLOEXEC, 0600);
}

static const char *watched(const char *path)
{
    size_t length = directory ? strlen(directory) : 0;
    return records >= 0 && length && !strncmp(path, directory, length) && path[length] == '/' ? path + length + 1 : NULL;
}

static const char *name_of(int descriptor, char *path)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = records < 0 || descriptor == records ? -1 : readlink(link, path, 1023);
    if (length < 0)
        return NULL;
    path[length] = 0;
    return watched(path);
}

static void record(char kind, const char *name, int64_t offset, const void *data, size_t length)
{
    struct header header = {kind, offset, (int64_t)strlen(name), (int64_t)length};
    pthread_mutex_lock(&one_at_a_time);
    real_write(records, &header, sizeof header);
    real_write(records, name, strlen(name));
    if (length)
        real_write(records, data, length);
    pthread_mutex_unlock(&one_at_a_time);
}

ssize_t write(int descriptor, const void *data, size_t length)
{
    char path[1024];
    const char *name = name_of(descriptor, path);
    ssize_t written = real_write(descriptor, data, length);
    if (name && written > 0) {
        int is_told = !strcmp(name, "told");
        record(is_told ? 'A' : 'W', name, is_told ? 0 : lseek(descriptor, 0, SEEK_CUR) - written, data, written);
    }
    return written;
}

ssize_t pwrite64(int descriptor, const void *data, size_t length, off64_t offset)
{
    char path[1024];
    const char *name = name_of(descriptor, path);
    ssize_t written = real_pwrite(descriptor, data, length, offset);
    if (name && written > 0)
        record('W', name, offset, data, written);
    return written;
}

ssize_t pwrite(int descriptor, const void *data, size_t length, off_t offset)
{
    return pwrite64(descriptor, data, length, offset);
}

int ftruncate64(int descriptor, off64_t length)
{
    char path[1024];
    const char *name = name_of(descriptor, path);
    int failed = real_truncate(descriptor, length);
    if (name && !failed)
        record('T', name, length, NULL, 0);
    return failed;
}

int ftruncate(int descriptor, off_t length)
{
    return ftruncate64(descriptor, length);
}

int fsync(int descriptor)
{
    char path[1024];
    const char *name = name_of(descriptor, path);
    int failed = real_fsync(descriptor);
    if (name && !failed)
        record('S', name, 0, NULL, 0);
    return failed;
}

int fdatasync(int descriptor)
{
    char path[1024];
    const char *name = name_of(descriptor, path);
    int failed = real_fdatasync(descriptor);
    if (name && !failed)
        record('S', name, 0, NULL, 0);
    return failed;
}

int unlink(const char *path)
{
    const char *name = watched(path);
    int failed = real_unlink(path);
    if (name && !failed)
        record('U', name, 0, NULL, 0);
    return failed;
}
