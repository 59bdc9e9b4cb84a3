# The sources, from csrc/sources.txt, and the layers they form: one object library per folder of
# csrc, so that the tests reach what the shared library hides.
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS csrc/sources.txt VERSION)
file(STRINGS csrc/sources.txt TORCH_SAFETENSORS_SOURCES REGEX "^[^#]")

# A new file that nobody lists would be left out in silence, and show as an undefined symbol when
# the library is loaded.
file(GLOB_RECURSE unlisted CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR}/csrc csrc/*.cpp)
set(missing ${TORCH_SAFETENSORS_SOURCES})
list(REMOVE_ITEM missing "" ${unlisted})
list(REMOVE_ITEM unlisted "" ${TORCH_SAFETENSORS_SOURCES})
if(unlisted OR missing)
  string(REPLACE ";" " " unlisted "${unlisted}")
  string(REPLACE ";" " " missing "${missing}")
  message(FATAL_ERROR "csrc/sources.txt and the files under csrc differ.\n"
    "  to be added to the list: ${unlisted}\n  listed, but no such file: ${missing}")
endif()

# What every target of ours is compiled with.
add_library(torch_safetensors_flags INTERFACE)
target_compile_features(torch_safetensors_flags INTERFACE cxx_std_20)
target_compile_options(torch_safetensors_flags INTERFACE
  -Wall -Wextra $<$<BOOL:${TORCH_SAFETENSORS_WERROR}>:-Werror>)
target_compile_definitions(torch_safetensors_flags INTERFACE
  TORCH_SAFETENSORS_VERSION="${PROJECT_VERSION}"
  $<$<CONFIG:Debug>:_GLIBCXX_ASSERTIONS>) # checks every index into a span or vector
if(TORCH_SAFETENSORS_SANITIZE)
  target_compile_options(torch_safetensors_flags INTERFACE -fsanitize=${TORCH_SAFETENSORS_SANITIZE}
    -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(torch_safetensors_flags INTERFACE -fsanitize=${TORCH_SAFETENSORS_SANITIZE})
endif()

# torch_safetensors_layer(<name> [<target>...]): csrc/<name>/*.cpp, or csrc/<name>.cpp, which may
# include its own headers, the public ones and those of the targets named.
function(torch_safetensors_layer name)
  set(target torch_safetensors_${name})
  set(sources ${TORCH_SAFETENSORS_SOURCES})
  list(FILTER sources INCLUDE REGEX "^${name}[/.]")
  list(TRANSFORM sources PREPEND csrc/)
  file(GLOB headers CONFIGURE_DEPENDS csrc/${name}/*.h)
  add_library(${target} OBJECT ${sources} ${headers})
  target_link_libraries(${target} PUBLIC ${ARGN} PRIVATE torch_safetensors_flags)
  set_target_properties(${target} PROPERTIES
    CXX_EXTENSIONS OFF
    CXX_VISIBILITY_PRESET hidden
    VISIBILITY_INLINES_HIDDEN ON
    POSITION_INDEPENDENT_CODE ON
    LINKER_LANGUAGE CXX)

  # `#include "tensors/..."` must not compile in format/. So the search path is not csrc/ itself but
  # a folder for each layer that holds a link to that layer alone.
  set(fence ${PROJECT_BINARY_DIR}/layers/${name})
  if(IS_DIRECTORY ${PROJECT_SOURCE_DIR}/csrc/${name})
    file(MAKE_DIRECTORY ${fence})
    file(CREATE_LINK ${PROJECT_SOURCE_DIR}/csrc/${name} ${fence}/${name} SYMBOLIC)
    target_include_directories(${target} PUBLIC ${fence})
  endif()
  target_include_directories(${target} PUBLIC ${PROJECT_SOURCE_DIR}/csrc/include)
endfunction()
