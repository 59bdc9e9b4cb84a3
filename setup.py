"""Builds the libraries into the package, with what C++ programs need beside them.

They are no Python modules: they neither include Python.h nor link libpython, so one file serves every CPython.
libtorch_safetensors.so depends on the release of torch it was compiled with, and lies in a folder named after it, so
that a package can hold several (scripts/merge_wheels.py). libtorch_safetensors_stable.so keeps to torch's stable ABI.
"""

import os
import shutil
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_py import build_py

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # setuptools before 70.1
    from wheel.bdist_wheel import bdist_wheel

try:
    import torch
    from torch.utils.cpp_extension import BuildExtension, CppExtension, include_paths, library_paths
except ImportError:
    sys.exit(
        "torch_safetensors is compiled against the torch you use, and none is installed here: "
        "install torch (2.11 to 2.13) first, then pass --no-build-isolation to pip"
    )

ROOT = Path(__file__).resolve().parent
PACKAGE = ROOT / "torch_safetensors"
VERSION = (ROOT / "VERSION").read_text().strip()
TORCH_RELEASE = ".".join(torch.__version__.split(".")[:2])
#: Where torch_safetensors/_library.py looks for the build for a release. No dot: it is part of a module's name here.
FOLDER = f"torch{TORCH_RELEASE.replace('.', '_')}"
#: The layers of csrc that only one of the libraries has; both have the others.
ONLY_IN_FULL = ("staging/", "tensors/", "modules/", "packages/", "library.cpp")
ONLY_IN_STABLE = ("stable/",)
#: The oldest release whose stable ABI is enough, 2.11, and no header of torch that is not of it (cmake/layers.cmake).
STABLE_MACROS = [("TORCH_TARGET_VERSION", "0x020b000000000000"), ("TORCH_STABLE_ONLY", None)]


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
    return sorted(listed)


def sources_without(layers: tuple[str, ...]) -> list[str]:
    return [f"csrc/{name}" for name in listed_sources() if not name.startswith(layers)]


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
            PACKAGE.parent.joinpath(*extension.name.split(".")).parent.mkdir(parents=True, exist_ok=True)
        super().run()

    def build_extension(self, ext: Extension) -> None:
        """Compiles each in a folder of its own: they share sources, but not the options to compile them with."""
        folder = self.build_temp
        self.build_temp = f"{folder}/{ext.name.split('.')[-1]}"
        try:
            super().build_extension(ext)
        finally:
            self.build_temp = folder


class AnyPythonWheel(bdist_wheel):
    """Tags the wheel `py3-none-<platform>`: bound to the platform, not to a Python."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


def link_args(library: str) -> list[str]:
    """The name it goes by when a program is linked to it, and torch's libraries where pip puts them."""
    if sys.platform == "darwin":
        return [f"-Wl,-install_name,@rpath/{library}.so", "-Wl,-rpath,@loader_path/../../../torch/lib"]
    return [f"-Wl,-soname,{library}.so", "-Wl,-rpath,$ORIGIN/../../../torch/lib"]


COMPILE_ARGS = ["-std=c++20", "-O3", "-DNDEBUG", "-g0", "-fvisibility=hidden", "-fvisibility-inlines-hidden"]
INCLUDE_DIRS = [str(ROOT / "csrc"), str(ROOT / "csrc/include")]
MACROS = [("TORCH_SAFETENSORS_VERSION", f'"{VERSION}"')]

setup(
    # Which torch its library is for stands in the version, so that wheels for several have names of their own.
    version=f"{VERSION}+torch{TORCH_RELEASE}",
    # Here, since "license" in pyproject.toml has another form for setuptools before 77, which Python 3.11 brings.
    license="Apache-2.0",
    # Any: where no build fits, the library of the stable ABI serves. pip replaces no torch that is there for it.
    # The others are the command line's, imported by it alone.
    install_requires=["torch>=2.11", "rich>=13", "tqdm>=4.60"],
    ext_modules=[
        CppExtension(
            f"torch_safetensors.lib.{FOLDER}.libtorch_safetensors",
            sources_without(ONLY_IN_STABLE),
            include_dirs=INCLUDE_DIRS,
            define_macros=MACROS,
            extra_compile_args=COMPILE_ARGS,
            extra_link_args=link_args("libtorch_safetensors"),
            py_limited_api=True,
        ),
        Extension(
            "torch_safetensors.lib.stable.libtorch_safetensors_stable",
            sources_without(ONLY_IN_FULL),
            language="c++",
            include_dirs=INCLUDE_DIRS + include_paths(),
            library_dirs=library_paths(),
            libraries=["torch_cpu"],
            define_macros=[*MACROS, *STABLE_MACROS],
            extra_compile_args=COMPILE_ARGS,
            extra_link_args=link_args("libtorch_safetensors_stable"),
            py_limited_api=True,
        ),
    ],
    # What a wheel is packed from: not the folder of a build for another torch, whose library would get into it.
    options={"build": {"build_lib": f"build/lib-torch-{torch.__version__}"}},
    cmdclass={"build_py": BuildPackage, "build_ext": BuildLibrary, "bdist_wheel": AnyPythonWheel},
)
