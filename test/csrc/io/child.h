#pragma once

#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <exception>
#include <string>

#include "torch_safetensors/errors.h"

namespace torch_safetensors::io {

/// Runs `action` in a forked child and returns the child's exit code: 0, the number of the OsError that it
/// threw, 255 for another exception, 254 for a signal. GoogleTest's macros are of no use in there.
template <typename Action>
int run_in_child(Action action) {
  const pid_t child = ::fork();
  if (child == 0) {
    try {
      action();
      ::_exit(0);
    } catch (const OsError& error) {
      ::_exit(error.error_number());
    } catch (const std::exception& error) {
      std::fprintf(stderr, "child: %s\n", error.what());
      ::_exit(255);
    }
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 254;
}

/// The same without the rights of root, which no permission stops.
template <typename Action>
int run_unprivileged(Action action) {
  return run_in_child([&] {
    if (::geteuid() == 0 && (::setgid(65534) != 0 || ::setuid(65534) != 0)) {
      ::_exit(253);
    }
    action();
  });
}

/// A forked child that does its work, tells so, and then waits to be killed.
class Child {
 public:
  /// Returns when the work is done.
  template <typename Action>
  explicit Child(Action work) {
    int pipe[2];
    if (::pipe(pipe) != 0) {
      return;
    }
    id_ = ::fork();
    if (id_ == 0) {
      work([&] {
        ::close(pipe[0]);
        ::close(pipe[1]);
        for (;;) {
          ::pause();
        }
      });
      ::_exit(1);
    }
    ::close(pipe[1]);
    char byte;
    [[maybe_unused]] const ssize_t count = ::read(pipe[0], &byte, 1);  // 0: the child closed its end
    ::close(pipe[0]);
  }
  ~Child() { kill(); }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  /// Kills it with SIGKILL, so that nothing of it runs any more.
  void kill() {
    if (id_ > 0) {
      ::kill(id_, SIGKILL);
      ::waitpid(id_, nullptr, 0);
      id_ = -1;
    }
  }

 private:
  pid_t id_ = -1;
};

}  // namespace torch_safetensors::io
