/* Preloaded into a test's process: system calls fail, kill, or are written down as the test asks. See faults.py. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
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
  bytes_read = 0;
}

void faults_add(const char *call, int error) {
  strncpy(faults[fault_count].call, call, sizeof faults[0].call - 1);
  faults[fault_count++].error = error;
}

const char *faults_log(void) { return log_text; }

long long faults_bytes_read(void) { return bytes_read; }

/* True if the call shall fail; errno is set. */
static int fails(const char *call, const char *note) {
  size_t end = strlen(log_text);
  snprintf(log_text + end, sizeof log_text - end, "%s%s\n", call, note);
  for (size_t i = 0; i < fault_count; ++i) {
    if (strcmp(faults[i].call, call) == 0) {
      if (faults[i].error == kKill) {
        kill(getpid(), SIGKILL);
      }
      errno = faults[i].error;
      return 1;
    }
  }
  return 0;
}

static const char *kind(int descriptor) {
  struct stat status;
  return fstat(descriptor, &status) == 0 && S_ISDIR(status.st_mode) ? " directory" : " file";
}

#define NEXT(name, ...) ((int (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name))

int rename(const char *from, const char *to) {
  return fails("rename", "") ? -1 : NEXT("rename", const char *, const char *)(from, to);
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

int fsync(int descriptor) {
  return fails("fsync", kind(descriptor)) ? -1 : NEXT("fsync", int)(descriptor);
}

mode_t umask(mode_t mask) {
  fails("umask", "");
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
  ssize_t count = ((ssize_t(*)(int, void *, size_t, off_t))dlsym(RTLD_NEXT, "pread"))(descriptor, into, size, offset);
  bytes_read += count > 0 ? count : 0;
  return count;
}

ssize_t preadv(int descriptor, const struct iovec *pieces, int count, off_t offset) {
  wait_while_reads_hang();
  ssize_t read = ((ssize_t(*)(int, const struct iovec *, int, off_t))dlsym(RTLD_NEXT, "preadv"))(descriptor, pieces,
                                                                                                  count, offset);
  bytes_read += read > 0 ? read : 0;
  return read;
}
