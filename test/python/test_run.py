"""``python -m torch_safetensors run``: a program runs as python runs it, with this package for the reference."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import torch_safetensors as ts
from torch_safetensors import _run

ROOT = Path(ts.__file__).parent.parent
RUN = ["-m", "torch_safetensors", "run"]

PROGRAM = """
import atexit, os, pickle, sys, __main__

class Defined:
    pass

def facts():
    m = sys.modules["__main__"]
    assert vars(m) is globals() and m is __main__
    print(__name__, sys.argv, os.path.abspath(sys.path[0]), pickle.dumps(Defined()))

facts()
print(__file__, __spec__, __package__, __doc__, type(__loader__).__name__, globals().get("__annotations__"))
atexit.register(facts)
"""
FAILURES = {
    "error": "def fail():\n    raise ValueError('x')\nfail()",
    "chained": "try:\n    {}['a']\nexcept KeyError as e:\n    raise ValueError('x') from e",
    "syntax": "def f(:",
    "interrupt": "raise KeyboardInterrupt",
    "status": "import sys; sys.exit(7)",
    "text": "import sys; sys.exit('no')",
    "hook": "import sys, traceback\n"
    "def hook(kind, error, tb):\n    print('hook', kind, error, traceback.extract_tb(tb))\n"
    "sys.excepthook = hook\n1 / 0",
}


#: Stands for the package where it is only looked at how programs run: importing torch takes seconds.
STUBS = {
    "__init__.py": "",
    "__main__.py": "import sys\nfrom ._run import run\nrun(sys.argv[2:])",
    "_install.py": "def install(): pass",
    "_run.py": Path(_run.__file__).read_text(),
}


@pytest.fixture(scope="session")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stub")
    (folder / "torch_safetensors").mkdir()
    for name, text in STUBS.items():
        (folder / "torch_safetensors" / name).write_text(text)
    return folder


def python(arguments: list[str], folder: Path, package: Path = ROOT) -> tuple[int, str, str]:
    """The exit status, and what was printed."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(package)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout, done.stderr


def test_a_script_reaches_this_package(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "import sys, safetensors, torch_safetensors as ts\n"
        "from safetensors.torch import load_file\n"
        "assert load_file is ts.load_file and safetensors.safe_open is ts.safe_open\n"
        "print(sys.argv[1:])"
    )
    assert python([*RUN, "script.py", "-m", "--a", "b c"], tmp_path) == (0, "['-m', '--a', 'b c']\n", "")


@pytest.mark.parametrize("where", ["folder/script.py", "link.py", "folder", "program.zip", "-m module", "-m package"])
def test_a_program_sees_what_python_shows_it(tmp_path: Path, stub: Path, where: str) -> None:
    for folder in "folder", "package":
        (tmp_path / folder).mkdir()
    for name in "folder/script.py", "folder/__main__.py", "module.py", "package/__main__.py", "package/__init__.py":
        (tmp_path / name).write_text(PROGRAM if name != "package/__init__.py" else "")
    (tmp_path / "link.py").symlink_to("folder/script.py")
    with zipfile.ZipFile(tmp_path / "program.zip", "w") as archive:
        archive.writestr("__main__.py", PROGRAM)
    program = [*where.split(" "), "an", "--argument"]
    expected = python(program, tmp_path, stub)
    assert expected[0] == 0
    if where in ("folder/script.py", "link.py"):
        assert python([*RUN, *program], tmp_path, stub) == expected
    else:  # runpy puts the old __main__ back afterwards
        actual = python([*RUN, *program], tmp_path, stub)
        assert actual[1].splitlines()[0] == expected[1].splitlines()[0]


@pytest.mark.parametrize("name", FAILURES)
def test_it_fails_as_under_python(tmp_path: Path, stub: Path, name: str) -> None:
    (tmp_path / "script.py").write_text(FAILURES[name])
    expected = python(["script.py"], tmp_path, stub)
    assert expected[0] != 0
    assert python([*RUN, "script.py"], tmp_path, stub) == expected


def test_the_whole_package_shows_the_program_alone(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(FAILURES["error"])
    assert python([*RUN, "script.py"], tmp_path) == python(["script.py"], tmp_path)


def test_a_module_that_fails_shows_itself_alone(tmp_path: Path, stub: Path) -> None:
    (tmp_path / "failing.py").write_text("raise ValueError('x')")
    status, _, printed = python([*RUN, "-m", "failing"], tmp_path, stub)
    assert status == 1
    assert printed.splitlines()[:2] == [
        "Traceback (most recent call last):",
        f'  File "{tmp_path / "failing.py"}", line 1, in <module>',
    ]


@pytest.mark.parametrize(
    ("program", "printed"),
    [([], "usage: "), (["no.py"], "can't open file '{}/no.py': [Errno 2] No such file or directory\n")],
)
def test_without_a_program(tmp_path: Path, stub: Path, program: list[str], printed: str) -> None:
    status, out, error = python([*RUN, *program], tmp_path, stub)
    assert (status, out) == (2, "")
    assert printed.format(tmp_path) in error
    assert "Traceback" not in error


def test_a_module_that_is_missing(tmp_path: Path, stub: Path) -> None:
    assert python([*RUN, "-m", "no_such_module"], tmp_path, stub) == (
        1,
        "",
        "ImportError: No module named no_such_module\n",
    )


def test_safe_path_keeps_the_folder_of_the_program_out(tmp_path: Path, stub: Path) -> None:
    (tmp_path / "script.py").write_text("import sys; print(sys.path)")
    options = ["-P"] if sys.version_info >= (3, 11) else []
    status, printed, error = python([*options, *RUN, "script.py"], tmp_path, stub)
    assert (status, error) == (0, "")
    assert (str(tmp_path) in printed) == (sys.version_info < (3, 11))


def test_a_spawned_process_finds_what_the_script_defines(tmp_path: Path, stub: Path) -> None:
    (tmp_path / "script.py").write_text(
        "import multiprocessing\n"
        "def double(x):\n    return 2 * x\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        print(pool.map(double, [1, 2]))"
    )
    assert python([*RUN, "script.py"], tmp_path, stub) == (0, "[2, 4]\n", "")
