"""Every option acts or is refused: for each option of each public function, operator and command a table says how.

An option that is not in the tables fails. Each bad value has to be refused with an error that names the option, before
anything is read or written. Each entry names the test that shows what the option does.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed as dist
from command_line import Cli
from helpers import listing
from torch.distributed.device_mesh import init_device_mesh

import torch_safetensors as ts
import torch_safetensors.aoti
import torch_safetensors.distributed
import torch_safetensors.torch
from torch_safetensors._cli import _main
from torch_safetensors._prefetch import PrefetchLoader
from torch_safetensors._safe_open import SafeSlice

TESTS = Path(__file__).parent


class Option(NamedTuple):
    """What is refused: values, each with the exception and what its text contains; and what shows that it acts."""

    refused: list[tuple[Any, type[Exception], str]]
    shown: str


def flag(name: str, shown: str) -> Option:
    return Option(
        [("no", TypeError, f"{name}: expected bool, not str"), (1, TypeError, f"{name}: expected bool")], shown
    )


def count(name: str, shown: str) -> Option:
    refused = [
        (0, ValueError, f"{name} must be positive, not 0"),
        (-1, ValueError, f"{name} must be positive, not -1"),
        (2**63, ValueError, f"{name} must be less than 2**63"),
        (True, TypeError, f"{name}: expected int or None, not bool"),
        (1.0, TypeError, f"{name}: expected int or None, not float"),
        ("4", TypeError, f"{name}: expected int or None, not str"),
    ]
    return Option(refused, shown)


def alignment(shown: str) -> Option:
    refused = [
        (3, ValueError, "alignment"),
        (64.0, TypeError, "alignment: expected int, not float"),
        (True, ValueError, "alignment must be 0 or a power of two from 8 to 4096, not 1"),
    ]
    return Option(refused, shown)


def backend(shown: str) -> Option:
    refused = [
        ("bogus", ValueError, "backend 'bogus' is not one of 'auto', 'mmap', 'pread'"),
        (None, TypeError, "backend: expected str, not NoneType"),
    ]
    return Option(refused, shown)


def device(shown: str) -> Option:
    return Option([("nonsense", ValueError, "device"), (1.5, TypeError, "device")], shown)


def strategy(shown: str) -> Option:
    return Option([("best", ValueError, "strategy 'best' is not one of")], shown)


def progress(shown: str) -> Option:
    return Option([("x", TypeError, "progress: expected a bool or a callable, not str")], shown)


def metadata(shown: str) -> Option:
    return Option(
        [("x", TypeError, "metadata: expected dict"), ({"k": 1}, TypeError, "metadata: the value of 'k'")], shown
    )


def shard_size(shown: str) -> Option:
    refused = [
        ("big", ValueError, "max_shard_size: 'big' is not a size"),
        (0, ValueError, "max_shard_size: must be positive"),
        (1.5, TypeError, "max_shard_size: expected int or str, not float"),
    ]
    return Option(refused, shown)


STRICT_INDEX = flag("strict_index", "test_checkpoints.py::assert_decides")
NAMES = Option(
    [
        (5, TypeError, "names: expected str or several of them, not int"),
        ([1], TypeError, "names: expected str, not int"),
        ("typo*", ts.SafetensorError, "no tensor has the name 'typo*' or matches it"),
    ],
    "test_selection.py::test_names_are_exact_or_patterns",
)
DTYPE = Option(
    [
        ("float16", TypeError, "dtype: expected torch.dtype"),
        (torch.int8, ValueError, "dtype: expected a floating-point"),
    ],
    "test_selection.py::test_dtype_converts_floating_point_tensors_and_no_others",
)
RENAME = Option(
    [
        ("x", TypeError, "rename: expected a mapping or a callable, not str"),
        ({"typo": "x"}, ValueError, "no tensor fits these entries of rename=: 'typo'"),
        ({1: "x"}, TypeError, "rename: expected names of type str, not int"),
        ({"w": 1}, TypeError, "rename: gives int for 'w', not str"),
    ],
    "test_selection.py::test_rename",
)
PLACES = Option(
    [
        ("nonsense", ValueError, "device"),
        ({"typo": "cpu", "": "cpu"}, ValueError, "no tensor fits these entries of device=: 'typo'"),
        ({1: "cpu"}, TypeError, "device: expected prefixes of type str, not int"),
    ],
    "test_selection.py::test_devices_by_the_longest_prefix",
)
SAVES = {
    "metadata": metadata("test_bytes.py::test_metadata_is_sorted"),
    "fsync": flag(
        "fsync", "test_save_file.py::test_fsync_flushes_the_file_before_it_has_its_name_and_the_directory_after"
    ),
    "checksum": flag("checksum", "test_checksums.py::test_a_whole_file_is_verified"),
    "alignment": alignment("test_save_file.py::test_alignment"),
    "progress": progress("test_progress.py::test_a_save"),
}
GROUP = Option([], "test_distributed_save.py::test_groups")
MESH_SAVE = {
    "metadata": metadata("test_distributed_save.py::test_models"),
    "max_shard_size": shard_size("test_distributed_save.py::test_models"),
    "fsync": flag("fsync", "test_distributed_save.py::test_models"),
    "process_group": GROUP,
}

#: By name of a public function, class or method: its options, which are the parameters that have a default.
OPTIONS: dict[str, dict[str, Option]] = {
    "load_file": {
        "device": PLACES,
        "backend": backend("test_bytes.py::test_pread_is_immune_to_later_changes"),
        "threads": count("threads", "test_options.py::test_one_thread_reads_everything"),
        "ring_size": count("ring_size", "test_made_up_accelerator.py::test_every_way_to_load"),
        "verify": flag("verify", "test_checksums.py::test_a_bit_that_changed_is_found"),
        "names": NAMES,
        "dtype": DTYPE,
        "rename": RENAME,
        "storage_options": Option(
            [
                ("x", TypeError, "storage_options: expected a mapping or None, not str"),
                ({1: 2}, TypeError, "storage_options: key 1 is int, not str"),
                ({"token": "t"}, ValueError, "storage_options are for URLs"),
            ],
            "test_urls.py::test_storage_options",
        ),
        "progress": progress("test_progress.py::test_a_load"),
        "strict_index": STRICT_INDEX,
    },
    "load": {
        "device": device("test_arguments.py::test_device"),
        "copy": flag("copy", "test_arguments.py::test_alias_needs_writable_memory"),
        "verify": flag("verify", "test_checksums.py::test_a_bit_that_changed_is_found"),
    },
    "load_tensor": {
        "device": device("test_arguments.py::test_device"),
        "backend": backend("test_arguments.py::test_unknown_backend"),
        "verify": flag("verify", "test_checksums.py::test_a_bit_that_changed_is_found"),
    },
    "iter_tensors": {
        "device": PLACES,
        "names": NAMES,
        "dtype": DTYPE,
        "rename": RENAME,
        "backend": backend("test_options.py::test_iteration_reads_whatever_the_backend"),
        "threads": count("threads", "test_options.py::test_background_threads"),
        "buffer_size": count("buffer_size", "test_selection.py::test_iteration_that_is_left_early_ends_its_threads"),
        "strict_index": STRICT_INDEX,
    },
    "save_file": SAVES,
    "save": {"metadata": SAVES["metadata"], "checksum": SAVES["checksum"]},
    "load_model": {
        "strict": flag("strict", "test_load_model.py::test_strict_false_forgives_no_shape"),
        "device": device("test_assign.py::test_on_the_device_of_the_caller"),
        "backend": backend("test_load_model.py::test_a_saved_model_comes_back"),
        "assign": flag("assign", "test_assign.py::test_a_model_on_meta_takes_the_file_s_tensors_without_a_copy"),
        "verify": flag("verify", "test_checksums.py::test_models"),
        "progress": progress("test_progress.py::test_models"),
        "strict_index": STRICT_INDEX,
    },
    "save_model": {
        **SAVES,
        "force_contiguous": flag(
            "force_contiguous", "test_save_model.py::test_not_contiguous_without_force_names_the_way_out"
        ),
    },
    "save_sharded": {**SAVES, "max_shard_size": shard_size("test_save_sharded.py::test_files_and_index")},
    "Writer": SAVES,
    "safe_open": {
        "framework": Option([("np", ValueError, "framework: 'np' is not one of")], "test_arguments.py::test_framework"),
        "device": device("test_arguments.py::test_device"),
        "backend": backend("test_arguments.py::test_unknown_backend"),
        "strict_index": STRICT_INDEX,
    },
    "safe_open.prefetch": {
        "plan": Option(
            [
                (["w"], TypeError, "plan: expected a mapping of names to None or slices, not list"),
                ({"w": 1}, TypeError, "plan: 'w': expected None or a slice"),
            ],
            "test_prefetch.py::test_names_are_in_the_order_of_the_file",
        ),
        "device": device("test_accelerators.py::test_every_way_to_load"),
        "threads": count("threads", "test_options.py::test_background_threads"),
        "buffer_size": count("buffer_size", "test_prefetch.py::test_take_in_any_order_past_any_buffer"),
        "ring_size": count("ring_size", "test_made_up_accelerator.py::test_every_way_to_load"),
    },
    "safe_open.get_tensors": {
        "names": Option(
            [
                ("w", TypeError, "names: expected a list of str, not str"),
                (5, TypeError, "names: expected a list of str, not int"),
                ([5], TypeError, "name: expected str, not int"),
            ],
            "test_safe_open.py::test_tensors",
        ),
    },
    "serialize": {"metadata": SAVES["metadata"]},
    "serialize_file": {"metadata": SAVES["metadata"]},
    "_remove_duplicate_names": {
        "preferred_names": Option([], "test_torch_module.py::test_the_names_to_remove_are_the_reference_s"),
        "discard_names": Option([], "test_torch_module.py::test_the_names_to_remove_are_the_reference_s"),
    },
    "aoti.package": {
        "write_weights": flag("write_weights", "test_aoti.py::test_a_file_of_others"),
        "digest": flag("digest", "test_aoti.py::test_other_values_are_refused_on_request"),
        "inductor_configs": Option(
            [("x", TypeError, "inductor_configs: expected a mapping or None, not str")],
            "test_aoti.py::test_what_is_computed_from_weights_alone",
        ),
    },
    "aoti.load": {
        "device": device("test_aoti.py::test_another_kind_of_device_than_it_was_compiled_for"),
        "strict": flag("strict", "test_aoti.py::test_weights_that_do_not_fit"),
        "strict_digest": flag("strict_digest", "test_aoti.py::test_other_values_are_refused_on_request"),
        "backend": backend("test_aoti.py::test_a_swap_in_place_needs_no_memory"),
        "runners": count("runners", "test_aoti.py::test_swap_while_threads_call"),
    },
    "aoti.swap": {
        "strict": flag("strict", "test_aoti.py::test_weights_that_do_not_fit"),
        "strict_digest": flag("strict_digest", "test_aoti.py::test_other_values_are_refused_on_request"),
        "backend": backend("test_aoti.py::test_a_swap_in_place_needs_no_memory"),
        "in_place": flag("in_place", "test_aoti.py::test_a_swap_in_place_needs_no_memory"),
    },
    "distributed.load_file": {
        "placements": Option(
            [({"typo": None}, ValueError, "placements of tensors that it does not hold: 'typo'")],
            "test_distributed_load.py::test_errors_are_the_same_on_all_ranks",
        ),
        "strategy": strategy("test_distributed_load.py::test_with_broadcast_the_group_reads_every_byte_once"),
        "backend": backend("test_options.py::test_iteration_reads_whatever_the_backend"),
        "process_group": GROUP,
        "strict_index": flag("strict_index", "test_options.py::test_the_index_decides_for_ranks"),
    },
    "distributed.load_model": {
        "strict": flag("strict", "test_distributed_load.py::test_models"),
        "strategy": strategy("test_distributed_load.py::test_with_broadcast_the_group_reads_every_byte_once"),
        "backend": backend("test_options.py::test_iteration_reads_whatever_the_backend"),
        "process_group": GROUP,
        "strict_index": flag("strict_index", "test_options.py::test_the_index_decides_for_ranks"),
    },
    "distributed.save_file": MESH_SAVE,
    "distributed.save_model": MESH_SAVE,
    "distributed.SafetensorsReader": {
        "strategy": strategy(
            "test_distributed_checkpoint_reader.py::test_with_broadcast_the_group_reads_every_byte_once"
        ),
        "process_group": GROUP,
    },
    "distributed.SafetensorsWriter": {
        "fqn_to_index_mapping": Option(
            [({"w": 0}, ValueError, "fqn_to_index_mapping: 'w': 0"), ({"w": "1"}, ValueError, "fqn_to_index_mapping")],
            "test_distributed_checkpoint.py::test_consolidated_and_numbered",
        ),
        "save_distributed": flag("save_distributed", "test_distributed_checkpoint.py::test_consolidated_and_numbered"),
        "max_shard_size": shard_size("test_distributed_checkpoint.py::test_every_layout_becomes_every_other"),
        "metadata": metadata("test_distributed_checkpoint.py::test_consolidated_and_numbered"),
        "fsync": flag("fsync", "test_distributed_checkpoint.py::test_every_layout_becomes_every_other"),
    },
}
OPTIONS["aoti.Model.swap"] = OPTIONS["aoti.swap"]


def callables() -> dict[str, Callable[..., Any]]:
    """All public functions and constructors, and the public methods of public classes, by name."""
    found: dict[str, Callable[..., Any]] = {}
    seen: set[int] = set()
    modules = {"": ts, "torch.": torch_safetensors.torch, "aoti.": torch_safetensors.aoti}
    for prefix, module in {**modules, "distributed.": torch_safetensors.distributed}.items():
        for name in module.__all__:
            value = getattr(module, name)
            if not callable(value) or id(value) in seen:
                continue
            seen.add(id(value))
            of_module = "" if prefix == "torch." else prefix
            if not isinstance(value, type) or not issubclass(value, Exception):
                found[f"{of_module}{name}"] = value
            if isinstance(value, type):
                found |= methods(f"{of_module}{name}", value)
    return found | methods("PrefetchLoader", PrefetchLoader) | methods("SafeSlice", SafeSlice)


def methods(name: str, kind: type) -> dict[str, Callable[..., Any]]:
    own = {key: value for key, value in vars(kind).items() if isinstance(value, types.FunctionType) and key[0] != "_"}
    return {f"{name}.{key}": value for key, value in own.items()}


#: Methods that torch calls, with arguments that are its own.
CALLED_BY_TORCH = ("distributed.SafetensorsReader.reset", "distributed.SafetensorsWriter.reset")


def options_of(function: Callable[..., Any]) -> set[str]:
    try:
        parameters = inspect.signature(function).parameters
    except ValueError:  # an exception's
        return set()
    return {name for name, parameter in parameters.items() if parameter.default is not inspect.Parameter.empty}


def test_every_option_is_in_the_table() -> None:
    actual = {name: options_of(function) for name, function in callables().items() if name not in CALLED_BY_TORCH}
    assert {name: options for name, options in actual.items() if options} == {
        name: set(options) for name, options in OPTIONS.items()
    }


def shown() -> Iterator[str]:
    for table in (*OPTIONS.values(), *OPERATORS.values(), *COMMANDS.values()):
        for option in table.values():
            yield option.shown


def test_what_shows_each_option_is_there() -> None:
    for reference in sorted(set(shown())):
        file, _, name = reference.partition("::")
        assert re.search(rf"def {name}\(", (TESTS / file).read_text()), reference


class Scene(NamedTuple):
    """What calls need that are right but for one option."""

    folder: Path
    path: Path
    mesh: Any

    def arguments(self, function: str) -> tuple[Any, ...]:
        model, new = torch.nn.Linear(2, 2), self.folder / "new"
        tensors = {"w": torch.ones(2)}
        spec = torch_safetensors.torch.TensorSpec(dtype="float32", shape=[0], data_ptr=0, data_len=0)
        by_function: dict[str, tuple[Any, ...]] = {
            "load": (self.path.read_bytes(),),
            "load_tensor": (self.path, "w"),
            "save_file": (tensors, new),
            "save": (tensors,),
            "load_model": (model, self.path),
            "save_model": (model, new),
            "save_sharded": (tensors, new),
            "Writer": (new, tensors),
            "safe_open.prefetch": (ts.safe_open(self.path),),
            "safe_open.get_tensors": (ts.safe_open(self.path),),
            "serialize": ({"w": spec},),
            "serialize_file": ({"w": spec}, new),
            "aoti.package": (None, new),
            "aoti.load": (new, self.path),
            "aoti.swap": (torch_safetensors.aoti.Model.__new__(torch_safetensors.aoti.Model), self.path),
            "distributed.load_file": (self.path, self.mesh),
            "distributed.load_model": (torch.nn.Linear(2, 2), self.folder / "model"),
            "distributed.save_file": (tensors, new),
            "distributed.save_model": (model, new),
            "distributed.SafetensorsReader": (self.path,),
            "distributed.SafetensorsWriter": (new,),
        }
        by_function["aoti.Model.swap"] = by_function["aoti.swap"]
        return by_function.get(function, (self.path,))

    def keywords(self, function: str) -> dict[str, Any]:
        return {"weights": self.folder / "weights"} if function == "aoti.package" else {}


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        ts.save_file({"w": torch.ones(2)}, tmp_path / "x")
        ts.save_model(torch.nn.Linear(2, 2), tmp_path / "model")
        yield Scene(tmp_path, tmp_path / "x", init_device_mesh("cpu", (1,)))
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("function", OPTIONS)
def test_a_wrong_value_is_refused_and_named(function: str, scene: Scene) -> None:
    call = callables()[function]
    before = listing(scene.folder)
    for option, (refused, _) in OPTIONS[function].items():
        for value, kind, text in refused:
            with pytest.raises(kind) as error:
                call(*scene.arguments(function), **scene.keywords(function), **{option: value})
            assert type(error.value) is kind, (option, value)
            assert text in str(error.value), (option, value)
    assert listing(scene.folder) == before


def test_the_index_decides_for_ranks(scene: Scene) -> None:
    state = torch.nn.Linear(2, 2).state_dict()
    ts.save_file({**state, "more": torch.ones(1)}, scene.folder / "model-00001-of-00001.safetensors")
    index = scene.folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(state, "model-00001-of-00001.safetensors")}))
    model = torch.nn.Linear(2, 2)
    for load in (
        lambda **options: torch_safetensors.distributed.load_file(index, scene.mesh, **options),
        lambda **options: torch_safetensors.distributed.load_model(model, index, **options),
    ):
        with pytest.raises(ts.SafetensorError, match="strict_index=False"):
            load()
        loaded = load(strict_index=False)
    assert loaded == ([], [])
    assert torch.equal(model.weight, state["weight"])


@pytest.mark.parametrize("function", OPTIONS)
def test_an_unknown_option_is_refused(function: str, scene: Scene) -> None:
    with pytest.raises(TypeError, match="unknown"):
        callables()[function](*scene.arguments(function), **scene.keywords(function), unknown=None)


#: By name of an operator or method of a class: the options of its schema.
WRONG = "Expected a value of type '{}' for argument '{}'"


def typed(kind: str, name: str, value: Any, shown: str) -> Option:
    return Option([(value, RuntimeError, WRONG.format(kind, name))], shown)


def bool_of(name: str, shown: str) -> Option:
    return typed("bool", name, "no", shown)


BACKEND = Option([("bogus", ValueError, "backend 'bogus'")], "test_script.py::test_error")
DEVICE = Option([("nonsense", RuntimeError, "device")], "test_script.py::test_meta_device")
VERIFY = bool_of("verify", "test_checksums.py::test_a_bit_that_changed_is_found")
CHECKSUM = bool_of("checksum", "test_checksums.py::test_script")
FSYNC = bool_of("fsync", "test_script.py::test_schema")
ALIGNMENT = Option([(3, ValueError, "alignment")], "test_save_file.py::test_alignment_in_torchscript")
LOADS = {"device": DEVICE, "backend": BACKEND, "verify": VERIFY}
INDEX_OF_OPERATOR = bool_of("strict_index", "test_checkpoints.py::assert_decides")
EXPECT = typed("Optional[str]", "expect", 1, "test_graphs.py::test_bare_loads_are_exported_with_their_expectations")
OPERATORS: dict[str, dict[str, Option]] = {
    "load_file": {**LOADS, "strict_index": INDEX_OF_OPERATOR},
    "keys": {"strict_index": INDEX_OF_OPERATOR},
    "load": {
        "device": DEVICE,
        "copy": bool_of("copy", "test_script.py::test_save_and_load_of_bytes"),
        "verify": VERIFY,
    },
    "load_tensor": {**LOADS, "expect": EXPECT},
    "load_tensors": {
        **LOADS,
        "expect": Option([(["x"], RuntimeError, "but x is expected"), ([], ValueError, "0")], EXPECT.shown),
        "exact": bool_of("exact", "test_graphs.py::test_a_compiled_load_gives_what_eager_gives"),
        "strict_index": INDEX_OF_OPERATOR,
    },
    "save_file": {
        "metadata": typed("Optional[Dict[str, str]]", "metadata", "x", "test_script.py::test_keys_and_metadata"),
        "fsync": FSYNC,
        "checksum": CHECKSUM,
        "alignment": ALIGNMENT,
    },
    "save": {
        "metadata": typed("Optional[Dict[str, str]]", "metadata", "x", "test_script.py::test_keys_and_metadata"),
        "checksum": CHECKSUM,
    },
    "save_tensors": {
        "metadata": Option([(["k"], ValueError, "metadata")], "test_script.py::test_keys_and_metadata"),
        "fsync": FSYNC,
        "checksum": CHECKSUM,
        "alignment": ALIGNMENT,
    },
    "load_into": {
        "offsets": Option([([9], ValueError, "begins at [9]")], "test_script.py::test_load_parts_into_the_same_memory")
    },
}


def schemas() -> dict[str, Any]:
    names = [name.partition("::")[2] for name in torch._C._dispatch_get_all_op_names() if "safetensors::" in name]
    public = [name for name in names if not name.startswith("_")]
    return {name: getattr(torch.ops.safetensors, name).default._schema for name in public}


def test_every_option_of_an_operator_is_in_the_table() -> None:
    actual = {
        name: {argument.name for argument in schema.arguments if argument.has_default_value()}
        for name, schema in schemas().items()
    }
    assert {name: options for name, options in actual.items() if options} == {
        name: set(options) for name, options in OPERATORS.items()
    }


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_refuses_a_wrong_value_and_names_it(name: str, tmp_path: Path) -> None:
    path, new, tensors = str(tmp_path / "x"), str(tmp_path / "new"), {"w": torch.ones(2)}
    ts.save_file(tensors, path)
    arguments = {
        "load": (torch.frombuffer(bytearray((tmp_path / "x").read_bytes()), dtype=torch.uint8),),
        "load_tensor": (path, "w"),
        "load_tensors": (path, ["w"]),
        "load_into": (path, "w", torch.zeros(2)),
        "save_file": (tensors, new),
        "save": (tensors,),
        "save_tensors": (new, ["w"], [torch.ones(2)]),
    }.get(name, (path,))
    for option, (refused, _) in OPERATORS[name].items():
        for value, kind, text in refused:
            with pytest.raises(kind, match=re.escape(text)):
                getattr(torch.ops.safetensors, name)(*arguments, **{option: value})
    assert listing(tmp_path) == ["x"]


def command(shown: str, *refused: tuple[str, str]) -> Option:
    """Words that are refused instead of the option's own; a flag takes none."""
    return Option([(words, SystemExit, text) for words, text in refused], shown)


FORCE = command("test_cli_files.py::test_nothing_is_overwritten_unasked")
CHECKSUMS = command("test_cli_checksums.py::test_checksums_on_request")
ANYWHERE = {"--traceback": command("test_cli_main.py::test_a_traceback_on_request")}
COMMANDS: dict[str, dict[str, Option]] = {
    "info": {
        "--tree": command("test_cli_info.py::test_the_tree_shows_what_is_alike_once"),
        "--depth": command("test_cli_info.py::test_the_tree_is_cut_where_asked", ("0", "--depth"), ("x", "--depth")),
        "--sort": command("test_cli_info.py::test_the_order", ("size", "--sort")),
        "--json": command("test_cli_info.py::test_json"),
        "--plot": command("test_options.py::test_a_plot_does_not_disturb_the_json", ("x.jpg", ".jpg")),
    },
    "verify": {"--require-checksums": command("test_cli_verify.py::test_a_file_without_checksums")},
    "diff": {
        "--atol": command("test_cli_diff.py::test_values", ("x", "--atol"), ("-1", "--atol"), ("nan", "--atol")),
        "--rtol": command("test_cli_diff.py::test_values", ("x", "--rtol"), ("-1", "--rtol"), ("inf", "--rtol")),
        "--names-only": command("test_cli_diff.py::test_names_shapes_and_dtypes"),
        "--ignore-dtype": command("test_cli_diff.py::test_names_shapes_and_dtypes"),
        "--metadata": command("test_cli_diff.py::test_metadata_where_asked"),
        "--quiet": command("test_cli_diff.py::test_quiet"),
    },
    "convert": {
        "--dtype": command("test_cli_convert.py::test_another_dtype", ("int8", "--dtype")),
        "--key": command("test_cli_convert.py::test_which_entry_is_meant_has_to_be_clear", ("k", "--key")),
        "--checksum": CHECKSUMS,
        "--force": FORCE,
    },
    "split": {
        "--max-shard-size": command(
            "test_cli_files.py::test_split", ("big", "max_shard_size"), ("0", "max_shard_size")
        ),
        "--checksum": CHECKSUMS,
        "--force": command("test_cli_files.py::test_split_does_not_overwrite_unasked"),
    },
    "merge": {"--checksum": CHECKSUMS, "--force": command("test_cli_files.py::test_merge")},
    "extract": {
        "--output": command("test_cli_files.py::test_extract_names_and_patterns"),
        "--checksum": CHECKSUMS,
        "--force": FORCE,
    },
    "rename": {
        "--dry-run": command("test_cli_files.py::test_rename_without_writing"),
        "--map": command("test_cli_files.py::test_rename", ("x", "--map"), ("typo=x", "--map 'typo=x'")),
        "--strip-prefix": command("test_cli_files.py::test_rename", ("typo.", "--strip-prefix 'typo.'")),
        "--add-prefix": command("test_cli_files.py::test_rename", ("", "--add-prefix ''")),
        "--regex": command("test_cli_files.py::test_rename", ("x", "--regex"), ("s/typo/x/", "--regex 's/typo/x/'")),
        "--checksum": CHECKSUMS,
        "--force": FORCE,
    },
    "bench": {
        "--runs": command("test_cli_bench.py::test_all_ways", ("0", "--runs"), ("x", "--runs")),
        "--device": command("test_cli_bench.py::test_all_ways", ("nonsense", "device")),
    },
}


def parsers() -> dict[str, argparse.ArgumentParser]:
    parser = _main.make_parser()
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return {name: command for name, command in commands.choices.items() if name != "run"}  # whose words are a program's


def test_every_option_of_a_command_is_in_the_table() -> None:
    actual = {
        name: {action.option_strings[-1] for action in parser._actions if action.option_strings} - {"--help"}
        for name, parser in parsers().items()
    }
    assert actual == {name: {*options, *ANYWHERE} for name, options in COMMANDS.items()}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_refuses_wrong_words_and_names_the_option(name: str, cli: Cli, tmp_path: Path) -> None:
    path, new = tmp_path / "x.safetensors", tmp_path / "new.safetensors"
    ts.save_file({"w": torch.ones(2)}, path)
    operands = {"diff": (path, path), "extract": (path, "w"), "info": (path,), "verify": (path,), "bench": (path,)}
    flags = {option for action in parsers()[name]._actions if action.nargs == 0 for option in action.option_strings}
    for option, (refused, _) in (COMMANDS[name] | ANYWHERE).items():
        words = [(value, text) for value, _, text in refused] or ([("x", option)] if option in flags else [])
        for value, text in words:
            output = ["--output", new] if name == "extract" else []
            done = cli(name, *operands.get(name, (path, new)), *output, f"{option}={value}")
            assert (done.status, done.out) == (2, ""), (option, value)
            assert text in done.err, (option, value)
    assert listing(tmp_path) == ["x.safetensors"]


# --- what the tables name, and options that have no effect together ----------------------------------------


def bytes_read_here() -> int:
    """By this thread alone, which the system counts."""
    return int(re.search(r"rchar: (\d+)", Path("/proc/thread-self/io").read_text())[1])


@pytest.mark.parametrize("how", ["keyword", "environment"])
def test_one_thread_reads_everything(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    ts.save_file({"a": torch.ones(6 << 20), "b": torch.ones(6 << 20)}, path)
    if how == "environment":
        monkeypatch.setenv("TORCH_SAFETENSORS_THREADS", "1")
    options = {"threads": 1} if how == "keyword" else {}
    before = bytes_read_here()
    loaded = ts.load_file(path, backend="pread", **options)
    assert bytes_read_here() - before >= 48 << 20
    assert torch.equal(loaded["b"], torch.ones(6 << 20))


def test_a_model_is_read_by_as_many_threads_as_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_SAFETENSORS_THREADS", "1")
    model = torch.nn.Linear(4096, 2048)
    ts.save_model(model, tmp_path / "x")
    before = bytes_read_here()
    ts.load_model(model, tmp_path / "x")
    assert bytes_read_here() - before >= 32 << 20


def thread_count() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


@pytest.mark.parametrize(("option", "variable", "expected"), [(None, None, 8), (None, "3", 3), (2, "3", 2)])
def test_background_threads(
    tmp_path: Path, option: int | None, variable: str | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TORCH_SAFETENSORS_THREADS", raising=False)
    if variable is not None:
        monkeypatch.setenv("TORCH_SAFETENSORS_THREADS", variable)
    path = tmp_path / "x"
    ts.save_file({str(i): torch.ones(1 << 20) for i in range(40)}, path)
    before = thread_count()
    with ts.safe_open(path).prefetch(threads=option, buffer_size=1):
        assert thread_count() - before == expected
    tensors = ts.iter_tensors(path, threads=option, buffer_size=1)
    next(tensors)
    assert thread_count() - before == expected
    tensors.close()


def test_conversions_read_with_as_many_threads_as_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None: what prefetch does by itself, which the test above shows."""
    ts.save_file({"w": torch.ones(3)}, tmp_path / "x")
    asked = []
    prefetch = ts.safe_open.prefetch

    def noting(*arguments: Any, **options: Any) -> Any:
        asked.append(options["threads"])
        return prefetch(*arguments, **options)

    monkeypatch.setattr(ts.safe_open, "prefetch", noting)
    ts.load_file(tmp_path / "x", dtype=torch.float16)
    ts.load_file(tmp_path / "x", dtype=torch.float16, threads=3)
    assert asked == [None, 3]


@pytest.mark.parametrize("backend", ["auto", "mmap", "pread"])
def test_iteration_reads_whatever_the_backend(tmp_path: Path, backend: str) -> None:
    """So do loads of several processes: what is read is their own in any case."""
    path = tmp_path / "x"
    ts.save_file({"w": torch.arange(5.0)}, path)
    (_, tensor) = next(ts.iter_tensors(path, backend=backend))
    path.write_bytes(bytes(path.stat().st_size))
    assert torch.equal(tensor, torch.arange(5.0))


@pytest.fixture
def url(tmp_path: Path) -> str:
    import fsspec

    ts.save_file({"w": torch.ones(2)}, tmp_path / "x")
    with fsspec.open("memory://options.safetensors", "wb") as file:
        file.write((tmp_path / "x").read_bytes())
    return "memory://options.safetensors"


@pytest.mark.parametrize("form", ["url", "file"])
def test_what_a_source_without_a_path_cannot_do(url: str, tmp_path: Path, form: str) -> None:
    with (tmp_path / "x").open("rb") as file:
        source: Any = url if form == "url" else file
        for options, text in (
            ({"backend": "bogus"}, "backend 'bogus' is not one of"),
            ({"backend": "mmap"}, "is not a local path, so its bytes are read and cannot be mapped"),
            ({"ring_size": 1 << 20}, "do not go through a ring: leave ring_size out"),
            ({"threads": 0}, "threads must be positive, not 0"),
            ({"ring_size": 0}, "ring_size must be positive, not 0"),
        ):
            with pytest.raises(ValueError, match=text):
                ts.load_file(source, **options)
        for options in {}, {"backend": "auto"}, {"backend": "pread", "threads": 2, "storage_options": {}}:
            file.seek(0)
            assert list(ts.load_file(source, **options)) == ["w"]
        with pytest.raises(ValueError, match="storage_options are for URLs"):
            ts.load_file(file, storage_options={"token": "t"})


def test_a_url_of_a_local_file_is_a_path(tmp_path: Path) -> None:
    ts.save_file({"w": torch.ones(2)}, tmp_path / "x")
    assert list(ts.load_file(f"file://{tmp_path}/x", backend="mmap", ring_size=1 << 20, storage_options={})) == ["w"]


def test_a_graph_does_not_lose_options(tmp_path: Path) -> None:
    path = str(tmp_path / "x")
    ts.save_file({"w": torch.ones(2)}, path)
    reports: list[int] = []
    calls = {
        "threads": lambda: ts.load_file(path, threads=2)["w"],
        "ring_size": lambda: ts.load_file(path, ring_size=1 << 20)["w"],
        "progress": lambda: ts.load_file(path, progress=lambda done, _: reports.append(done))["w"],
        "threads with a choice": lambda: ts.load_file(path, names="w", threads=2)["w"],
    }
    for name, call in calls.items():
        whole = torch.compile(lambda x, call=call: x + call(), fullgraph=True, backend="eager")
        with pytest.raises(Exception, match="a graph cannot hold threads"):
            whole(torch.ones(2))
        torch._dynamo.reset()
        # Where the graph may be left, the call is made outside of it.
        broken = torch.compile(lambda x, call=call: x + call(), backend="eager")
        assert torch.equal(broken(torch.ones(2)), torch.full((2,), 2.0)), name
        torch._dynamo.reset()
    assert reports


def test_fake_tensors_take_options_that_do_nothing(tmp_path: Path) -> None:
    ts.save_file({"w": torch.ones(2)}, tmp_path / "x")
    with torch._subclasses.FakeTensorMode():
        assert ts.load_file(tmp_path / "x", threads=2, ring_size=1 << 20)["w"].shape == (2,)


INFO_OPTIONS = [
    (["--tree", "--json"], "--tree has no effect with --json"),
    (["--tree", "--plot", "x.html"], "--tree has no effect with --plot"),
    (["--sort", "name", "--tree"], "--sort has no effect with --tree"),
    (["--sort", "name", "--json"], "--sort has no effect with --json"),
    (["--depth", "1", "--plot", "x.html"], "--depth has no effect with --plot"),
]


@pytest.mark.parametrize(("options", "text"), INFO_OPTIONS)
def test_info_refuses_what_would_be_ignored(cli: Cli, tmp_path: Path, options: list[str], text: str) -> None:
    ts.save_file({"w": torch.ones(2)}, tmp_path / "x")
    message = f"torch-safetensors: {text}; leave one of them out\n"
    assert cli("info", tmp_path / "x", *options) == (2, "", message)


@pytest.mark.parametrize("option", ["--atol", "--rtol"])
def test_diff_refuses_what_would_be_ignored(cli: Cli, tmp_path: Path, option: str) -> None:
    ts.save_file({"w": torch.ones(2)}, tmp_path / "x")
    message = f"torch-safetensors: {option} has no effect with --names-only; leave one of them out\n"
    assert cli("diff", tmp_path / "x", tmp_path / "x", "--names-only", option, "0") == (2, "", message)


def test_a_plot_does_not_disturb_the_json(cli: Cli, tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    import json

    ts.save_file({"w": torch.ones(2)}, tmp_path / "x")
    picture = tmp_path / "x.html"
    done = cli("info", tmp_path / "x", "--json", "--plot", picture, "--depth", "1")
    assert (done.status, done.err) == (0, f"torch-safetensors: {picture}: written\n")
    assert json.loads(done.out)["totals"]["tensors"] == 1
    assert picture.stat().st_size > 0
    assert cli("info", tmp_path / "x", "--plot", picture).out == f"{picture}: written\n"
