// Runs two models that were made in Python and load their own weights from a .safetensors file: a TorchScript
// module and an AOTInductor package. No Python is in this program.
//
//   deploy model.safetensors inputs.safetensors encoder.pt encoder.pt2 outputs.safetensors

#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/script.h>
#include <torch_safetensors/torch_safetensors.h>

#include <cstdio>
#include <exception>

namespace {

void print_weights(const char* path) {
  const torch_safetensors::TensorDict weights = torch_safetensors::load_file(path);
  int64_t bytes = 0;
  for (const auto& entry : weights) {
    bytes += static_cast<int64_t>(entry.value().nbytes());
  }
  std::printf("  torch_safetensors %s reads %zu tensors, %.1f MB\n", torch_safetensors::version().c_str(),
              weights.size(), static_cast<double>(bytes) / 1e6);
}

/// One row for each pair of sentences: how alike the model finds them.
void print_similarities(const char* what, const torch::Tensor& embeddings) {
  const torch::Tensor similarities = embeddings.mm(embeddings.t());
  std::printf("  %-13s", what);
  for (int64_t i = 0; i < similarities.size(0); ++i) {
    for (int64_t j = i + 1; j < similarities.size(1); ++j) {
      std::printf(" %9.6f", similarities[i][j].item<float>());
    }
  }
  std::printf("\n");
}

void run(const char* weights, const char* inputs, const char* module_path, const char* package_path,
         const char* outputs) {
  const c10::InferenceMode inference;
  print_weights(weights);
  const torch::Tensor tokens = torch_safetensors::load_tensor(inputs, "tokens");

  torch::jit::Module module = torch::jit::load(module_path);
  const torch::Tensor scripted = module.forward({tokens}).toTensor();
  print_similarities("TorchScript", scripted);

  torch::inductor::AOTIModelPackageLoader package(package_path);
  const torch::Tensor packaged = package.run({tokens}).at(0);
  print_similarities("AOTInductor", packaged);

  torch_safetensors::TensorDict results;
  results.insert("scripted", scripted);
  results.insert("packaged", packaged);
  torch_safetensors::save_file(results, outputs);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) {
    std::fprintf(stderr, "usage: %s MODEL INPUTS MODULE PACKAGE OUTPUTS\n", argv[0]);
    return 2;
  }
  try {
    run(argv[1], argv[2], argv[3], argv[4], argv[5]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
  return 0;
}
