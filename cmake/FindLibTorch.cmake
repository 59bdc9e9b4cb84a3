# Defines the target torch_safetensors::libtorch, the headers and libraries of a pip-installed torch
# or of an unpacked LibTorch, with TORCH_SAFETENSORS_TORCH_PREFIX and TORCH_SAFETENSORS_TORCH_VERSION
# (as 2.13). It is looked for where find_package(Torch) would look (Torch_DIR, CMAKE_PREFIX_PATH),
# then beside this package, as both lie in one site-packages.
#
# Not by find_package(Torch): where torch was built with CUDA that one insists on the CUDA toolkit,
# of which nothing here needs a single header, and pip's torch comes without it. A program may call
# it as well; both name the same files.
function(torch_safetensors_find_libtorch)
  find_path(TORCH_SAFETENSORS_TORCH_INCLUDE_DIR torch/library.h
    HINTS ${Torch_DIR}/../../../include
    PATHS ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/../../../../torch/include
    PATH_SUFFIXES include ../../include
    DOC "The include folder of torch")
  if(NOT TORCH_SAFETENSORS_TORCH_INCLUDE_DIR)
    message(FATAL_ERROR "torch_safetensors: no torch found; pass -DCMAKE_PREFIX_PATH="
      "$(python -c 'import torch; print(torch.utils.cmake_prefix_path)')")
  endif()
  get_filename_component(prefix ${TORCH_SAFETENSORS_TORCH_INCLUDE_DIR}/.. ABSOLUTE)
  set(TORCH_SAFETENSORS_TORCH_PREFIX ${prefix} PARENT_SCOPE)

  file(STRINGS ${prefix}/include/torch/headeronly/version.h version
    REGEX "define TORCH_VERSION_M(AJOR|INOR) ")
  string(REGEX REPLACE "[^0-9]*([0-9]+)[^0-9]+([0-9]+).*" "\\1.\\2" version "${version}")
  set(TORCH_SAFETENSORS_TORCH_VERSION ${version} PARENT_SCOPE)

  # No libtorch_python, which would bind a program to one Python.
  set(libraries)
  foreach(name torch torch_cpu c10)
    set(library ${prefix}/lib/${CMAKE_SHARED_LIBRARY_PREFIX}${name}${CMAKE_SHARED_LIBRARY_SUFFIX})
    if(NOT EXISTS ${library})
      message(FATAL_ERROR "torch_safetensors: the torch in ${prefix} has no ${library}")
    endif()
    list(APPEND libraries ${library})
  endforeach()

  if(NOT TARGET torch_safetensors::libtorch)
    add_library(torch_safetensors::libtorch INTERFACE IMPORTED)
  endif()
  set_target_properties(torch_safetensors::libtorch PROPERTIES
    INTERFACE_INCLUDE_DIRECTORIES "${prefix}/include;${prefix}/include/torch/csrc/api/include"
    INTERFACE_COMPILE_FEATURES cxx_std_20
    INTERFACE_LINK_LIBRARIES "${libraries}")
  if(NOT APPLE)
    # A program that reaches operators by name only uses no symbol of the libraries that hold them,
    # and a linker told --as-needed (Ubuntu's default) would leave them out.
    set_target_properties(torch_safetensors::libtorch PROPERTIES
      INTERFACE_LINK_OPTIONS LINKER:--no-as-needed)
  endif()
endfunction()

torch_safetensors_find_libtorch()
