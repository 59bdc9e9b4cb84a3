// Serves a sentence encoder over HTTP, without Python: see server.h for what it answers, export.py for the
// models.

#include <getopt.h>
#include <signal.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <stdexcept>
#include <string>
#include <thread>

#include "server.h"

namespace {

constexpr char kUsage[] =
    "usage: %s [options] MODEL WEIGHTS\n"
    "\n"
    "  MODEL             an AOTInductor package without weights, from export.py\n"
    "  WEIGHTS           its weights, a .safetensors file; others that are swapped in lie beside it\n"
    "  --torchscript     MODEL is a TorchScript module\n"
    "  --host HOST       127.0.0.1\n"
    "  --port PORT       8080; 0 is any that is free\n"
    "  --runners COUNT   1: so many requests are computed at once; each uses OMP_NUM_THREADS threads\n";

struct Options {
  std::string model, weights, host = "127.0.0.1";
  int port = 8080;
  size_t runners = 1;
  bool torchscript = false;
};

int to_number(const char* text, int least, int most) {
  char* end = nullptr;
  const long number = std::strtol(text, &end, 10);
  if (*text == '\0' || *end != '\0' || number < least || number > most) {
    throw std::runtime_error("'" + std::string(text) + "' is not a number from " + std::to_string(least) +
                             " to " + std::to_string(most));
  }
  return static_cast<int>(number);
}

[[noreturn]] void exit_with_usage(const char* program, int status) {
  std::fprintf(status == 0 ? stdout : stderr, kUsage, program);
  std::exit(status);
}

Options parse(int argc, char** argv) {
  const option options[] = {
      {"torchscript", no_argument, nullptr, 't'}, {"host", required_argument, nullptr, 'h'},
      {"port", required_argument, nullptr, 'p'},  {"runners", required_argument, nullptr, 'r'},
      {"help", no_argument, nullptr, 'u'},        {}};
  Options parsed;
  for (int found; (found = getopt_long(argc, argv, "", options, nullptr)) != -1;) {
    switch (found) {
      case 't':
        parsed.torchscript = true;
        break;
      case 'h':
        parsed.host = optarg;
        break;
      case 'p':
        parsed.port = to_number(optarg, 0, 65535);
        break;
      case 'r':
        parsed.runners = to_number(optarg, 1, 1024);
        break;
      case 'u':
        exit_with_usage(argv[0], 0);
      default:
        exit_with_usage(argv[0], 2);
    }
  }
  if (argc - optind != 2) {
    exit_with_usage(argv[0], 2);
  }
  parsed.model = argv[optind];
  parsed.weights = argv[optind + 1];
  return parsed;
}

void serve(const Options& options, const sigset_t& signals) {
  const auto encoder = options.torchscript ? script_encoder(options.model, options.weights)
                                           : package_encoder(options.model, options.weights, options.runners);
  EncoderServer server(*encoder, options.weights);
  const int port = server.bind(options.host, options.port);
  std::printf("serving %s with %s on http://%s:%d\n", options.model.c_str(), options.weights.c_str(),
              options.host.c_str(), port);
  std::fflush(stdout);
  std::thread waiting([&] {
    int signal = 0;
    sigwait(&signals, &signal);
    server.stop();
  });
  server.serve();
  pthread_kill(waiting.native_handle(), SIGTERM);  // where it was not that which ended it
  waiting.join();
}

}  // namespace

int main(int argc, char** argv) {
  // Before there are threads, which inherit it: one of them waits for these.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  try {
    serve(parse(argc, argv), signals);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
  return 0;
}
