# nvcc 13 from PyPI's wheels (scripts/setup) or from the machine's toolkit. CMake's own CUDA language is not used: it
# wants a complete toolkit, and the wheels hold the compiler alone. LibTorch's wheels bring headers and runtime.
function(xdit_is_nvcc_13 result candidate)
  execute_process(COMMAND ${candidate} --version OUTPUT_VARIABLE version ERROR_QUIET)
  if(NOT version MATCHES "release 13\\.")
    set(${result} FALSE PARENT_SCOPE)
  endif()
endfunction()
find_program(XDIT_NVCC nvcc HINTS ${XDIT_NVIDIA}/cu13/bin PATHS /usr/local/cuda/bin VALIDATOR xdit_is_nvcc_13)
if(NOT XDIT_NVCC)
  message(FATAL_ERROR "no nvcc 13; run scripts/setup, or give -DXDIT_NVCC=.../bin/nvcc, or -DXDIT_CUDA=OFF")
endif()

set(XDIT_GENCODE "")
foreach(arch IN LISTS XDIT_CUDA_ARCHITECTURES)
  list(APPEND XDIT_GENCODE -gencode=arch=compute_${arch},code=sm_${arch})
  set(last ${arch})
endforeach()
list(LENGTH XDIT_CUDA_ARCHITECTURES count)
if(count GREATER 1)
  list(APPEND XDIT_GENCODE -gencode=arch=compute_${last},code=compute_${last})
endif()

# The NCCL that LibTorch loads.
add_library(xdit_nccl INTERFACE)
target_include_directories(xdit_nccl SYSTEM INTERFACE ${XDIT_NVIDIA}/nccl/include)
target_link_libraries(xdit_nccl INTERFACE ${XDIT_NVIDIA}/nccl/lib/libnccl.so.2)

# xdit_cuda_library(target source...): a static library of device code and its launchers.
function(xdit_cuda_library target)
  set(objects "")
  foreach(source IN LISTS ARGN)
    get_filename_component(name ${source} NAME_WE)
    set(object ${CMAKE_CURRENT_BINARY_DIR}/${name}.cu.o)
    add_custom_command(
      OUTPUT ${object}
      COMMAND ${XDIT_NVCC} -c ${source} -o ${object} -MD -MF ${object}.d -MT ${object} -std=c++20 -O3 ${XDIT_GENCODE}
              -lineinfo -Xcompiler=-fPIC,-Wall -Werror=all-warnings -I${PROJECT_SOURCE_DIR}
      DEPENDS ${source} DEPFILE ${object}.d COMMENT "nvcc ${name}.cu" VERBATIM)
    list(APPEND objects ${object})
  endforeach()
  add_library(${target} STATIC ${objects})
  set_target_properties(${target} PROPERTIES LINKER_LANGUAGE CXX)
  target_include_directories(${target} SYSTEM INTERFACE ${XDIT_NVIDIA}/cu13/include)
  target_link_libraries(${target} INTERFACE ${XDIT_NVIDIA}/cu13/lib/libcudart.so.13
                                            ${XDIT_NVIDIA}/cu13/lib/libcublasLt.so.13)
endfunction()

# cuDNN: LibTorch's own copy, and NVIDIA's C++ frontend for it, headers alone out of PyPI's wheel.
find_path(XDIT_CUDNN_FRONTEND cudnn_frontend.h HINTS ${XDIT_TORCH}/../include REQUIRED)
add_library(xdit_cudnn INTERFACE)
target_include_directories(xdit_cudnn SYSTEM INTERFACE ${XDIT_CUDNN_FRONTEND} ${XDIT_NVIDIA}/cudnn/include)
target_link_libraries(xdit_cudnn INTERFACE ${XDIT_NVIDIA}/cudnn/lib/libcudnn.so.9)
