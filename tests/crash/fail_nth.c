/* Fails, or kills the process at, the n-th operation on files of one folder or on sockets to this machine.
 *
 * SQLite's own method (https://www.sqlite.org/testing.html, "I/O error testing" and "crash testing"), one level lower:
 * preloaded (LD_PRELOAD), it stands between every library of the process and libc. `nth_arm` starts the counting; before it
 * nothing is touched. Counters live in memory that a forked child shares with its parent, who reads them when the child
 * is dead. `nth_record` writes every operation that succeeded to a file, with its bytes, for playing power cuts.
 *
 *     cc -shared -fPIC -O1 -Wall -Wextra -Werror -o fail_nth.so fail_nth.c -ldl
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum kind { CREATE, MKDIR, WRITE, TRUNCATE, SYNC, RENAME, UNLINK, CONNECT, SEND, RECEIVE, KINDS };
static const char *const NAMES[KINDS] = {"create", "mkdir",  "write",   "truncate", "sync",
                                         "rename", "unlink", "connect", "send",     "receive"};
enum action { FAIL_ONCE, FAIL_FROM_THEN_ON, KILL, TEAR }; /* TEAR: half of the bytes are written, then KILL */

struct shared {
    long counted[KINDS]; /* of each kind, whether or not it is one of `kinds` */
    long ticks;          /* of `kinds` */
    char fired[PATH_MAX + 32];
};
static struct shared *shared;
static char folder[PATH_MAX];
static unsigned kinds; /* bit i: operations of kind i may fail */
static long nth;       /* from 1 on; 0: none fails */
static enum action action;
static int error; /* errno of a failed file operation; a socket's peer resets the connection */
static int armed, recording = -1;
static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void share(void) {
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) abort();
}

/* --- what the tests call */

void nth_arm(const char *within, unsigned which, long n, int what, int code) {
    memset(shared, 0, sizeof *shared);
    snprintf(folder, sizeof folder, "%s", within);
    kinds = which, nth = n, action = what, error = code, armed = 1;
}

long nth_counted(int kind) { return shared->counted[kind]; }
const char *nth_fired(void) { return shared->fired; } /* the operation that failed, "" if none did */
const char *nth_name(int kind) { return kind < KINDS ? NAMES[kind] : ""; }
void nth_record(const char *path) { recording = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600); }

/* --- what an operation is about */

static int inside(const char *path) {
    size_t length = strlen(folder);
    return !strncmp(path, folder, length) && (path[length] == '/' || !path[length]);
}

static const char *of_path(const char *path, char *full) {
    char here[PATH_MAX];
    if (*path == '/' || !getcwd(here, sizeof here)) snprintf(full, PATH_MAX, "%s", path);
    else if (snprintf(full, PATH_MAX, "%s/%s", here, path) >= PATH_MAX) return NULL;
    return inside(full) ? full : NULL;
}

static const char *of_file(int fd, char *full) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, full, PATH_MAX - 1);
    full[length < 0 ? 0 : length] = 0;
    return inside(full) ? full : NULL;
}

static const char *of_address(const struct sockaddr *to) {
    if (to->sa_family != AF_INET) return NULL;
    return (ntohl(((const struct sockaddr_in *)to)->sin_addr.s_addr) >> 24) == 127 ? "127.0.0.1" : NULL;
}

static const char *of_socket(int fd) {
    struct sockaddr_storage peer;
    socklen_t length = sizeof peer;
    return getpeername(fd, (struct sockaddr *)&peer, &length) ? NULL : of_address((struct sockaddr *)&peer);
}

/* --- counting */

/* Whether the operation must fail (errno is set). `path` is NULL for one that does not concern us; `tear` is where half
 * of its bytes can be written before the process is killed. */
static int fails(enum kind kind, const char *path, int *tear) {
    if (!armed || !path) return 0;
    __atomic_add_fetch(&shared->counted[kind], 1, __ATOMIC_SEQ_CST);
    if (!(kinds >> kind & 1)) return 0;
    long tick = __atomic_add_fetch(&shared->ticks, 1, __ATOMIC_SEQ_CST);
    if (!nth || tick < nth || (tick > nth && action != FAIL_FROM_THEN_ON)) return 0;
    if (tick == nth) snprintf(shared->fired, sizeof shared->fired, "%s %s", NAMES[kind], path);
    if (action == TEAR && tear) return *tear = 1;
    if (action == KILL || action == TEAR) kill(getpid(), SIGKILL);
    errno = kind >= CONNECT ? ECONNRESET : error;
    return 1;
}

/* One line for people and programs, then `length` bytes. */
static void note(enum kind kind, const char *path, const char *to, long at, long length, const void *bytes) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) real = dlsym(RTLD_NEXT, "write");
    if (recording < 0 || !path) return;
    char line[2 * PATH_MAX + 64];
    int size = snprintf(line, sizeof line, "%s\t%s\t%s\t%ld\t%ld\n", NAMES[kind], path, to, at, bytes ? length : 0);
    int before = errno;
    pthread_mutex_lock(&one_at_a_time);
    if (real(recording, line, size) != size) abort();
    if (bytes && real(recording, bytes, length) != length) abort();
    pthread_mutex_unlock(&one_at_a_time);
    errno = before;
}

/* --- libc's functions, each with the signature of its manual page */

#define REAL(type, name, ...)           \
    static type (*real)(__VA_ARGS__);   \
    if (!real) real = dlsym(RTLD_NEXT, #name)

#define OPEN(name)                                                                       \
    int name(const char *path, int flags, ...) {                                         \
        REAL(int, name, const char *, int, ...);                                         \
        char full[PATH_MAX];                                                             \
        mode_t mode = 0;                                                                 \
        if (!(flags & O_CREAT)) return real(path, flags);                                \
        va_list rest;                                                                    \
        va_start(rest, flags), mode = va_arg(rest, mode_t), va_end(rest);                \
        const char *ours = armed && access(path, F_OK) ? of_path(path, full) : NULL;     \
        if (fails(CREATE, ours, NULL)) return -1;                                        \
        int fd = real(path, flags, mode);                                                \
        if (fd >= 0) note(CREATE, ours, "", 0, 0, NULL);                                 \
        return fd;                                                                       \
    }
OPEN(open)
OPEN(open64)

int mkdir(const char *path, mode_t mode) {
    REAL(int, mkdir, const char *, mode_t);
    char full[PATH_MAX];
    const char *ours = armed && access(path, F_OK) ? of_path(path, full) : NULL;
    if (fails(MKDIR, ours, NULL)) return -1;
    int result = real(path, mode);
    if (!result) note(MKDIR, ours, "", 0, 0, NULL);
    return result;
}

ssize_t write(int fd, const void *bytes, size_t count) {
    REAL(ssize_t, write, int, const void *, size_t);
    char full[PATH_MAX];
    int tear = 0;
    const char *ours = armed ? of_file(fd, full) : NULL;
    long at = ours ? lseek(fd, 0, SEEK_CUR) : 0;
    if (fails(WRITE, ours, &tear) && !tear) return -1;
    ssize_t done = real(fd, bytes, tear ? count / 2 : count);
    if (tear) kill(getpid(), SIGKILL);
    if (done > 0) note(WRITE, ours, "", at, done, bytes);
    return done;
}

#define PWRITE(name, offset)                                             \
    ssize_t name(int fd, const void *bytes, size_t count, offset at) {   \
        REAL(ssize_t, name, int, const void *, size_t, offset);          \
        char full[PATH_MAX];                                             \
        int tear = 0;                                                    \
        const char *ours = armed ? of_file(fd, full) : NULL;             \
        if (fails(WRITE, ours, &tear) && !tear) return -1;               \
        ssize_t done = real(fd, bytes, tear ? count / 2 : count, at);    \
        if (tear) kill(getpid(), SIGKILL);                               \
        if (done > 0) note(WRITE, ours, "", at, done, bytes);            \
        return done;                                                     \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

#define TRUNCATE(name, offset)                                   \
    int name(int fd, offset length) {                            \
        REAL(int, name, int, offset);                            \
        char full[PATH_MAX];                                     \
        const char *ours = armed ? of_file(fd, full) : NULL;     \
        if (fails(TRUNCATE, ours, NULL)) return -1;              \
        int result = real(fd, length);                           \
        if (!result) note(TRUNCATE, ours, "", length, 0, NULL);  \
        return result;                                           \
    }
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)

#define SYNC(name)                                           \
    int name(int fd) {                                       \
        REAL(int, name, int);                                \
        char full[PATH_MAX];                                 \
        const char *ours = armed ? of_file(fd, full) : NULL; \
        if (fails(SYNC, ours, NULL)) return -1;              \
        int result = real(fd);                               \
        if (!result) note(SYNC, ours, "", 0, 0, NULL);       \
        return result;                                       \
    }
SYNC(fsync)
SYNC(fdatasync)

int rename(const char *from, const char *to) {
    REAL(int, rename, const char *, const char *);
    char full[PATH_MAX], target[PATH_MAX];
    const char *ours = armed ? of_path(from, full) : NULL, *theirs = armed ? of_path(to, target) : NULL;
    if (fails(RENAME, ours, NULL)) return -1;
    int result = real(from, to);
    if (!result) note(RENAME, ours, theirs ? theirs : "", 0, 0, NULL);
    return result;
}

int unlink(const char *path) {
    REAL(int, unlink, const char *);
    char full[PATH_MAX];
    const char *ours = armed && !access(path, F_OK) ? of_path(path, full) : NULL;
    if (fails(UNLINK, ours, NULL)) return -1;
    int result = real(path);
    if (!result) note(UNLINK, ours, "", 0, 0, NULL);
    return result;
}

static int reset(int fd) {
    shutdown(fd, SHUT_RDWR); /* or the server would wait for the rest, and its client for the answer */
    errno = ECONNRESET;
    return -1;
}

int connect(int fd, const struct sockaddr *to, socklen_t length) {
    REAL(int, connect, int, const struct sockaddr *, socklen_t);
    const char *ours = armed ? of_address(to) : NULL;
    if (fails(CONNECT, ours, NULL)) return -1;
    int result = real(fd, to, length);
    note(CONNECT, ours, "", 0, 0, NULL);
    return result;
}

ssize_t send(int fd, const void *bytes, size_t count, int flags) {
    REAL(ssize_t, send, int, const void *, size_t, int);
    const char *ours = armed ? of_socket(fd) : NULL;
    if (fails(SEND, ours, NULL)) return reset(fd);
    ssize_t done = real(fd, bytes, count, flags);
    if (done > 0) note(SEND, ours, "", 0, done, bytes);
    return done;
}

ssize_t recv(int fd, void *bytes, size_t count, int flags) {
    REAL(ssize_t, recv, int, void *, size_t, int);
    const char *ours = armed ? of_socket(fd) : NULL;
    if (fails(RECEIVE, ours, NULL)) return reset(fd);
    ssize_t done = real(fd, bytes, count, flags);
    note(RECEIVE, ours, "", 0, 0, NULL);
    return done;
}
