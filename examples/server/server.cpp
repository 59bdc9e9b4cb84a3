#include "server.h"

#include <c10/core/InferenceMode.h>
#include <torch_safetensors/errors.h>
#include <torch_safetensors/torch_safetensors.h>

#include <cerrno>
#include <cstdio>

#include "tokens.h"

namespace {

namespace ts = torch_safetensors;

/// A connection keeps a thread, also between its requests. What computes is bounded by the encoder.
constexpr size_t kConnections = 64;
/// More than the largest request: two tensors of 64 x 512 numbers.
constexpr size_t kMaxBody = 1 << 20;

enum Status { kOk = 200, kBadRequest = 400, kNotFound = 404, kUnprocessable = 422, kFailed = 500 };

void answer(httplib::Response& response, Status status, const std::string& text) {
  response.status = status;
  response.set_content(text + "\n", "text/plain");
}

int64_t count_words(const std::string& weights) {
  return ts::load_tensor(weights, "embeddings.word_embeddings.weight", at::kMeta).size(0);
}

/// Tells the client what to mend; of what nobody foresaw that it happened, and the log what it was.
void on_exception(const httplib::Request& request, httplib::Response& response, std::exception_ptr thrown) {
  try {
    std::rethrow_exception(thrown);
  } catch (const BadRequest& error) {
    return answer(response, kBadRequest, error.what());
  } catch (const ts::SafetensorError& error) {
    return answer(response, kBadRequest, error.what());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", request.path.c_str(), error.what());
  } catch (...) {
    std::fprintf(stderr, "%s: unknown exception\n", request.path.c_str());
  }
  answer(response, kFailed, "internal error");
}

}  // namespace

EncoderServer::EncoderServer(Encoder& encoder, const std::filesystem::path& weights)
    : encoder_(encoder),
      folder_(weights.parent_path()),
      vocabulary_(count_words(weights)),
      weights_(weights.filename()) {
  http_.new_task_queue = [] { return new httplib::ThreadPool(kConnections); };
  http_.set_keep_alive_max_count(SIZE_MAX);
  http_.set_tcp_nodelay(true);
  http_.set_payload_max_length(kMaxBody);
  http_.set_exception_handler(on_exception);
  http_.Post("/embed", [this](const httplib::Request& request, httplib::Response& response) {
    embed(request, response);
  });
  http_.Post("/swap", [this](const httplib::Request& request, httplib::Response& response) {
    swap(request, response);
  });
  http_.Get("/health", [this](const httplib::Request&, httplib::Response& response) { health(response); });
}

int EncoderServer::bind(const std::string& host, int port) {
  const int bound = port == 0 ? http_.bind_to_any_port(host) : http_.bind_to_port(host, port) ? port : -1;
  if (bound < 0) {
    throw std::runtime_error("cannot listen on " + host + ":" + std::to_string(port));
  }
  return bound;
}

void EncoderServer::embed(const httplib::Request& request, httplib::Response& response) {
  const c10::InferenceMode inference;
  const auto [input_ids, attention_mask] = parse_tokens(request.body, vocabulary_);
  ts::TensorDict results;
  results.insert("embeddings", encoder_.encode(input_ids, attention_mask));
  const at::Tensor bytes = ts::save(results);
  response.set_content(static_cast<const char*>(bytes.const_data_ptr()), bytes.nbytes(),
                       "application/octet-stream");
}

void EncoderServer::swap(const httplib::Request& request, httplib::Response& response) {
  // Of one folder alone: who may swap shall not read all files of the machine.
  const std::filesystem::path name = request.get_param_value("weights");
  if (name.empty() || name != name.filename() || name == "." || name == "..") {
    throw BadRequest("weights: expected the name of a file");
  }
  const std::string weights = folder_ / name;
  const std::lock_guard lock(mutex_);
  try {
    if (count_words(weights) != vocabulary_) {
      throw ts::SafetensorError(weights + ": not of this vocabulary");
    }
    encoder_.swap(weights);
  } catch (const ts::SafetensorError& error) {
    return answer(response, kUnprocessable, error.what());
  } catch (const ts::OsError& error) {
    if (error.error_number() != ENOENT) {
      throw;
    }
    return answer(response, kNotFound, error.what());
  }
  weights_ = name;
  answer(response, kOk, "ok " + weights_);
}

void EncoderServer::health(httplib::Response& response) {
  const std::lock_guard lock(mutex_);
  answer(response, kOk, "ok " + weights_);
}
