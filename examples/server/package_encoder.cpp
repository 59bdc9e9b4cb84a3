#include <torch_safetensors/packages.h>

#include "encoder.h"

namespace {

class PackageEncoder : public Encoder {
 public:
  PackageEncoder(const std::string& package, const std::string& weights, size_t runners)
      : model_(package, weights, {}, runners) {}

  at::Tensor encode(const at::Tensor& input_ids, const at::Tensor& attention_mask) override {
    return model_.run({input_ids, attention_mask}).at(0);
  }

  void swap(const std::string& weights) override { model_.swap(weights); }

 private:
  torch_safetensors::PackagedModel model_;
};

}  // namespace

std::unique_ptr<Encoder> package_encoder(const std::string& package, const std::string& weights,
                                         size_t runners) {
  return std::make_unique<PackageEncoder>(package, weights, runners);
}
