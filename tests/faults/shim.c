/*
 * What a machine does to a program, for tests: preloaded into the server (shim.py).
 *
 *   power    each change of a tracked file is noted before it is made and crossed out when a sync
 *            made it durable, so that a test can take back what a loss of power would take back
 *   disk     writes and syncs of tracked files fail, or syncs take long
 *   system   accept, fork and new threads fail
 *   clock    the wall clock (CLOCK_REALTIME) is off by so many seconds, the others are not
 *
 * Tracked are the files whose path begins with FAULTS_FILES. The test sets `control`, which it
 * shares with the program by the file FAULTS_CONTROL. The notes are files in FAULTS_NOTES: one per
 * tracked file with what is not durable, and `created` with the names a directory may not have yet.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct control { /* fields as in shim.py */
    int64_t write_errno, sync_errno, sync_delay_ms, accept_errno, fork_errno, thread_errno;
    int64_t clock_seconds;
    int64_t writes_failed, syncs_failed, syncs_delayed, accepts_failed; /* how often it happened */
};

enum { FDS = 4096 };

static struct control idle;
static struct control *control = &idle;
static const char *files, *notes;
static size_t files_length;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char *names[FDS]; /* by descriptor: the base name of the tracked file, or NULL */
static int note_fds[FDS];

#define REAL(name) ((__typeof__(&name))real(#name))

static void *real(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (found == NULL) abort();
    return found;
}

__attribute__((constructor)) static void begin(void) {
    files = getenv("FAULTS_FILES");
    notes = getenv("FAULTS_NOTES");
    files_length = files ? strlen(files) : 0;
    const char *path = getenv("FAULTS_CONTROL");
    int fd = path ? REAL(open)(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *shared = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (shared != MAP_FAILED) control = shared;
    close(fd);
}

static int fails(int64_t code, int64_t *count) {
    if (code == 0) return 0;
    __atomic_add_fetch(count, 1, __ATOMIC_SEQ_CST);
    errno = (int)code;
    return 1;
}

/* Which files are tracked */

static int is_tracked(const char *path) {
    if (!files || strncmp(path, files, files_length) != 0) return 0;
    const char *rest = path + files_length;
    /* Made anew by whoever opens the database after a crash: the shared memory, the lock. */
    return strcmp(rest, "-shm") != 0 && strcmp(rest, "-lock") != 0;
}

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static int open_notes(const char *name) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%.200s", notes, name);
    return REAL(open)(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static void note_created(const char *path) {
    char line[PATH_MAX];
    int length = snprintf(line, sizeof line, "%s\n", base_name(path));
    int fd = open_notes("created");
    if (fd < 0 || REAL(write)(fd, line, length) != length) abort();
    close(fd);
}

static int opened(int fd, const char *path, int existed) {
    if (fd < 0 || fd >= FDS || !notes || !is_tracked(path)) return fd;
    pthread_mutex_lock(&lock);
    if (!existed) note_created(path);
    free(names[fd]);
    names[fd] = strdup(base_name(path));
    char name[PATH_MAX];
    snprintf(name, sizeof name, "%.190s.undo", names[fd]);
    note_fds[fd] = open_notes(name);
    if (note_fds[fd] < 0) abort();
    pthread_mutex_unlock(&lock);
    return fd;
}

static int tracked_open(const char *path, int flags, mode_t mode) {
    int existed = !(flags & O_CREAT) || access(path, F_OK) == 0;
    return opened(REAL(open)(path, flags, mode), path, existed);
}

#define OPEN(name)                                       \
    int name(const char *path, int flags, ...) {         \
        va_list more;                                    \
        va_start(more, flags);                           \
        mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(more, mode_t) : 0; \
        va_end(more);                                    \
        return tracked_open(path, flags, mode);          \
    }
OPEN(open)
OPEN(open64)

int close(int fd) {
    if (fd >= 0 && fd < FDS && names[fd]) {
        pthread_mutex_lock(&lock);
        free(names[fd]);
        names[fd] = NULL;
        REAL(close)(note_fds[fd]);
        pthread_mutex_unlock(&lock);
    }
    return REAL(close)(fd);
}

int unlink(const char *path) {
    int result = REAL(unlink)(path);
    if (result == 0 && notes && is_tracked(path)) {
        /* It may come back after a loss of power, which is not looked at here. */
        char name[PATH_MAX];
        snprintf(name, sizeof name, "%s/%s.undo", notes, base_name(path));
        truncate(name, 0);
    }
    return result;
}

/* Noting a change: header, the bytes that were there, the bytes that come */

struct note {
    int64_t offset, size_before, old_length, new_length; /* new_length -1: it is cut at offset */
    int64_t durable;                                     /* only in the notes of what is lost */
};

static void note_change(int fd, off_t offset, const void *data, ssize_t length) {
    struct stat before;
    if (fstat(fd, &before) != 0) abort();
    off_t end = length < 0 ? before.st_size : offset + length;
    if (end > before.st_size) end = before.st_size;
    ssize_t old_length = end > offset ? end - offset : 0;
    char *old = malloc(old_length + 1);
    if (!old || pread(fd, old, old_length, offset) != old_length) abort();
    struct note note = {offset, before.st_size, old_length, length, 0};
    struct iovec parts[] = {
        {&note, sizeof note}, {old, old_length}, {(void *)data, length < 0 ? 0 : length}};
    ssize_t whole = sizeof note + old_length + (length < 0 ? 0 : length);
    if (writev(note_fds[fd], parts, 3) != whole) abort();
    free(old);
}

static int follows(int fd) { return fd >= 0 && fd < FDS && names[fd] != NULL; }

static ssize_t tracked_pwrite(int fd, const void *data, size_t length, off_t offset) {
    if (!follows(fd)) return REAL(pwrite64)(fd, data, length, offset);
    if (fails(control->write_errno, &control->writes_failed)) return -1;
    pthread_mutex_lock(&lock);
    note_change(fd, offset, data, length);
    ssize_t written = REAL(pwrite64)(fd, data, length, offset);
    pthread_mutex_unlock(&lock);
    return written;
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) {
    return tracked_pwrite(fd, data, length, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset) {
    return tracked_pwrite(fd, data, length, offset);
}

ssize_t write(int fd, const void *data, size_t length) {
    if (follows(fd)) return tracked_pwrite(fd, data, length, lseek(fd, 0, SEEK_CUR));
    return REAL(write)(fd, data, length);
}

static int tracked_truncate(int fd, off_t length) {
    if (!follows(fd)) return REAL(ftruncate64)(fd, length);
    if (fails(control->write_errno, &control->writes_failed)) return -1;
    pthread_mutex_lock(&lock);
    note_change(fd, length, NULL, -1);
    int result = REAL(ftruncate64)(fd, length);
    pthread_mutex_unlock(&lock);
    return result;
}

int ftruncate(int fd, off_t length) { return tracked_truncate(fd, length); }
int ftruncate64(int fd, off64_t length) { return tracked_truncate(fd, length); }

/* Making durable */

static void cross_out_created(int directory) {
    struct stat one, other;
    char parent[PATH_MAX];
    snprintf(parent, sizeof parent, "%.*s", (int)(base_name(files) - files), files);
    if (fstat(directory, &one) != 0 || stat(parent, &other) != 0 || one.st_ino != other.st_ino)
        return;
    char name[PATH_MAX];
    snprintf(name, sizeof name, "%s/created", notes);
    truncate(name, 0);
}

/*
 * After a sync that failed the kernel takes what it could not write for written: no later sync
 * makes it durable, only writing it again does. So it is noted in a file of its own, and behind it
 * what became durable later.
 */
static void move_to_lost(int fd, int durable) {
    char path[PATH_MAX];
    struct stat size;
    snprintf(path, sizeof path, "%s/%.200s.lost", notes, names[fd]);
    if (durable && access(path, F_OK) != 0) return;
    int lost = REAL(open)(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (lost < 0 || fstat(note_fds[fd], &size) != 0) abort();
    char *all = malloc(size.st_size + 1);
    if (!all || pread(note_fds[fd], all, size.st_size, 0) != size.st_size) abort();
    for (char *at = all; at < all + size.st_size;) {
        struct note *note = (struct note *)at;
        note->durable = durable;
        at += sizeof *note + note->old_length + (note->new_length < 0 ? 0 : note->new_length);
    }
    if (REAL(write)(lost, all, size.st_size) != size.st_size) abort();
    free(all);
    close(lost);
}

static int tracked_sync(int fd, int (*sync)(int)) {
    struct stat what;
    if (!notes || !files) return sync(fd);
    if (!follows(fd)) {
        int result = sync(fd);
        if (result == 0 && fstat(fd, &what) == 0 && S_ISDIR(what.st_mode)) cross_out_created(fd);
        return result;
    }
    if (control->sync_errno != 0) {
        pthread_mutex_lock(&lock);
        move_to_lost(fd, 0);
        if (ftruncate64(note_fds[fd], 0) != 0) abort();
        pthread_mutex_unlock(&lock);
    }
    if (fails(control->sync_errno, &control->syncs_failed)) return -1;
    for (int64_t waited = 0; waited < control->sync_delay_ms; waited += 10) {
        if (waited == 0) __atomic_add_fetch(&control->syncs_delayed, 1, __ATOMIC_SEQ_CST);
        usleep(10 * 1000);
    }
    pthread_mutex_lock(&lock);
    int result = sync(fd);
    if (result == 0) {
        move_to_lost(fd, 1);
        if (ftruncate64(note_fds[fd], 0) != 0) abort();
    }
    pthread_mutex_unlock(&lock);
    return result;
}

int fsync(int fd) { return tracked_sync(fd, REAL(fsync)); }
int fdatasync(int fd) { return tracked_sync(fd, REAL(fdatasync)); }

/* The system */

int accept4(int fd, struct sockaddr *address, socklen_t *length, int flags) {
    if (fails(control->accept_errno, &control->accepts_failed)) return -1;
    return REAL(accept4)(fd, address, length, flags);
}

int accept(int fd, struct sockaddr *address, socklen_t *length) {
    if (fails(control->accept_errno, &control->accepts_failed)) return -1;
    return REAL(accept)(fd, address, length);
}

static int64_t uncounted;

pid_t fork(void) {
    return fails(control->fork_errno, &uncounted) ? -1 : REAL(fork)();
}

/* A function that calls vfork cannot return; a fork in its place can. */
pid_t vfork(void) { return fork(); }

int pthread_create(pthread_t *thread, const pthread_attr_t *how, void *(*run)(void *), void *with) {
    int64_t code = control->thread_errno;
    return code ? (int)code : REAL(pthread_create)(thread, how, run, with);
}

/* The clock */

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = REAL(clock_gettime)(clock, now);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += control->clock_seconds;
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    int result = REAL(gettimeofday)(now, zone);
    if (result == 0) now->tv_sec += control->clock_seconds;
    return result;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
