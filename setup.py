"""Builds libtorch_safetensors.so into the package, with what C++ programs need beside it.

The library is no Python module: it neither includes Python.h nor links libpython, so one file
serves every CPython. It does depend on the release of torch it was compiled with.
"""

import os
import shutil
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # setuptools before 70.1
    from wheel.bdist_wheel import bdist_wheel

try:
    import torch
    from torch.utils.cpp_extension import BuildExtension, CppExtension
except ImportError:
    sys.exit(
        "torch_safetensors is compiled against the torch you use, and none is installed here: "
        "install torch (2.11 to 2.13) first, then pass --no-build-isolation to pip"
    )

ROOT = Path(__file__).resolve().parent
PACKAGE = ROOT / "torch_safetensors"
VERSION = (ROOT / "VERSION").read_text().strip()
TORCH_RELEASE = ".".join(torch.__version__.split(".")[:2])
LIBRARY = "libtorch_safetensors"


def listed_sources() -> list[str]:
    """The list that CMakeLists.txt reads too, checked against what lies under csrc."""
    lines = (ROOT / "csrc/sources.txt").read_text().splitlines()
    listed = {line for line in lines if line and not line.startswith("#")}
    present = {str(path.relative_to(ROOT / "csrc")) for path in ROOT.glob("csrc/**/*.cpp")}
    if listed != present:
        sys.exit(
            "csrc/sources.txt and the files under csrc differ: "
            f"to be added to the list: {sorted(present - listed)}, "
            f"listed, but no such file: {sorted(listed - present)}"
        )
    return [f"csrc/{name}" for name in sorted(listed)]


#: Headers of others that are compiled in: the variable that says where, Debian's package, Homebrew's.
HEADERS = {
    "rapidjson/reader.h": ("RAPIDJSON_INCLUDE_DIR", "rapidjson-dev", "rapidjson"),
    "xxhash.h": ("XXHASH_INCLUDE_DIR", "libxxhash-dev", "xxhash"),
}


def header_include_dirs() -> list[str]:
    """The folders to search for them; none where the compiler finds them by itself."""
    default = ["/usr/include", "/usr/local/include"]
    for name in ("CPATH", "CPLUS_INCLUDE_PATH"):
        default += os.environ.get(name, "").split(":")
    found = []
    for header, (variable, debian, homebrew) in HEADERS.items():
        named = os.environ.get(variable)
        candidates = [named] if named else [*default, f"{sys.prefix}/include", "/opt/homebrew/include"]
        folder = next((path for path in candidates if path and Path(path, header).is_file()), None)
        if folder is None:
            sys.exit(
                f"{header} not found{f' in {named}' if named else ''}: install it (Debian, Ubuntu: apt-get install "
                f"{debian}; macOS: brew install {homebrew}) or set {variable}"
            )
        if folder not in default:
            found.append(folder)
    return found


class BuildPackage(build_py):
    """Puts the public headers and the CMake package into the package folder.

    Into the source tree, git-ignored, so that an editable install has them as a wheel does.
    """

    def run(self) -> None:
        include = PACKAGE / "include"
        shutil.rmtree(include, ignore_errors=True)
        shutil.copytree(ROOT / "csrc/include", include)

        config = PACKAGE / "share/cmake/torch_safetensors"
        shutil.rmtree(config, ignore_errors=True)
        config.mkdir(parents=True)
        shutil.copy(ROOT / "cmake/FindLibTorch.cmake", config)
        for template in (ROOT / "cmake").glob("*.cmake.in"):
            text = template.read_text()
            text = text.replace("@TORCH_SAFETENSORS_VERSION@", VERSION)
            text = text.replace("@TORCH_SAFETENSORS_TORCH_VERSION@", TORCH_RELEASE)
            (config / template.stem).write_text(text)
        super().run()


class BuildLibrary(BuildExtension.with_options(no_python_abi_suffix=True)):
    """Compiles with ninja, which compiles again only what changed."""

    def finalize_options(self) -> None:
        super().finalize_options()
        # A fixed folder, as an editable install would otherwise compile in one that it deletes.
        self.build_temp = str(ROOT / f"build/extension-torch-{torch.__version__}")

    def run(self) -> None:
        for extension in self.extensions:
            extension.include_dirs += header_include_dirs()
        (PACKAGE / "lib").mkdir(exist_ok=True)
        super().run()


class AnyPythonWheel(bdist_wheel):
    """Tags the wheel `py3-none-<platform>`: bound to the platform, not to a Python."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


# The name it goes by when a program is linked to it, and torch's libraries where pip puts them.
link_args = {
    "darwin": [f"-Wl,-install_name,@rpath/{LIBRARY}.so", "-Wl,-rpath,@loader_path/../../torch/lib"],
}.get(sys.platform, [f"-Wl,-soname,{LIBRARY}.so", "-Wl,-rpath,$ORIGIN/../../torch/lib"])

setup(
    version=VERSION,
    # One build per torch release: LibTorch keeps no binary compatibility between them. The torch
    # this is compiled with meets it, so pip has nothing to replace.
    # The others are the command line's, imported by it alone.
    install_requires=[f"torch=={TORCH_RELEASE}.*", "rich>=13", "tqdm>=4.60"],
    ext_modules=[
        CppExtension(
            f"torch_safetensors.lib.{LIBRARY}",
            listed_sources(),
            include_dirs=[str(ROOT / "csrc"), str(ROOT / "csrc/include")],
            define_macros=[("TORCH_SAFETENSORS_VERSION", f'"{VERSION}"')],
            extra_compile_args=[
                *("-std=c++20", "-O3", "-DNDEBUG", "-g0"),
                *("-fvisibility=hidden", "-fvisibility-inlines-hidden"),
            ],
            extra_link_args=link_args,
            py_limited_api=True,
        )
    ],
    cmdclass={"build_py": BuildPackage, "build_ext": BuildLibrary, "bdist_wheel": AnyPythonWheel},
)
