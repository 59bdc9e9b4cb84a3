/* Preloaded into a test's process: system calls fail, kill, or are written down as the test asks. See faults.py. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { kKill = -1 };

static struct {
  char call[16];
  int error; /* an errno, or kKill */
} faults[16];
static size_t fault_count;
static char log_text[4096];

/* The calls that the library itself makes, whatever they are: how many there were, which of them fail, and the
   name of the last that did. */
static long own_calls;
static long failing_call = -1;
static long failing_calls;
static int failing_error;
static char failed[16];

/* What changed the names in which folder, and which folder was flushed, in order; whoever did it. */
static char trace[1 << 16];

static void note(const char *what, const char *path) {
  size_t end = strlen(trace);
  snprintf(trace + end, sizeof trace - end, "%s %s\n", what, path);
}

const char *faults_trace(void) { return trace; }

static long long bytes_read;

/* While it is set, reads wait, as on a disk that hangs. */
static volatile int reads_hang;

void faults_hang_reads(int hang) { reads_hang = hang; }

static void wait_while_reads_hang(void) {
  while (reads_hang) {
    usleep(1000);
  }
}

void faults_reset(void) {
  reads_hang = 0;
  fault_count = 0;
  log_text[0] = '\0';
  trace[0] = '\0';
  bytes_read = 0;
  own_calls = 0;
  failing_call = -1;
  failed[0] = '\0';
}

void faults_fail_call(long index, long count, int error) {
  failing_call = index;
  failing_calls = count;
  failing_error = error;
}

const char *faults_failed(void) { return failed; }

void faults_add(const char *call, int error) {
  strncpy(faults[fault_count].call, call, sizeof faults[0].call - 1);
  faults[fault_count++].error = error;
}

const char *faults_log(void) { return log_text; }

long long faults_bytes_read(void) { return bytes_read; }

static int fail(int error) {
  if (error == kKill) {
    kill(getpid(), SIGKILL);
  }
  errno = error;
  return 1;
}

/* The error that calls of this name are to have; 0 for none. */
static int error_of(const char *call) {
  for (size_t i = 0; i < fault_count; ++i) {
    if (strcmp(faults[i].call, call) == 0) {
      return faults[i].error;
    }
  }
  return 0;
}

static int is_own(const void *caller) {
  Dl_info info;
  return dladdr(caller, &info) && strstr(info.dli_fname, "torch_safetensors.so") != NULL;
}

/* True if this call of the library, and of nobody else, shall fail; errno is set. */
static int own_fails(const void *caller, const char *call) {
  if ((failing_call < 0 && fault_count == 0) || !is_own(caller)) {
    return 0;
  }
  const long call_index = failing_call < 0 ? -1 : __atomic_fetch_add(&own_calls, 1, __ATOMIC_SEQ_CST);
  if (call_index >= 0 && call_index >= failing_call && call_index < failing_call + failing_calls) {
    strncpy(failed, call, sizeof failed - 1);
    return fail(failing_error);
  }
  int error = error_of(call);
  return error != 0 && fail(error);
}

/* True if the call shall fail, whoever makes it; errno is set. */
static int any_fails(const char *call, const char *note) {
  size_t end = strlen(log_text);
  snprintf(log_text + end, sizeof log_text - end, "%s%s\n", call, note);
  int error = error_of(call);
  return error != 0 && fail(error);
}

#define OWN_FAILS(call) own_fails(__builtin_return_address(0), call)

#define fails(call, note) (OWN_FAILS(call) || any_fails(call, note))

static const char *kind(int descriptor) {
  struct stat status;
  return fstat(descriptor, &status) == 0 && S_ISDIR(status.st_mode) ? " directory" : " file";
}

#define NEXT(name, ...) ((int (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name))

static int noted(int result, const char *what, const char *path) {
  if (result == 0) {
    note(what, path);
  }
  return result;
}

int rename(const char *from, const char *to) {
  return fails("rename", "") ? -1 : noted(NEXT("rename", const char *, const char *)(from, to), "rename", to);
}

int link(const char *from, const char *to) {
  return noted(NEXT("link", const char *, const char *)(from, to), "link", to);
}

int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags) {
  return noted(NEXT("linkat", int, const char *, int, const char *, int)(from_folder, from, to_folder, to, flags), "link",
               to);
}

int mkdir(const char *path, mode_t mode) {
  return noted(NEXT("mkdir", const char *, mode_t)(path, mode), "mkdir", path);
}

int unlink(const char *path) {
  return OWN_FAILS("unlink") ? -1 : noted(NEXT("unlink", const char *)(path), "unlink", path);
}

static void note_flush(int descriptor) {
  char link_path[32], path[1024];
  snprintf(link_path, sizeof link_path, "/proc/self/fd/%d", descriptor);
  ssize_t size = readlink(link_path, path, sizeof path - 1);
  path[size < 0 ? 0 : size] = '\0';
  note("fsync", path);
}

int fchmod(int descriptor, mode_t mode) {
  return fails("fchmod", "") ? -1 : NEXT("fchmod", int, mode_t)(descriptor, mode);
}

int fchown(int descriptor, uid_t user, gid_t group) {
  return fails("fchown", "") ? -1 : NEXT("fchown", int, uid_t, gid_t)(descriptor, user, group);
}

int flock(int descriptor, int operation) {
  return fails("flock", "") ? -1 : NEXT("flock", int, int)(descriptor, operation);
}

int ftruncate(int descriptor, off_t size) {
  return fails("ftruncate", "") ? -1 : NEXT("ftruncate", int, off_t)(descriptor, size);
}

/* What the reference calls. */
int ftruncate64(int descriptor, off64_t size) {
  return fails("ftruncate", "") ? -1 : NEXT("ftruncate64", int, off64_t)(descriptor, size);
}

int fsync(int descriptor) {
  if (fails("fsync", kind(descriptor))) {
    return -1;
  }
  note_flush(descriptor);
  return NEXT("fsync", int)(descriptor);
}

mode_t umask(mode_t mask) {
  any_fails("umask", "");
  return ((mode_t(*)(mode_t))dlsym(RTLD_NEXT, "umask"))(mask);
}

ssize_t writev(int descriptor, const struct iovec *pieces, int count) {
  /* The first half gets through, so that a failure comes midway. */
  static __thread int calls;
  ssize_t (*next)(int, const struct iovec *, int) =
      (ssize_t(*)(int, const struct iovec *, int))dlsym(RTLD_NEXT, "writev");
  if (fault_count > 0 && calls++ % 2 == 0 && pieces[0].iov_len > 1) {
    struct iovec half = {pieces[0].iov_base, pieces[0].iov_len / 2};
    return next(descriptor, &half, 1);
  }
  return fails("writev", "") ? -1 : next(descriptor, pieces, count);
}

ssize_t pread(int descriptor, void *into, size_t size, off_t offset) {
  wait_while_reads_hang();
  if (OWN_FAILS("pread")) {
    return -1;
  }
  ssize_t count = ((ssize_t(*)(int, void *, size_t, off_t))dlsym(RTLD_NEXT, "pread"))(descriptor, into, size, offset);
  bytes_read += count > 0 ? count : 0;
  return count;
}

ssize_t preadv(int descriptor, const struct iovec *pieces, int count, off_t offset) {
  wait_while_reads_hang();
  if (OWN_FAILS("preadv")) {
    return -1;
  }
  ssize_t read = ((ssize_t(*)(int, const struct iovec *, int, off_t))dlsym(RTLD_NEXT, "preadv"))(descriptor, pieces,
                                                                                                  count, offset);
  bytes_read += read > 0 ? read : 0;
  return read;
}

/* Of these only the library's own calls can fail: Python makes some at any time. */

#define OWN(result, name, failure, parameters, arguments)          \
  result name parameters {                                         \
    if (OWN_FAILS(#name)) {                                        \
      return failure;                                              \
    }                                                              \
    return ((result(*) parameters)dlsym(RTLD_NEXT, #name))arguments; \
  }

OWN(int, stat, -1, (const char *path, struct stat *status), (path, status))
OWN(int, lstat, -1, (const char *path, struct stat *status), (path, status))
OWN(int, fstat, -1, (int descriptor, struct stat *status), (descriptor, status))
OWN(int, statfs, -1, (const char *path, struct statfs *status), (path, status))
OWN(int, fstatfs, -1, (int descriptor, struct statfs *status), (descriptor, status))
OWN(int, fallocate, -1, (int descriptor, int mode, off_t offset, off_t size), (descriptor, mode, offset, size))
OWN(int, madvise, -1, (void *address, size_t size, int advice), (address, size, advice))
OWN(off_t, lseek, -1, (int descriptor, off_t offset, int whence), (descriptor, offset, whence))
OWN(ssize_t, readlink, -1, (const char *path, char *into, size_t size), (path, into, size))
OWN(ssize_t, pwrite, -1, (int descriptor, const void *from, size_t size, off_t offset),
    (descriptor, from, size, offset))
OWN(void *, mmap, MAP_FAILED, (void *address, size_t size, int protection, int flags, int descriptor, off_t offset),
    (address, size, protection, flags, descriptor, offset))

int open(const char *path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  return OWN_FAILS("open") ? -1 : ((int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open"))(path, flags, mode);
}

int fcntl(int descriptor, int operation, ...) {
  va_list rest;
  va_start(rest, operation);
  void *argument = va_arg(rest, void *);
  va_end(rest);
  return OWN_FAILS("fcntl") ? -1 : NEXT("fcntl", int, int, ...)(descriptor, operation, argument);
}

int close(int descriptor) {
  /* Failed or not, the descriptor is gone, as on Linux. */
  int result = NEXT("close", int)(descriptor);
  return OWN_FAILS("close") ? -1 : result;
}
