"""Every fenced block of README.md and docs/ is run, compiled or read; none can escape."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from documented import RUNS, Block, blocks, module_name, pages, program
from installed import BUILD, INSTALLATIONS, python_path

EVERY_BLOCK = [block for page in pages() for block in blocks(page)]

#: Blocks that nothing here runs: their first lines, and why.
NOT_RUN = {
    "make demo   # load, script, compile, package and serve a real 90 MB model, from Python and from C++": (
        "what make test runs takes minutes as it is"
    ),
    "pip install --no-build-isolation .": "test_deploy.py builds the wheel and installs it",
    "make wheel": "as above",
    'make wheel TORCH="2.11.0 2.13.0"': "make test-wheels, half an hour; test_wheels.py is the short form",
    "cmake -S . -B build/release -DCMAKE_BUILD_TYPE=Release -DTORCH_SAFETENSORS_BUILD_TESTS=OFF \\": (
        "as above, by CMake"
    ),
    "cmake -S . -B build -DCMAKE_PREFIX_PATH=\"$(python -c '": "test_deploy.py builds programs so",
    "apt-get install -y g++ rapidjson-dev libxxhash-dev": "scripts/setup.sh installs them",
    "apt-get install -y libcpp-httplib-dev pkg-config curl": "scripts/setup.sh installs them",
    'make test PYTEST_ARGS="-m gpu"': "needs an accelerator",
    'make bench BENCH_ARGS="--json build/bench.json --plot docs/performance.png --markdown"': (
        "a quarter of an hour; test_benchmarks.py runs the short form"
    ),
    "python -m benchmarks --scaling --plot docs/scaling.png": "minutes; as above",
    "python setup.py -q build_ext --inplace && python -m benchmarks --device cuda --gigabytes 1 4 20": (
        "needs an accelerator"
    ),
    "python -m benchmarks.distributed_load --ranks 1 2 4 --storage 50 --network 50 \\": (
        "minutes; test_distributed_benchmarks.py runs the short form"
    ),
    "python -m benchmarks.distributed_load --network 100 --markdown": "as above",
    "python -m benchmarks.distributed_cost --markdown --plot docs/distributed-costs.png": "as above",
    "python -m benchmarks.distributed_checkpoint --rounds 7": (
        "minutes on a slow disk; test_benchmark_distributed_checkpoint.py runs the short form"
    ),
    "# The Python tests on a library under sanitizers": "an hour, by hand",
    'load_file(str filename, Device device=cpu, *, str backend="auto", bool verify=False, bool strict_index=True) -> '
    "Dict(str, Tensor)": ("test_site.py compares it with the operators"),
}
#: Pages that are programs for several ranks, and for how many.
RANKS = {"docs/distributed.md": 4}
#: Pages whose shell blocks another test runs.
SHELL_ELSEWHERE = {"docs/deployment.md": "test_server.py::test_the_documented_blocks"}


def is_run_here(block: Block) -> bool:
    elsewhere = block.language != "python" and block.page in SHELL_ELSEWHERE
    return block.language in RUNS and block.first_line not in NOT_RUN and not elsewhere


@pytest.mark.parametrize("block", EVERY_BLOCK, ids=str)
def test_block_is_of_a_kind_that_is_tested(block: Block) -> None:
    kinds = (*RUNS, "cpp", "cmake", "json")
    known = block.language in kinds or block.is_output or block.first_line in NOT_RUN
    assert known, f"{block}: nothing tests a block in {block.language!r}"


@pytest.mark.parametrize("first_line", NOT_RUN)
def test_exception_is_needed(first_line: str) -> None:
    assert first_line in [block.first_line for block in EVERY_BLOCK]


# --- Python and the shell -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of Inductor: fresh, so that no graph of an earlier run hides what one does."""
    return tmp_path_factory.mktemp("inductor")


@pytest.mark.parametrize("page", [page for page in pages() if any(is_run_here(block) for block in blocks(page))])
def test_page_runs(page: str, tmp_path: Path, caches: Path) -> None:
    """In its order, in an empty folder; Python's blocks share their names, and output must be what the page shows."""
    name = module_name(page)
    modules, folder = tmp_path / "modules", tmp_path / "folder"
    modules.mkdir()
    folder.mkdir()
    # A module, since TorchScript reads the source of classes.
    (modules / f"{name}.py").write_text(program(page, [block for block in blocks(page) if is_run_here(block)]))
    paths = [str(modules), str(Path(__file__).parent), python_path()]
    launcher = [sys.executable]
    if page in RANKS:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={RANKS[page]}", "--no-python"]
        launcher += [sys.executable]
    done = subprocess.run(
        [*launcher, "-c", f"import {name}"],
        cwd=folder,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(paths),
            "TORCHINDUCTOR_CACHE_DIR": str(caches),
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("block", [block for block in EVERY_BLOCK if block.language == "json"], ids=str)
def test_json(block: Block) -> None:
    json.loads(block.text)


# --- C++ and CMake --------------------------------------------------------------------------------


def test_cpp_and_cmake(build: Callable[[str, str], Path]) -> None:
    """All C++ blocks in one file, since torch's headers take half a minute, and a target for each CMake block."""
    project = BUILD / "documented_blocks"
    write_if_different(project / "blocks.cpp", cpp_program([b for b in EVERY_BLOCK if b.language == "cpp"]))
    write_if_different(project / "none.cpp", "int main() {}\n")
    write_if_different(project / "CMakeLists.txt", cmake_project([b for b in EVERY_BLOCK if b.language == "cmake"]))
    assert build(str(project), INSTALLATIONS[0]).exists()


_DEFINES_FUNCTIONS = re.compile(r"^(?!if|for|while|switch|try)\w[^;={}]*\([^;{}]*\) \{$", re.MULTILINE)


def cpp_program(found: list[Block]) -> str:
    """Includes go to the top. A block of statements becomes a function, and one of functions a namespace of its own."""
    includes = dict.fromkeys(line for block in found for line in block.text.splitlines() if line.startswith("#include"))
    lines = list(includes)
    for number, block in enumerate(found):
        code = "\n".join("" if line.startswith("#include") else line for line in block.text.splitlines())
        scope = f"namespace block_{number}" if _DEFINES_FUNCTIONS.search(code) else f"void block_{number}()"
        lines += [f"{scope} {{", f'#line {block.opens + 1} "{block.page}"', code, "}"]
    return "\n".join([*lines, "int main() {}", ""])


def cmake_project(found: list[Block]) -> str:
    """Blocks are about a target ``app``, which here is one for each: the first has the C++ blocks."""
    lines = ["cmake_minimum_required(VERSION 3.18)", "project(documented_blocks LANGUAGES CXX)"]
    for number, text in enumerate(dict.fromkeys(block.text for block in found)):
        name = "documented_blocks" if number == 0 else f"app_{number}"
        lines += [f"add_executable({name} {'none' if number else 'blocks'}.cpp)", re.sub(r"\bapp\b", name, text)]
    return "\n".join(lines)


def write_if_different(path: Path, text: str) -> None:
    """Nothing is compiled again for a file that is as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
