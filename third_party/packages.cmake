# Libraries from the distribution (third_party/apt.txt), linked statically or header-only, so that a binary built on one
# machine runs on another.
find_package(nlohmann_json 3.11 REQUIRED)
find_package(CLI11 2.1 REQUIRED)
find_package(fmt 9 REQUIRED)
find_package(Threads REQUIRED)

# xdit_static(NAME library header): the static library and its include folder as xdit::NAME.
function(xdit_static name library header)
  find_library(XDIT_${name}_LIBRARY ${library} REQUIRED)
  find_path(XDIT_${name}_INCLUDE ${header} REQUIRED)
  add_library(xdit::${name} STATIC IMPORTED)
  set_target_properties(xdit::${name} PROPERTIES IMPORTED_LOCATION ${XDIT_${name}_LIBRARY})
  target_include_directories(xdit::${name} SYSTEM INTERFACE ${XDIT_${name}_INCLUDE})
endfunction()
xdit_static(yaml libyaml-cpp.a yaml-cpp/yaml.h)
xdit_static(utf8proc libutf8proc.a utf8proc.h)
xdit_static(deflate libdeflate.a libdeflate.h)
xdit_static(digest libmd.a sha2.h)

find_path(XDIT_STB_INCLUDE stb_image_write.h PATH_SUFFIXES stb REQUIRED)
add_library(xdit_stb INTERFACE)
target_include_directories(xdit_stb SYSTEM INTERFACE ${XDIT_STB_INCLUDE})
