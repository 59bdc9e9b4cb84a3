#include <torch/script.h>
#include <torch_safetensors/errors.h>
#include <torch_safetensors/torch_safetensors.h>

#include <algorithm>
#include <mutex>
#include <shared_mutex>

#include "encoder.h"

namespace {

class ScriptEncoder : public Encoder {
 public:
  ScriptEncoder(const std::string& module, const std::string& weights)
      : module_(torch::jit::load(module)), weights_(weights) {
    module_.eval();
    load(weights);
  }

  at::Tensor encode(const at::Tensor& input_ids, const at::Tensor& attention_mask) override {
    std::unique_lock turn(turnstile_);
    const std::shared_lock lock(running_);
    turn.unlock();
    return module_.forward({input_ids, attention_mask}).toTensor();
  }

  /// In place, while requests wait: the module's parameters are overwritten.
  void swap(const std::string& weights) override {
    const std::lock_guard turn(turnstile_);  // no request passes: a shared_mutex alone would let them
    const std::lock_guard lock(running_);
    try {
      load(weights);
      weights_ = weights;
    } catch (const torch_safetensors::SafetensorError&) {
      throw;  // nothing was written
    } catch (...) {
      load(weights_);
      throw;
    }
  }

 private:
  /// The file must have all parameters. It may have more, and may leave out buffers that are not persistent.
  void load(const std::string& weights) {
    const std::vector<std::string> names = torch_safetensors::keys(weights);
    for (const auto& parameter : module_.named_parameters()) {
      if (std::find(names.begin(), names.end(), parameter.name) == names.end()) {
        throw torch_safetensors::SafetensorError(weights + ": no tensor '" + parameter.name + "'");
      }
    }
    torch_safetensors::load_model(module_, weights, /*strict=*/false);
  }

  torch::jit::Module module_;
  std::string weights_;
  std::mutex turnstile_;
  std::shared_mutex running_;
};

}  // namespace

std::unique_ptr<Encoder> script_encoder(const std::string& module, const std::string& weights) {
  return std::make_unique<ScriptEncoder>(module, weights);
}
