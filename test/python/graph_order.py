"""Compiles a graph that loads, saves and loads one file, after others have looked for the modules of the compiler.

test_graph_order.py starts it. Each way in an interpreter of its own, since modules are imported once.
Usage: graph_order.py FOLDER WAY.
"""

import importlib
import importlib.util
import pkgutil
import sys
import threading

import torch

MODULES = "torch._dynamo", "torch._inductor", "torch._inductor.lowering"


def probe():
    for _ in range(2):
        for name in MODULES:
            assert importlib.util.find_spec(name) is not None
        assert "_dynamo" in [module.name for module in pkgutil.iter_modules(torch.__path__)]
    importlib.util.module_from_spec(importlib.util.find_spec("torch._dynamo"))


def import_in_vain(name, needs):
    sys.modules[needs] = None
    try:
        importlib.import_module(name)
    except ImportError:
        assert name not in sys.modules
    else:
        raise AssertionError(f"{name} does not need {needs}")
    finally:
        del sys.modules[needs]


def import_in_threads():
    threads = [threading.Thread(target=importlib.import_module, args=(name,)) for name in MODULES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def probed():
    import torch_safetensors  # noqa: F401

    probe()


def failed():
    import torch_safetensors  # noqa: F401

    import_in_vain("torch._inductor.lowering", "torch._inductor.inductor_prims")
    probe()
    import_in_threads()


def taken_away():
    import torch_safetensors  # noqa: F401

    hooks = [finder for finder in sys.meta_path if getattr(finder, "_name", "") == "torch._inductor.lowering"]
    assert hooks
    sys.meta_path[:] = [finder for finder in sys.meta_path if finder not in hooks]


def imported_before():
    probe()
    importlib.import_module("torch._inductor.lowering")

    import torch_safetensors  # noqa: F401

    importlib.reload(sys.modules["torch._dynamo"])  # Inductor does not survive one of its lowering
    probe()


WAYS = {way.__name__: way for way in (probed, failed, taken_away, imported_before)}


def main():
    folder, way = sys.argv[1:]
    WAYS[way]()
    ops, path = torch.ops.safetensors, f"{folder}/weights.safetensors"
    zeros, x = torch.zeros(64, 64), torch.ones(64, 64)

    def step(x):
        before = x @ ops.load_tensor(path, "w", backend="pread")
        ops.save_tensors(path, ["w"], [x])
        between = torch.zeros(64, 64)
        ops.load_into(path, "w", between)
        ops.save_tensors(path, ["w"], [x * 2])
        return before + 1, between, ops.load_tensor(path, "w", backend="pread")

    ops.save_tensors(path, ["w"], [zeros])
    before, between, after = torch.compile(step, backend="inductor", fullgraph=True)(x)
    assert torch.equal(before, zeros + 1)
    assert torch.equal(between, x)
    assert torch.equal(after, x * 2)


if __name__ == "__main__":
    main()
