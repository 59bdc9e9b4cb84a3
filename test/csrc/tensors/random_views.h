#pragma once

#include <ATen/Functions.h>
#include <ATen/native/Resize.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <random>
#include <vector>

namespace torch_safetensors::tensors {

/// Tensors over storages that were shrunk, freed or have no address under them, and over others that are as
/// they should be. By seed, the same on every run.
class RandomViews {
 public:
  explicit RandomViews(uint32_t seed) : random_(seed) {}

  struct View {
    at::Tensor tensor;
    bool is_there;      ///< Whether its storage holds all of it, by arithmetic of its own.
    at::Tensor values;  ///< Those of a tensor that is there, as a dense copy.
  };

  View next() {
    constexpr std::array kDtypes{at::kByte, at::kHalf, at::kFloat, at::kLong, at::kComplexFloat, at::kBool};
    const at::ScalarType dtype = kDtypes[below(kDtypes.size())];
    const auto item_size = static_cast<int64_t>(c10::elementSize(dtype));
    at::Tensor tensor = at::randint(0, 2, {below(48)}).to(dtype);
    set_layout(tensor);
    damage(*tensor.storage().unsafeGetStorageImpl(), item_size);
    View view{tensor, is_there(tensor), {}};
    view.tensor._set_conj(dtype == at::kComplexFloat && one_in(3));
    view.tensor._set_neg(dtype != at::kByte && dtype != at::kBool && one_in(6));
    if (view.is_there) {
      view.values = view.tensor.detach().resolve_conj().resolve_neg().clone(at::MemoryFormat::Contiguous);
    }
    return view;
  }

  bool one_in(uint32_t n) { return random_() % n == 0; }
  int64_t below(size_t end) { return static_cast<int64_t>(random_() % end); }

 private:
  /// By hand, since torch refuses to make a view outside of a storage. Most lie densely.
  void set_layout(at::Tensor& tensor) {
    std::vector<int64_t> sizes(below(4));
    std::generate(sizes.begin(), sizes.end(), [&] { return below(one_in(6) ? 2 : 5); });
    std::vector<int64_t> strides(sizes.size(), 1);
    for (size_t dim = sizes.size(); dim-- > 1;) {
      strides[dim - 1] = strides[dim] * std::max<int64_t>(sizes[dim], 1);
    }
    int64_t offset = below(8);
    if (one_in(3)) {
      std::generate(strides.begin(), strides.end(), [&] { return below(7); });
    }
    if (one_in(10)) {
      constexpr std::array<int64_t, 5> kExtremes{-1, int64_t{1} << 40, int64_t{1} << 60, INT64_MAX,
                                                 INT64_MIN};
      const int64_t extreme = kExtremes[below(kExtremes.size())];
      (strides.empty() || extreme < 0 || one_in(2) ? offset : strides[below(strides.size())]) = extreme;
    }
    tensor.unsafeGetTensorImpl()->set_sizes_and_strides(sizes, strides, offset);
  }

  void damage(c10::StorageImpl& storage, int64_t item_size) {
    switch (random_() % 5) {
      case 0:
        at::native::resize_bytes_cpu(&storage, 0);
        break;
      case 1:
      case 2:
        at::native::resize_bytes_cpu(&storage, below(storage.nbytes() + item_size));
        break;
      case 3:
        if (one_in(2)) {
          storage.set_data_ptr_noswap({nullptr, c10::kCPU});
        }
        break;
      default:
        break;
    }
  }

  static bool is_there(const at::Tensor& tensor) {
    if (tensor.numel() == 0) {
      return true;
    }
    __extension__ using Wide = __int128;
    Wide last = tensor.storage_offset();
    for (int64_t dim = 0; dim < tensor.dim(); ++dim) {
      last += Wide(tensor.size(dim) - 1) * tensor.stride(dim);
    }
    const c10::Storage& storage = tensor.storage();
    return tensor.storage_offset() >= 0 && (last + 1) * tensor.itemsize() <= Wide(storage.nbytes()) &&
           storage.data() != nullptr;
  }

  std::mt19937 random_;
};

}  // namespace torch_safetensors::tensors
