#include <torch/library.h>

#include "modules/operators.h"
#include "packages/python_package.h"
#include "tensors/expect.h"
#include "tensors/listing.h"
#include "tensors/load.h"
#include "tensors/overflows.h"
#include "tensors/piecewise_load.h"
#include "tensors/prefetch.h"
#include "tensors/python_checkpoint.h"
#include "tensors/python_folder.h"
#include "tensors/python_load.h"
#include "tensors/python_progress.h"
#include "tensors/python_ranges.h"
#include "tensors/python_save.h"
#include "tensors/python_writer.h"
#include "tensors/replace_tensor.h"
#include "tensors/safe_open.h"
#include "tensors/save_plan.h"
#include "tensors/source_header.h"
#include "torch_safetensors/replace.h"
#include "torch_safetensors/torch_safetensors.h"

namespace torch_safetensors {

std::string version() { return TORCH_SAFETENSORS_VERSION; }

namespace {

/// A second copy of the library in the process (the Python package's and a C++ program's) leaves the
/// operators to the first: registering them again would abort the process.
bool is_registered_already() {
  auto& dispatcher = c10::Dispatcher::singleton();
  if (!dispatcher.findSchema({"safetensors::load_tensors", ""})) {
    return false;
  }
  const auto registered = dispatcher.findSchema({"safetensors::_version", ""});
  const std::string other = registered ? registered->typed<std::string()>().call() : "unknown";
  if (other != version()) {
    TORCH_WARN("torch_safetensors ", version(), " was loaded after version ", other,
               ", whose operators stay in use; load one version only");
  }
  return true;
}

/// Registered for every backend, and invisible to autograd: no operator has a derivative. Lazy conjugate and
/// negative views arrive as they are: torch would copy them first, also those whose memory is not there.
template <typename Kernel>
void define(torch::Library& library, c10::FunctionSchema schema, Kernel kernel) {
  const std::string name = schema.name();
  library.def(std::move(schema));
  library.impl(name.c_str(), c10::DispatchKey::CompositeExplicitAutograd, kernel);
  for (const auto key :
       {c10::DispatchKey::Autograd, c10::DispatchKey::Conjugate, c10::DispatchKey::Negative}) {
    library.impl(name.c_str(), key, torch::CppFunction::makeFallthrough());
  }
}

/// Of operators that graphs hold, an integer that may be left out is `int?`: of an `int` with a default,
/// AOTInductor makes a package that fails where it is called (torch 2.11 to 2.13, pytorch/pytorch#194261).
///
/// TorchScript must neither drop such an operator nor move it past another one: with the alias analysis that
/// schemas get by default, it removes a save whose result is unused, and merges two loads around a save.
c10::FunctionSchema touches_files(const char* schema) {
  return torch::schema(schema, c10::AliasAnalysisKind::CONSERVATIVE);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(safetensors, m) {
  if (is_registered_already()) {
    return;
  }
  define(m,
         touches_files("load_file(str filename, Device device='cpu', *, str backend='auto', "
                       "bool verify=False, bool strict_index=True) -> Dict(str, Tensor)"),
         TORCH_FN(load_file));
  define(m,
         touches_files("load(Tensor data, Device device='cpu', *, bool copy=True, bool verify=False) "
                       "-> Dict(str, Tensor)"),
         TORCH_FN(load));
  define(m,
         touches_files("save_file(Dict(str, Tensor) tensors, str filename, Dict(str, str)? metadata=None, *, "
                       "bool fsync=False, bool checksum=False, int? alignment=None) -> ()"),
         TORCH_FN(tensors::save_dict));
  define(
      m,
      touches_files(
          "save(Dict(str, Tensor) tensors, Dict(str, str)? metadata=None, *, bool checksum=False) -> Tensor"),
      TORCH_FN(save));
  define(m, touches_files("keys(str filename, *, bool strict_index=True) -> str[]"), TORCH_FN(keys));
  define(m, touches_files("metadata(str filename) -> Dict(str, str)"), TORCH_FN(metadata));
  define(m,
         touches_files("load_tensor(str filename, str name, Device device='cpu', *, str backend='auto', "
                       "str? expect=None, bool verify=False) -> Tensor"),
         TORCH_FN(tensors::load_expected_tensor));
  define(m,
         touches_files("load_tensors(str filename, str[] names, Device device='cpu', *, str backend='auto', "
                       "str[]? expect=None, bool exact=False, bool verify=False, bool strict_index=True) "
                       "-> Tensor[]"),
         TORCH_FN(tensors::load_expected));
  define(m,
         touches_files("save_tensors(str filename, str[] names, Tensor[] tensors, str[]? metadata=None, *, "
                       "bool fsync=False, bool checksum=False, int? alignment=None) -> ()"),
         TORCH_FN(tensors::save_tensors));
  // An annotated schema is right for a single tensor, also in order with the saves around it.
  define(m,
         torch::schema("load_into(str filename, str name, Tensor(a!) out, *, int[]? offsets=None) -> ()",
                       c10::AliasAnalysisKind::FROM_SCHEMA),
         TORCH_FN(load_into));
  define(m, touches_files("prefetch(str filename, str[] names) -> ()"), TORCH_FN(prefetch));

  m.class_<tensors::SafeOpen>("SafeOpen")
      .def(torch::init<std::string, c10::Device, std::string>(), "",
           {torch::arg("filename"), torch::arg("device") = c10::Device(c10::kCPU),
            torch::arg("backend") = "auto"})
      .def("keys", &tensors::SafeOpen::keys)
      .def("metadata", &tensors::SafeOpen::metadata)
      .def("get_tensor", &tensors::SafeOpen::get_tensor, "", {torch::arg("name")})
      .def("get_tensors", &tensors::SafeOpen::get_tensors, "", {torch::arg("names")})
      .def("get_shape", &tensors::SafeOpen::get_shape, "", {torch::arg("name")})
      .def("get_dtype", &tensors::SafeOpen::get_dtype, "", {torch::arg("name")})
      .def("get_slice", &tensors::SafeOpen::get_slice, "",
           {torch::arg("name"), torch::arg("dim") = 0, torch::arg("start") = c10::IValue(),
            torch::arg("end") = c10::IValue(), torch::arg("step") = 1})
      .def("prefetch", &tensors::SafeOpen::prefetch, "", {torch::arg("names")})
      .def("load_into", &tensors::SafeOpen::load_into, "",
           {torch::arg("names"), torch::arg("tensors"), torch::arg("offsets") = c10::IValue()})
      // For the Python package alone.
      .def("_keys", &tensors::SafeOpen::joined_keys)
      .def("_sorted_keys", &tensors::SafeOpen::joined_sorted_keys)
      .def("_listing", &tensors::list_tensors)
      .def("_size", &tensors::SafeOpen::size)
      .def("_require_whole", &tensors::SafeOpen::require_whole)
      .def("_is_current", &tensors::SafeOpen::is_current)
      .def("_verify", &tensors::SafeOpen::verify)
      .def("_version", &tensors::SafeOpen::version)
      .def("_contains", &tensors::SafeOpen::contains)
      .def("_has_metadata", &tensors::SafeOpen::has_metadata)
      .def("_filename", &tensors::SafeOpen::get_filename)
      .def("_data_offsets", &tensors::SafeOpen::get_data_offsets)
      .def("_get_tensors", &tensors::SafeOpen::get_tensors_on)
      .def("_read_all", &tensors::SafeOpen::read_all)
      .def("_get_meta", &tensors::SafeOpen::get_meta)
      .def("_get_view", &tensors::SafeOpen::get_view)
      .def("_files_with_checksums", &tensors::SafeOpen::files_with_checksums)
      .def("_verify_recorded", &tensors::SafeOpen::verify_recorded)
      // Lambdas, since def_pickle takes nothing else.
      .def_pickle(
          [](const c10::intrusive_ptr<tensors::SafeOpen>& self) { return self->arguments(); },
          [](tensors::SafeOpen::Arguments arguments) { return tensors::SafeOpen::reopen(arguments); });
  // For the Python package alone.
  define(m, touches_files("_version() -> str"), TORCH_FN(version));
  define(m, touches_files("_verify(str filename) -> ()"), TORCH_FN(tensors::verify_file));
  define(m, touches_files("_signatures(str filename, *, bool strict_index=True) -> (str[], str[])"),
         TORCH_FN(tensors::signatures));
  define(m, touches_files("_names(str filename) -> str[]"), TORCH_FN(tensors::names_of_present));
  define(m, touches_files("_signatures_of(str filename, str[] names) -> str[]"),
         TORCH_FN(tensors::signatures_of));
  m.class_<tensors::PythonLoad>("_PythonLoad").def("take", &tensors::PythonLoad::take);
  define(m,
         touches_files("_load_file(str filename, Device device, str backend, int? threads, int? ring_size, "
                       "bool verify, bool strict_index) -> "
                       "(str[], Tensor[], __torch__.torch.classes.safetensors._PythonLoad?)"),
         TORCH_FN(tensors::python_load_file));
  define(m,
         touches_files("_load(Tensor data, Device device, bool copy, bool verify) -> "
                       "(str[], Tensor[], __torch__.torch.classes.safetensors._PythonLoad?)"),
         TORCH_FN(tensors::python_load));
  define(m, torch::schema("_header_size(str source, Tensor prefix, int? file_size) -> int"),
         TORCH_FN(tensors::header_size));
  m.class_<tensors::SourceHeader>("_SourceHeader")
      .def(torch::init<std::string, at::Tensor, std::optional<int64_t>>())
      .def("keys", &tensors::SourceHeader::keys)
      .def("nbytes", &tensors::SourceHeader::nbytes)
      .def("data_begin", &tensors::SourceHeader::data_begin)
      .def("end", &tensors::SourceHeader::end)
      .def("check_data_size", &tensors::SourceHeader::check_data_size);
  m.class_<tensors::PiecewiseLoad>("_PiecewiseLoad")
      .def(torch::init<c10::intrusive_ptr<tensors::SourceHeader>, std::optional<std::vector<std::string>>,
                       std::vector<c10::Device>, bool, int64_t, int64_t>())
      .def("threads", &tensors::PiecewiseLoad::threads)
      .def("next", &tensors::PiecewiseLoad::next)
      .def("finish", &tensors::PiecewiseLoad::finish)
      .def("take", &tensors::PiecewiseLoad::take);
  define(
      m,
      touches_files("_saved_size(Dict(str, Tensor) tensors, Dict(str, str)? metadata, bool checksum) -> int"),
      TORCH_FN(tensors::saved_size));
  define(m,
         touches_files("_save_file(str filename, str names, int[] name_sizes, Tensor[][] tensors, "
                       "Dict(str, str)? metadata, bool fsync, bool checksum, int alignment) -> str"),
         TORCH_FN(tensors::save_file_for_python));
  define(m,
         touches_files("_save_small(str names, int[] name_sizes, Tensor[][] tensors, "
                       "Dict(str, str)? metadata, int limit) -> Tensor"),
         TORCH_FN(tensors::save_small_for_python));
  // Python implements it: see uninitialized.h.
  m.def(touches_files("_is_uninitialized(Tensor[][] tensor) -> bool"));
  define(m, torch::schema("_memory_faults(Tensor[][] tensors) -> str[]"), TORCH_FN(tensors::memory_faults));
  // What a model was checked against is what has to be loaded: of one handle.
  define(
      m,
      touches_files("_load_model(__torch__.torch.classes.safetensors.SafeOpen file, str class_name, "
                    "Dict(str, Tensor) tensors, str[] may_be_missing, bool strict) -> (str[], str[], str)"),
      TORCH_FN(modules::load_model_dict));
  define(m,
         touches_files("_check_model(__torch__.torch.classes.safetensors.SafeOpen file, str class_name, "
                       "Dict(str, Tensor) tensors, str[] may_be_missing, bool strict) -> (str[], str[])"),
         TORCH_FN(modules::check_model_dict));
  define(m, touches_files("_dropped_names(Dict(str, Tensor) tensors) -> Dict(str, str)"),
         TORCH_FN(modules::dropped_names));
  define(m, touches_files("_parse_index(str source, Tensor json) -> (str[], str[])"),
         TORCH_FN(tensors::parse_index));
  define(m, touches_files("_remove_dead_files(str folder) -> ()"), TORCH_FN(tensors::remove_dead_files));
  define(m, touches_files("_flush_folder(str folder) -> ()"), TORCH_FN(tensors::flush_folder));
  m.class_<tensors::PythonFolderLock>("_FolderLock")
      .def(torch::init<std::string>())
      .def("release", &tensors::PythonFolderLock::release);
  define(m, touches_files("_write_file(str filename, Tensor data, bool fsync) -> str"),
         TORCH_FN(tensors::write_file));
  define(m,
         touches_files("_save_model(str filename, str names, int[] name_sizes, Tensor[][] tensors, "
                       "Dict(str, str)? metadata, bool force_contiguous, bool fsync, bool checksum, "
                       "int alignment) -> str"),
         TORCH_FN(modules::save_model_for_python));

  // Python implements it: see python_progress.h.
  m.def(touches_files("_report(int done, int total) -> ()"));
  // Python implements it: see lock_wait.h.
  m.def(touches_files("_on_lock_wait(str notice) -> ()"));
  define(m, touches_files("_report_to_python(bool report) -> ()"), TORCH_FN(tensors::report_to_python));

  define(m, touches_files("_replace_tensor(str filename, str name, Tensor[][] tensor) -> ()"),
         TORCH_FN(tensors::replace_for_python));
  define(m, touches_files("_recover(str filename) -> bool"), TORCH_FN(recover));

  m.class_<tensors::Prefetch>("_Prefetch")
      .def(torch::init<c10::intrusive_ptr<tensors::SafeOpen>, std::vector<std::string>, std::vector<int64_t>,
                       std::vector<int64_t>, c10::Device, std::optional<int64_t>, std::optional<int64_t>,
                       std::optional<int64_t>>())
      .def("names", &tensors::Prefetch::names)
      .def("take", &tensors::Prefetch::take)
      .def("take_any", &tensors::Prefetch::take_any)
      .def("close", &tensors::Prefetch::close);
  m.class_<tensors::Overflows>("_Overflows")
      .def(torch::init<>())
      .def("add", [](const c10::intrusive_ptr<tensors::Overflows>& self, const std::string& name,
                     const at::Tensor& from,
                     int64_t to) { self->add(name, from, static_cast<c10::ScalarType>(to)); })
      .def("warning", &tensors::Overflows::warning);
  m.class_<packages::PythonPackage>("_Package")
      .def(torch::init<std::string, std::string, int64_t, int64_t, bool, bool, std::string>())
      .def("run", &packages::PythonPackage::run)
      .def("swap", &packages::PythonPackage::swap)
      .def("call_spec", &packages::PythonPackage::call_spec)
      .def("device", &packages::PythonPackage::device);
  m.class_<tensors::PythonSave>("_PythonSave")
      .def(torch::init<std::string, std::vector<int64_t>, tensors::WrappedTensors, std::optional<Metadata>,
                       bool>())
      .def("size", &tensors::PythonSave::size)
      .def("write_to", &tensors::PythonSave::write_to);
  m.class_<tensors::PythonRangeFile>("_RangeFile")
      .def(torch::init<std::string, std::string, std::vector<int64_t>, tensors::WrappedTensors,
                       std::optional<Metadata>, bool, int64_t>())
      .def("temporary", &tensors::PythonRangeFile::temporary)
      .def("commit", &tensors::PythonRangeFile::commit)
      .def("abort", &tensors::PythonRangeFile::abort);
  define(m,
         touches_files("_write_ranges(str temporary, str filename, str names, int[] name_sizes, "
                       "Tensor[][] parts, int[][] offsets, bool fsync) -> ()"),
         TORCH_FN(tensors::write_ranges_for_python));
  define(m, touches_files("_check_savable(str names, int[] name_sizes, Tensor[][] tensors) -> ()"),
         TORCH_FN(tensors::check_savable_for_python));
  define(m, touches_files("_check_parts(str names, int[] name_sizes, Tensor[][] parts, bool overlap) -> ()"),
         TORCH_FN(tensors::check_parts_for_python));
  m.class_<tensors::PythonWriter>("_Writer")
      .def(torch::init<std::string, std::string, std::vector<int64_t>, tensors::WrappedTensors,
                       std::optional<Metadata>, bool, bool, int64_t>())
      .def("write", &tensors::PythonWriter::write)
      .def("close", &tensors::PythonWriter::close)
      .def("abort", &tensors::PythonWriter::abort);
}

}  // namespace torch_safetensors
