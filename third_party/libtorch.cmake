# LibTorch out of PyPI's wheel (third_party/requirements.txt pins it: its C++ ABI changes with every version).
# find_package(Torch) is not used: it asks for a whole CUDA toolkit.
set(XDIT_TORCH_VERSION 2.11.0)
if(NOT XDIT_TORCH)
  execute_process(COMMAND ${XDIT_PYTHON} -c "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])"
                  OUTPUT_VARIABLE found OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  set(XDIT_TORCH "${found}" CACHE PATH "Folder of LibTorch: the torch package of PyPI's wheel" FORCE)
endif()
if(NOT EXISTS ${XDIT_TORCH}/lib/libtorch_cpu.so)
  message(FATAL_ERROR "no LibTorch at '${XDIT_TORCH}'; run scripts/setup, or give -DXDIT_TORCH=.../site-packages/torch")
endif()
file(STRINGS ${XDIT_TORCH}/version.py version REGEX "^__version__")
if(NOT version MATCHES "'${XDIT_TORCH_VERSION}")
  message(FATAL_ERROR "LibTorch must be ${XDIT_TORCH_VERSION}, found ${version}")
endif()
cmake_path(SET XDIT_NVIDIA NORMALIZE ${XDIT_TORCH}/../nvidia)  # the wheels that torch depends on

set(CMAKE_INSTALL_RPATH $ORIGIN ${XDIT_TORCH}/lib ${XDIT_NVIDIA}/cu13/lib ${XDIT_NVIDIA}/cudnn/lib
    ${XDIT_NVIDIA}/nccl/lib)
add_library(xdit_torch INTERFACE)
target_include_directories(xdit_torch SYSTEM INTERFACE ${XDIT_TORCH}/include ${XDIT_NVIDIA}/cu13/include)
set(lib ${XDIT_TORCH}/lib)
# libtorch_cuda registers the GPU's operators when it is loaded: nothing refers to it by symbol.
# libstdc++ stands first: libtorch.so exports std::filesystem functions of an older libstdc++, which crash.
target_link_libraries(xdit_torch INTERFACE
  -Wl,--push-state,--no-as-needed,-lstdc++,--pop-state
  -Wl,--push-state,--no-as-needed,${lib}/libtorch_cuda.so,--pop-state
  ${lib}/libtorch.so ${lib}/libtorch_cpu.so ${lib}/libc10_cuda.so ${lib}/libc10.so
  ${XDIT_NVIDIA}/cu13/lib/libcudart.so.13)

# Reading ATen's headers costs 4-7 s a source; this, 13 s once and then 1 s.
if(XDIT_PCH)
  file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/pch.cpp CONTENT "")
  add_library(xdit_pch OBJECT ${CMAKE_BINARY_DIR}/pch.cpp)
  target_link_libraries(xdit_pch PRIVATE xdit_options xdit_torch)
  target_precompile_headers(xdit_pch PRIVATE <ATen/ATen.h>)
endif()
