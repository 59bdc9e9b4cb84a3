#pragma once

#include <httplib.h>

#include <filesystem>
#include <mutex>
#include <string>

#include "encoder.h"

/// The encoder over HTTP:
///
///   POST /embed              a safetensors file of input_ids and attention_mask -> one of embeddings
///   POST /swap?weights=NAME  from now on with this file of the folder that the first weights are in
///   GET  /health             "ok NAME"
///
/// The body's Content-Type is application/octet-stream (a form may not be as long); 400, 404 and 422 (weights
/// that do not fit) come with a line that says what is wrong.
class EncoderServer {
 public:
  /// `weights` is what the encoder runs with.
  EncoderServer(Encoder& encoder, const std::filesystem::path& weights);

  /// The port it is bound to; 0 asks for any that is free. Throws std::runtime_error.
  int bind(const std::string& host, int port);

  /// Serves until `stop`, which any thread may call; requests that have begun are answered.
  void serve() { http_.listen_after_bind(); }
  void stop() { http_.stop(); }

 private:
  void embed(const httplib::Request& request, httplib::Response& response);
  void swap(const httplib::Request& request, httplib::Response& response);
  void health(httplib::Response& response);

  Encoder& encoder_;
  const std::filesystem::path folder_;
  const int64_t vocabulary_;
  std::mutex mutex_;
  std::string weights_;
  httplib::Server http_;
};
