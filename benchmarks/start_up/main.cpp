// Loads a model in one of the ways to serve it, answers once, says so, and stays until its input ends, so
// that its memory can be looked at:
//
//   start_up weightless|package|torchscript MODEL WEIGHTS INPUTS
//
// TorchScript modules bring their weights; with WEIGHTS of - they are not loaded over.

#include <c10/core/InferenceMode.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/script.h>
#include <torch_safetensors/packages.h>

#include <cstdio>
#include <exception>
#include <functional>
#include <memory>

namespace {

namespace ts = torch_safetensors;
using Inputs = std::vector<at::Tensor>;
using Run = std::function<at::Tensor(const Inputs&)>;

Run load(const std::string& kind, const std::string& model, const std::string& weights) {
  if (kind == "weightless") {
    const auto loaded = std::make_shared<ts::PackagedModel>(model, weights);
    return [loaded](const Inputs& inputs) { return loaded->run(inputs).at(0); };
  }
  if (kind == "package") {
    const auto loaded = std::make_shared<torch::inductor::AOTIModelPackageLoader>(model);
    return [loaded](const Inputs& inputs) { return loaded->run(inputs).at(0); };
  }
  torch::jit::Module module = torch::jit::load(model);
  if (weights != "-") {
    ts::load_model(module, weights, /*strict=*/false);
  }
  return [module](const Inputs& inputs) mutable {
    return module.forward({inputs.begin(), inputs.end()}).toTensor();
  };
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) {
    std::fprintf(stderr, "usage: %s weightless|package|torchscript MODEL WEIGHTS INPUTS\n", argv[0]);
    return 2;
  }
  try {
    const c10::InferenceMode inference;
    Inputs inputs;
    const ts::TensorDict saved = ts::load_file(argv[4]);
    for (size_t i = 0; i < saved.size(); ++i) {
      inputs.push_back(saved.at(std::to_string(i)));
    }
    const Run run = load(argv[1], argv[2], argv[3]);
    std::printf("%.9g\n", run(inputs).sum().item<double>());
    std::fflush(stdout);
    std::getchar();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
  return 0;
}
