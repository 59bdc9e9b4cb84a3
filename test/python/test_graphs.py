"""The operators and functions in compiled and exported graphs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch._functorch.config
import torch._inductor.config
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

import torch_safetensors
from torch_safetensors import SafetensorError, load_file, load_tensor, save_file

ops = torch.ops.safetensors

BACKENDS = ["eager", "aot_eager", "inductor"]


@pytest.fixture(autouse=True)
def fresh_compiler(tmp_path, monkeypatch):
    # A cached graph once hid a deleted save: every test compiles anew, and in a folder of its own.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    torch._dynamo.reset()
    with (
        torch._inductor.config.patch(fx_graph_cache=False),
        torch._functorch.config.patch(enable_autograd_cache=False),
    ):
        yield
    torch._dynamo.reset()


@pytest.fixture
def path(tmp_path):
    filename = str(tmp_path / "weights.safetensors")
    save_file({"w": torch.arange(16.0).view(4, 4), "b": torch.ones(4)}, filename, {"step": "3"})
    return filename


@pytest.fixture
def out(tmp_path):
    return str(tmp_path / "out.safetensors")


X = torch.linspace(-1, 1, 16).view(4, 4)


def loads_by_function(path):
    def function(x):
        tensors = load_file(path)
        return x @ tensors["w"] + tensors["b"]

    return function


def loads_one_by_function(path):
    return lambda x: x @ load_tensor(path, "w", device="cpu", backend="pread")


def loads_by_operator(path):
    def function(x):
        tensors = ops.load_file(path)
        return x @ tensors["w"] + tensors["b"]

    return function


def loads_by_overload(path):
    return lambda x: x @ ops.load_file.default(path, "cpu")["w"]


def loads_one_by_operator(path):
    return lambda x: x @ ops.load_tensor(path, "w")


def loads_several_by_operator(path):
    def function(x):
        w, b = ops.load_tensors(path, ["w", "b"])
        return x @ w + b

    return function


def loads_into(path):
    def function(x):
        weight = torch.zeros(4, 4)
        ops.load_into(path, "w", weight)
        return x @ weight

    return function


def loads_part_into(path):
    def function(x):
        columns = torch.zeros(4, 2)
        ops.load_into(path, "w", columns, offsets=[0, 1])
        return x @ columns

    return function


def reads_names(path):
    return lambda x: x * len(ops.keys(path)) + int(ops.metadata(path)["step"])


BY_FUNCTION = [loads_by_function, loads_one_by_function]
BY_OPERATOR = [
    loads_by_operator,
    loads_by_overload,
    loads_one_by_operator,
    loads_several_by_operator,
    loads_into,
    loads_part_into,
    reads_names,
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("make", [*BY_FUNCTION, *BY_OPERATOR])
def test_a_compiled_load_gives_what_eager_gives(make, backend, path):
    function = make(path)
    compiled = torch.compile(function, backend=backend, fullgraph=True)
    torch.testing.assert_close(compiled(X), function(X))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_compiled_load_reads_anew_at_every_call(backend, path):
    compiled = torch.compile(lambda x: x + load_tensor(path, "b"), backend=backend, fullgraph=True)
    assert compiled(torch.zeros(4)).tolist() == [1, 1, 1, 1]
    save_file({"w": torch.zeros(4, 4), "b": torch.full((4,), 7.0)}, path)
    assert compiled(torch.zeros(4)).tolist() == [7, 7, 7, 7]


def saves_by_function(out):
    def function(x):
        save_file({"y": x * 2}, out, {"k": "v"})
        return x + 1

    return function


def saves_by_operator(out):
    def function(x):
        ops.save_file({"y": x * 2}, out, {"k": "v"})
        return x + 1

    return function


def saves_lists(out):
    def function(x):
        ops.save_tensors(out, ["y"], [x * 2], ["k", "v"], fsync=True)
        return x + 1

    return function


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("make", [saves_by_function, saves_by_operator, saves_lists])
def test_a_compiled_save_happens(make, backend, dynamic, out):
    compiled = torch.compile(make(out), backend=backend, fullgraph=True, dynamic=dynamic)
    for rows in 4, 3, 5:
        x = torch.rand(rows, 4)
        assert torch.equal(compiled(x), x + 1)
        assert torch.equal(load_file(out)["y"], x * 2)
        assert ops.metadata(out) == {"k": "v"}


@pytest.mark.parametrize("backend", BACKENDS)
def test_load_save_load_in_one_graph_sees_the_new_file(backend, out):
    def function(x):
        before = load_tensor(out, "y")
        save_file({"y": x}, out)
        between = ops.load_tensor(out, "y")
        ops.save_tensors(out, ["y"], [x * 10])
        into = torch.zeros(4)
        ops.load_into(out, "y", into)
        save_file({"y": x * 100}, out)
        return before, between, into

    save_file({"y": torch.full((4,), 5.0)}, out)
    compiled = torch.compile(function, backend=backend, fullgraph=True)
    for before in torch.full((4,), 5.0), torch.ones(4) * 100:
        got = compiled(torch.ones(4))
        assert [tensor.tolist() for tensor in got] == [before.tolist(), [1.0] * 4, [10.0] * 4]
        assert load_file(out)["y"].tolist() == [100.0] * 4


def test_a_save_survives_the_compile_caches(out, tmp_path):
    compiled = {}
    with torch._inductor.config.patch(fx_graph_cache=True), torch._functorch.config.patch(enable_autograd_cache=True):
        for attempt in "first", "from the cache":
            torch._dynamo.reset()
            compiled[attempt] = torch.compile(saves_by_function(out), fullgraph=True)
            compiled[attempt](X)
            assert torch.equal(load_file(out)["y"], X * 2), attempt
            save_file({}, out)


@pytest.mark.parametrize("backend", BACKENDS)
def test_bytes_from_a_compiled_save_are_those_of_eager(backend):
    compiled = torch.compile(lambda x: ops.save({"y": x}, {"k": "v"}), backend=backend, fullgraph=True)
    assert torch.equal(compiled(X), ops.save({"y": X}, {"k": "v"}))


@pytest.mark.parametrize("backend", BACKENDS)
def test_training_with_loads_and_saves_backpropagates(backend, path, out):
    def loss(x):
        hidden = torch.tanh(x @ load_tensor(path, "w"))
        ops.save_tensors(out, ["hidden"], [hidden])
        bias = torch.zeros(4)
        ops.load_into(path, "b", bias)
        return ((hidden + bias) ** 2).sum()

    x = X.clone().requires_grad_()
    loss(x).backward()
    compiled_x = X.clone().requires_grad_()
    torch.compile(loss, backend=backend, fullgraph=True)(compiled_x).backward()
    torch.testing.assert_close(compiled_x.grad, x.grad)
    torch.testing.assert_close(load_file(out)["hidden"], torch.tanh(X @ load_file(path)["w"]))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("context", [torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)])
def test_compiled_under_inference_mode_and_autocast(context, backend, path):
    function = loads_by_function(path)
    compiled = torch.compile(function, backend=backend, fullgraph=True)
    with context():
        torch.testing.assert_close(compiled(X), function(X), rtol=1e-2, atol=1e-1)


@pytest.mark.parametrize("dynamic", [False, True])
def test_dynamic_shapes_around_a_load(dynamic, path):
    function = loads_by_function(path)
    compiled = torch.compile(function, fullgraph=True, dynamic=dynamic)
    for rows in 4, 3, 9:
        x = torch.rand(rows, 4)
        torch.testing.assert_close(compiled(x), function(x))


class Calls(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("make", [*BY_FUNCTION, loads_into, saves_by_function, saves_lists])
def test_exported_saved_and_loaded(make, strict, path, out, tmp_path):
    filename = out if make in (saves_by_function, saves_lists) else path
    function = make(filename)
    package = tmp_path / "exported.pt2"
    torch.export.save(torch.export.export(Calls(function), (X,), strict=strict), package)
    module = torch.export.load(package).module()
    if filename == out:
        save_file({}, out)
    torch.testing.assert_close(module(X), function(X))
    if filename == out:
        assert torch.equal(load_file(out)["y"], X * 2)


@pytest.mark.parametrize("make", [loads_by_operator, loads_one_by_operator, loads_several_by_operator])
def test_bare_loads_are_exported_with_their_expectations(make, path):
    function = make(path)
    exported = torch.export.export(Calls(function), (X,), strict=True)
    torch.testing.assert_close(exported.module()(X), function(X))
    save_file({"w": torch.zeros(4, 4, dtype=torch.float64), "b": torch.ones(4)}, path)
    with pytest.raises(RuntimeError, match=r"tensor 'w': the file holds F64\[4,4\] but F32\[4,4\] is expected"):
        exported.module()(X)


@pytest.mark.parametrize("make", [loads_by_operator, loads_one_by_operator, loads_several_by_operator, reads_names])
def test_bare_loads_refuse_to_be_exported_without_dynamo(make, path):
    with pytest.raises(RuntimeError, match="cannot be traced here"):
        torch.export.export(Calls(make(path)), (X,), strict=False)


def test_make_fx_gives_bare_loads_their_expectations(path):
    graph = make_fx(loads_several_by_operator(path), tracing_mode="fake")(X)
    assert "expect = ['F32[4,4]', 'F32[4]']" in graph.code
    torch.testing.assert_close(graph(X), loads_several_by_operator(path)(X))
    with pytest.raises(RuntimeError, match="cannot be traced here"):
        make_fx(loads_by_operator(path), tracing_mode="fake")(X)


def test_load_from_bytes_refuses_to_be_traced():
    data = ops.save({"w": X})
    with pytest.raises(RuntimeError, match="what it returns depends on the data"):
        make_fx(lambda data: ops.load(data)["w"], tracing_mode="fake")(data)
    with pytest.raises(torch._dynamo.exc.Unsupported, match=r"safetensors\.load"):
        torch.compile(lambda x: ops.load(data)["w"] + x, backend="eager", fullgraph=True)(X)
    assert torch.equal(torch.compile(lambda x: ops.load(data)["w"] + x, backend="eager")(X), X + X)


def test_what_cannot_be_traced_breaks_the_graph(path):
    def function(x):
        with torch_safetensors.safe_open(path, framework="pt") as file:
            weight = file.get_tensor("w")
        (again,) = torch_safetensors.load(torch_safetensors.save({"w": weight})).values()
        return x @ again

    torch.testing.assert_close(torch.compile(function, backend="eager")(X), function(X))


def test_models_break_the_graph(out):
    model = torch.nn.Linear(4, 4)

    def function(x):
        torch_safetensors.save_model(model, out)
        torch_safetensors.load_model(model, out)
        return model(x)

    torch.testing.assert_close(torch.compile(function, backend="eager")(X), model(X))
    assert torch.equal(load_file(out)["weight"], model.weight)


@pytest.mark.skipif(torch.__version__ < "2.13", reason="no constants of such types in Dynamo: docs/limits.md")
def test_a_path_object_made_outside_of_the_graph(path):
    outside = Path(path)
    function = lambda x: x @ load_tensor(outside, "w")  # noqa: E731
    torch.testing.assert_close(torch.compile(function, backend="eager", fullgraph=True)(X), function(X))


class TestFakeTensors:
    def test_loads_are_fake_and_read_no_data(self, path):
        with FakeTensorMode() as mode:
            loaded = [
                load_file(path)["w"],
                load_tensor(path, "w"),
                ops.load_file(path)["w"],
                ops.load_tensor(path, "w", "cpu"),
                *ops.load_tensors(path, ["w"]),
            ]
        for tensor in loaded:
            assert tensor.fake_mode is mode
            assert (tensor.dtype, tensor.shape, tensor.device.type) == (torch.float32, (4, 4), "cpu")

    def test_names_are_real(self, path):
        with FakeTensorMode():
            assert ops.keys(path) == ["b", "w"]
            assert ops.metadata(path) == {"step": "3"}

    def test_saves_write_nothing(self, out, tmp_path):
        with FakeTensorMode():
            save_file({"x": torch.ones(3)}, out)
            ops.save_file({"x": torch.ones(3)}, out, alignment=64)
            fake = ops.save({"x": torch.ones(3)})
        assert fake.shape == ops.save({"x": torch.ones(3)}).shape
        assert [entry.name for entry in tmp_path.iterdir()] == []

    def test_a_fake_tensor_outside_of_its_mode_is_refused(self, out):
        with FakeTensorMode():
            fake = torch.ones(3)
        with pytest.raises(ValueError, match="tensor 'x': has no memory of its own"):
            save_file({"x": fake}, out)


def test_meta_tensors_are_refused_and_not_passed_over(path, out, tmp_path):
    meta = torch.empty(4, 4, device="meta")
    with pytest.raises(NotImplementedError, match="tensor 'x': is on the meta device"):
        ops.save_tensors(out, ["x"], [meta])
    with pytest.raises(NotImplementedError, match="tensor 'x': is on the meta device"):
        ops.save_file({"x": meta}, out)
    with pytest.raises(ValueError, match="tensor 'w': is on the meta device"):
        ops.load_into(path, "w", meta)
    assert not Path(out).exists()


@pytest.mark.parametrize("name", ["load_tensor", "load_tensors", "load_into", "prefetch", "save_tensors"])
def test_opcheck(name, path, out):
    arguments = {
        "load_tensor": ((path, "w"), {"expect": "F32[4,4]"}),
        "load_tensors": ((path, ["w", "b"]), {"expect": ["F32[4,4]", "F32[4]"], "exact": True}),
        "load_into": ((path, "w", torch.zeros(4, 4)), {}),
        "prefetch": ((path, ["w", "b"]), {}),
        "save_tensors": ((out, ["x"], [X]), {"alignment": 64}),
    }
    args, kwargs = arguments[name]
    # Without autograd registration, which is for operators that have a derivative.
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(getattr(ops, name).default, args, kwargs, test_utils=tests)


def test_the_torch_at_hand_is_one_that_the_private_parts_were_tried_with():
    release = ".".join(torch.__version__.split(".")[:2])
    assert release in torch_safetensors._torch_private.TRIED_WITH


def test_importing_the_package_does_not_import_dynamo():
    code = "import sys, torch, torch_safetensors; sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_missing_name_is_refused_at_trace_time(path):
    with pytest.raises(Exception, match="tensor 'nope': not in this file"):
        torch.compile(lambda x: x + load_tensor(path, "nope"), backend="eager", fullgraph=True)(X)


class BeforeAndAfter(torch.nn.Module):
    """Reads a file, writes it, and reads it again; ``mutating``: into memory of its own."""

    def __init__(self, path: str, mutating: bool) -> None:
        super().__init__()
        self.path = path
        self.mutating = mutating

    def load(self) -> torch.Tensor:
        if not self.mutating:
            return load_tensor(self.path, "w", backend="pread")
        out = torch.ones(64, 64)
        ops.load_into(self.path, "w", out)
        return out

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        before = x @ self.load()
        save_file({"w": x}, self.path)
        return before + 1, self.load()


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's own
@pytest.mark.parametrize("backend", [*BACKENDS, "aoti"])
@pytest.mark.parametrize("mutating", [False, True], ids=["load_tensor", "load_into"])
def test_a_save_stays_behind_the_load_before_it(out, tmp_path, backend, mutating):
    """Inductor moves what seems independent so that less memory is in use at a time."""
    save_file({"w": torch.zeros(64, 64)}, out)
    x, module = torch.ones(64, 64), BeforeAndAfter(out, mutating)
    if backend == "aoti":
        program = torch.export.export(module, (x,), strict=True)
        package = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "order.pt2"))
        run = torch._inductor.aoti_load_package(package)
    else:
        run = torch.compile(module, backend=backend, fullgraph=True)
    save_file({"w": torch.zeros(64, 64)}, out)
    before, after = run(x)
    assert torch.equal(before, torch.ones(64, 64))
    assert torch.equal(after, x)


class Part(torch.nn.Module):
    """Rows of a file, whose offsets are part of the graph."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = torch.ones(2, 4)
        ops.load_into(self.path, "w", out, offsets=[1, 0])
        return x[:2] + out


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's own
def test_a_part_is_loaded_by_an_aot_inductor_package(path, tmp_path, capfd):
    program = torch.export.export(Part(path), (X,), strict=True)
    package = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "part.pt2"))
    run = torch._inductor.aoti_load_package(package)
    torch.testing.assert_close(run(X), Part(path)(X))
    save_file({"w": torch.zeros(2, 4)}, path)
    expected = "of which no part of [2, 4] begins at [1, 0]"
    if torch.__version__ < "2.13":  # docs/limits.md: what it compiles does not ask whether an operator failed
        run(X)
        assert expected in capfd.readouterr().err
    else:
        with pytest.raises(RuntimeError, match=re.escape(expected)):
            run(X)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_prefetch_stays_in_the_graph(path, backend):
    """It has no result, and is called all the same: one of a name that is not there raises."""

    def step(x, name):
        ops.prefetch(path, [name])
        return x + load_tensor(path, "b")

    compiled = torch.compile(step, backend=backend, fullgraph=True)
    torch.testing.assert_close(compiled(X, "w"), step(X, "w"))
    with pytest.raises((RuntimeError, SafetensorError), match=r"tensor 'nope': not in this file"):
        compiled(X, "nope")


def test_errors_of_a_graph_name_the_file(path):
    compiled = torch.compile(lambda x: x + load_tensor(path, "b"), backend="eager", fullgraph=True)
    compiled(X)
    Path(path).write_bytes(b"junk")
    with pytest.raises((RuntimeError, SafetensorError), match=r"weights\.safetensors: header too small: 4 bytes"):
        compiled(X)
