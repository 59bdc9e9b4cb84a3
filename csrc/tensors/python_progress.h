#pragma once

namespace torch_safetensors::tensors {

/// Has loads and saves on the calling thread call the operator `safetensors::_report`, which the Python
/// package implements, on this thread; or ends what it was last called for. What that raises arrives
/// unchanged where the load was called from. A function of Python cannot be passed here as itself: nothing of
/// the library knows Python.
void report_to_python(bool report);

}  // namespace torch_safetensors::tensors
