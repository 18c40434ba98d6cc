/* A disk for tests: preloaded into the relay, it takes down every change below a directory in a
 * journal, so that a test can say what a power loss would have left; it fails on demand, and it
 * stops the process at the n-th change from now. Changes and their journal entries are one step.
 *
 * RELAYERED_TEST_DISK names the directory with `rules` (made by the test, mapped here) and `journal`;
 * RELAYERED_TEST_DISK_ROOT the directory that is watched. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* As in disk.rs. */
struct rules {
    volatile uint32_t write_errno;   /* of all that changes something but a sync */
    volatile uint32_t sync_errno;
    volatile uint32_t read_errno;
    volatile uint32_t places;        /* where errors are: 1 the event log, 2 all else */
    volatile uint32_t sync_delay_ms;
    volatile uint32_t frozen;        /* whoever wants to change something waits for the end */
    volatile uint32_t busy;          /* somebody is in the middle of a change */
    volatile uint32_t countdown;     /* the process dies in the change that makes it zero */
    volatile uint64_t changes;       /* so far */
};

enum { OPEN = 1, WRITE, SET_LEN, SYNC_BEGIN, SYNC_END, SYNC_FAILED, RENAME, UNLINK, CREATE };

struct entry {
    uint32_t kind, handle;
    uint64_t offset, len;
};

enum { FILES = 65536, NOT_OURS = 0 };

static struct rules *rules;
static int journal = -1;
static char root[4096];
static size_t root_len;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
/* By descriptor: a number that is not used again; and where the file is. */
static uint32_t handles[FILES];
static uint32_t places[FILES];
static uint32_t handles_given;

__attribute__((constructor)) static void start(void) {
    const char *dir = getenv("RELAYERED_TEST_DISK"), *below = getenv("RELAYERED_TEST_DISK_ROOT");
    char path[4200];
    if (!dir || !below || strlen(below) >= sizeof root) return;
    strcpy(root, below);
    root_len = strlen(root);
    snprintf(path, sizeof path, "%s/rules", dir);
    int file = syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
    void *map = file < 0 ? MAP_FAILED
                         : mmap(NULL, sizeof *rules, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    snprintf(path, sizeof path, "%s/journal", dir);
    journal = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (map == MAP_FAILED || journal < 0) {
        fprintf(stderr, "test disk: no rules or no journal in %s\n", dir);
        _exit(99);
    }
    rules = map;
}

/* The absolute path, if it is below the root. */
static int ours(const char *path, char *full) {
    if (!rules) return 0;
    if (path[0] == '/') {
        if (strlen(path) >= 4096) return 0;
        strcpy(full, path);
    } else {
        if (syscall(SYS_getcwd, full, 4096) < 0) return 0;
        size_t len = strlen(full);
        while (!strncmp(path, "./", 2)) path += 2;
        if (len + strlen(path) + 2 > 4096) return 0;
        full[len] = '/';
        strcpy(full + len + 1, path);
    }
    return !strncmp(full, root, root_len) && (full[root_len] == '/' || full[root_len] == 0);
}

static uint32_t place_of(const char *full) {
    return strncmp(full + root_len, "/log", 4) ? 2 : 1;
}

static void write_down(struct entry entry, const void *bytes, size_t len) {
    entry.len = len;
    struct iovec parts[2] = {{&entry, sizeof entry}, {(void *)bytes, len}};
    if (syscall(SYS_writev, journal, parts, len ? 2 : 1) != (ssize_t)(sizeof entry + len)) {
        fprintf(stderr, "test disk: the journal can't be written\n");
        _exit(99);
    }
}

static void enter(void) {
    pthread_mutex_lock(&lock);
    rules->busy = 1;
    __sync_synchronize();
    if (rules->frozen) {
        rules->busy = 0;
        pthread_mutex_unlock(&lock);
        for (;;) pause();
    }
}

static void leave(void) {
    int error = errno;
    rules->busy = 0;
    pthread_mutex_unlock(&lock);
    errno = error;
}

/* Within a change: whether the process is to die in it. */
static int is_last(void) {
    rules->changes++;
    return rules->countdown && --rules->countdown == 0;
}

static void die(void) {
    rules->busy = 0;
    for (;;) syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
}

static int fails(uint32_t place, uint32_t error) {
    if (!error || !(rules->places & place)) return 0;
    errno = (int)error;
    return 1;
}

static int is_tracked(int fd) {
    return rules && fd >= 0 && fd < FILES && handles[fd] != NOT_OURS;
}

static int open_at(const char *path, int flags, mode_t mode) {
    char full[4096];
    if (!ours(path, full)) return syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    struct stat before;
    enter();
    int is_new = (flags & O_CREAT) && stat(full, &before) != 0;
    int last = is_new && is_last();
    int fd = -1;
    if (last) die();
    if (!is_new || !fails(place_of(full), rules->write_errno)) {
        fd = syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    }
    if (fd >= 0 && fd < FILES) {
        handles[fd] = ++handles_given;
        places[fd] = place_of(full);
        struct entry entry = {is_new ? CREATE : OPEN, handles[fd], 0, 0};
        write_down(entry, full, strlen(full));
        if (flags & O_TRUNC) {
            struct entry cut = {SET_LEN, handles[fd], 0, 0};
            write_down(cut, NULL, 0);
        }
    }
    leave();
    return fd;
}

static mode_t mode_of(int flags, va_list rest) {
    return flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
}

int open(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = mode_of(flags, rest);
    va_end(rest);
    return open_at(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = mode_of(flags, rest);
    va_end(rest);
    return open_at(path, flags | O_LARGEFILE, mode);
}

int close(int fd) {
    if (is_tracked(fd)) {
        pthread_mutex_lock(&lock);
        handles[fd] = NOT_OURS;
        pthread_mutex_unlock(&lock);
    }
    return syscall(SYS_close, fd);
}

/* A kill can come between two sectors of one write. */
static size_t torn(uint64_t offset, size_t len) {
    uint64_t middle = (offset + len / 2) & ~(uint64_t)511;
    return middle > offset ? middle - offset : 0;
}

static ssize_t write_at(int fd, const void *bytes, size_t len, off_t offset) {
    enter();
    if (fails(places[fd], rules->write_errno)) {
        leave();
        return -1;
    }
    int last = is_last();
    if (last) len = torn(offset, len);
    ssize_t written = len ? syscall(SYS_pwrite64, fd, bytes, len, offset) : 0;
    if (written > 0) {
        struct entry entry = {WRITE, handles[fd], offset, 0};
        write_down(entry, bytes, written);
    }
    if (last) die();
    leave();
    return written;
}

ssize_t pwrite64(int fd, const void *bytes, size_t len, off_t offset) {
    if (!is_tracked(fd)) return syscall(SYS_pwrite64, fd, bytes, len, offset);
    return write_at(fd, bytes, len, offset);
}

ssize_t pwrite(int fd, const void *bytes, size_t len, off_t offset) {
    return pwrite64(fd, bytes, len, offset);
}

ssize_t write(int fd, const void *bytes, size_t len) {
    if (!is_tracked(fd)) return syscall(SYS_write, fd, bytes, len);
    off_t offset = syscall(SYS_lseek, fd, 0, SEEK_CUR);
    ssize_t written = write_at(fd, bytes, len, offset);
    if (written > 0) syscall(SYS_lseek, fd, written, SEEK_CUR);
    return written;
}

ssize_t pread64(int fd, void *bytes, size_t len, off_t offset) {
    if (is_tracked(fd) && fails(places[fd], rules->read_errno)) return -1;
    return syscall(SYS_pread64, fd, bytes, len, offset);
}

ssize_t pread(int fd, void *bytes, size_t len, off_t offset) {
    return pread64(fd, bytes, len, offset);
}

int ftruncate64(int fd, off_t len) {
    if (!is_tracked(fd)) return syscall(SYS_ftruncate, fd, len);
    enter();
    int result = -1;
    if (!fails(places[fd], rules->write_errno)) {
        if (is_last()) die();
        result = syscall(SYS_ftruncate, fd, len);
        struct entry entry = {SET_LEN, handles[fd], len, 0};
        if (!result) write_down(entry, NULL, 0);
    }
    leave();
    return result;
}

int ftruncate(int fd, off_t len) { return ftruncate64(fd, len); }

static int sync_file(int fd, long call) {
    if (!is_tracked(fd)) return syscall(call, fd);
    static uint32_t syncs;
    enter();
    if (is_last()) die();
    struct entry entry = {SYNC_BEGIN, handles[fd], ++syncs, 0};
    write_down(entry, NULL, 0);
    leave();
    if (rules->sync_delay_ms) {
        struct timespec pause = {rules->sync_delay_ms / 1000,
                                 (long)(rules->sync_delay_ms % 1000) * 1000000};
        nanosleep(&pause, NULL);
    }
    /* The real disk need not be troubled. */
    enter();
    int failed = fails(places[fd], rules->sync_errno);
    entry.kind = failed ? SYNC_FAILED : SYNC_END;
    write_down(entry, NULL, 0);
    leave();
    return failed ? -1 : 0;
}

int fsync(int fd) { return sync_file(fd, SYS_fsync); }
int fdatasync(int fd) { return sync_file(fd, SYS_fdatasync); }

int rename(const char *from, const char *to) {
    char full[4096], target[4096], both[8192];
    if (!ours(from, full) || !ours(to, target)) {
        return syscall(SYS_renameat, AT_FDCWD, from, AT_FDCWD, to);
    }
    enter();
    int result = -1;
    if (!fails(place_of(full), rules->write_errno)) {
        if (is_last()) die();
        result = syscall(SYS_renameat, AT_FDCWD, from, AT_FDCWD, to);
        struct entry entry = {RENAME, 0, strlen(full), 0};
        strcpy(both, full);
        strcpy(both + strlen(full), target);
        if (!result) write_down(entry, both, strlen(full) + strlen(target));
    }
    leave();
    return result;
}

int unlink(const char *path) {
    char full[4096];
    if (!ours(path, full)) return syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    enter();
    int result = -1;
    if (!fails(place_of(full), rules->write_errno)) {
        if (is_last()) die();
        result = syscall(SYS_unlinkat, AT_FDCWD, path, 0);
        struct entry entry = {UNLINK, 0, 0, 0};
        if (!result) write_down(entry, full, strlen(full));
    }
    leave();
    return result;
}

/* Copies go through read and write, where they are seen. */
ssize_t copy_file_range(int in, off64_t *in_at, int out, off64_t *out_at, size_t len,
                        unsigned flags) {
    if (is_tracked(out)) {
        errno = ENOSYS;
        return -1;
    }
    return syscall(SYS_copy_file_range, in, in_at, out, out_at, len, flags);
}

ssize_t sendfile64(int out, int in, off64_t *offset, size_t len) {
    if (is_tracked(out)) {
        errno = ENOSYS;
        return -1;
    }
    return syscall(SYS_sendfile, out, in, offset, len);
}
