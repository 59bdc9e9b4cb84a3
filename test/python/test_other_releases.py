"""What a release of torch lacks takes away that one feature, says so in one line, and leaves the rest."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import torch_safetensors

ROOT = Path(torch_safetensors.__file__).parent.parent

#: What a program does after something private is gone from torch.
PROGRAM = """
import sys, warnings
import torch
from torch._subclasses import FakeTensorMode
{remove}
import torch_safetensors as ts

path = sys.argv[1]
ops = torch.ops.safetensors


def error_of(call):
    try:
        call()
    except Exception as error:
        return str(error)
    return "none"


x = torch.arange(4.0)
ts.save_file({{"w": x}}, path)
assert torch.equal(ts.load_file(path)["w"], x)
assert torch.equal(ts.load_tensor(path, "w"), x)
assert torch.equal(ts.load(ts.save({{"w": x}}))["w"], x)
model = torch.nn.Linear(2, 2)
ts.save_model(model, path + ".model")
ts.load_model(model, path + ".model")
assert torch.equal(dict(ts.iter_tensors(path))["w"], x)
out = torch.zeros(4)
ops.load_into(path, "w", out)
assert torch.equal(out, x)
assert "is on the meta device" in error_of(lambda: ops.save_tensors(path, ["w"], [x.to("meta")]))
{check}
"""

GRAPHS = """
def compiled(function):
    torch._dynamo.reset()
    return error_of(lambda: torch.compile(function, backend="eager", fullgraph=True)(x))


expected = f"torch {torch.__version__} lacks what operators need in graphs: cannot import name '_register_effectful_op'"
assert expected in compiled(lambda x: x + ts.load_tensor(path, "w"))
assert expected in compiled(lambda x: x + ops.load_tensor(path, "w"))
assert expected in compiled(lambda x: ts.save_file({"w": x}, path))
assert expected in compiled(lambda x: ops.save_tensors(path, ["w"], [x]))
with FakeTensorMode():
    assert error_of(lambda: ts.load_file(path)).startswith(expected)
    assert error_of(lambda: ops.load_tensors(path, ["w"])).startswith(expected)
"""

HANDLERS = """
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import torch._dynamo
(message,) = [str(warning.message) for warning in caught if warning.category is UserWarning]
assert message.startswith(f"torch {torch.__version__}: torch.ops.safetensors.* cannot be compiled; use torch_safe")
assert "\\n" not in message
assert torch.equal(torch.compile(lambda x: x + ts.load_tensor(path, "w"), backend="eager", fullgraph=True)(x), x + x)
refused = error_of(lambda: torch.compile(lambda x: x + ops.load_tensor(path, "w"), backend="eager", fullgraph=True)(x))
assert "cannot be traced here" in refused
"""

LOWERINGS = """
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import torch._inductor.lowering
(message,) = [str(warning.message) for warning in caught if "Inductor" in str(warning.message)]
assert message.startswith(f"torch {torch.__version__}: Inductor may move loads and saves of compiled code (torch._ind")
assert "\\n" not in message
"""

#: A finder that takes something from a module as soon as that is there, before our hook is told.
TAKE = """
import importlib.util
import types


class Taker:
    def find_spec(self, name, path=None, target=None):
        if name != {module!r}:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            {take}

        spec.loader.exec_module = exec_module
        return spec


def after_ours():
    sys.meta_path.insert(2, Taker())  # behind the two hooks


"""

RELEASES = {
    "effects": ("import torch._higher_order_ops.effects as effects\ndel effects._register_effectful_op", GRAPHS),
    "modes": (
        "for name in ('_get_dispatch_mode', '_dispatch_tls_is_dispatch_key_included', '_len_torch_dispatch_stack'):\n"
        "    delattr(torch._C, name)",
        "",
    ),
    "Dynamo's table": (
        TAKE.format(
            module="torch._dynamo.variables.torch",
            take="kind = module.TorchInGraphFunctionVariable; table = kind._get_handlers; "
            "kind._get_handlers = staticmethod(lambda: types.MappingProxyType(table()))",
        ),
        "sys.meta_path.insert(0, Taker())\n" + HANDLERS,
    ),
    "Inductor's lowerings": (
        TAKE.format(module="torch._inductor.lowering", take="del module.fallback_handler"),
        "after_ours()\n" + LOWERINGS,
    ),
}


@pytest.mark.parametrize("lacking", RELEASES)
def test_a_release_without(lacking, tmp_path):
    remove, check = RELEASES[lacking]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-c", PROGRAM.format(remove=remove, check=check), tmp_path / "weights.safetensors"]
    result = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
