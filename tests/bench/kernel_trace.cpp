// Writes each kernel, copy and fill that a process runs on its GPUs, those of CUDA graphs, too: "START_NS
// END_NS STREAM NAME" a line, to KERNELS.PID. kernel_table.py reads it.
//   cmake --build build/release --target kernel_trace
//   t=build/release/libkernel_trace.so
//   LD_PRELOAD=$t CUDA_INJECTION64_PATH=$t XDIT_KERNELS=kernels build/release/xdit-gen ...
#include <cupti.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

namespace {

constexpr std::size_t kBufferBytes = 8U << 20U;

std::FILE* lines = nullptr;

template <class Record>
void write(const Record& record, const char* name) {
  std::fprintf(lines, "%llu %llu %u %s\n", static_cast<unsigned long long>(record.start),
               static_cast<unsigned long long>(record.end), record.streamId, name);
}

void CUPTIAPI give_buffer(std::uint8_t** buffer, std::size_t* size, std::size_t* records) {
  *size = kBufferBytes;
  *records = 0;
  *buffer = static_cast<std::uint8_t*>(std::aligned_alloc(8, kBufferBytes));
}

void CUPTIAPI take_buffer(CUcontext /*context*/, std::uint32_t /*stream*/, std::uint8_t* buffer,
                          std::size_t /*size*/, std::size_t valid) {
  CUpti_Activity* record = nullptr;
  while (cuptiActivityGetNextRecord(buffer, valid, &record) == CUPTI_SUCCESS) {
    if (record->kind == CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) {
      const auto& kernel = *reinterpret_cast<CUpti_ActivityKernel10*>(record);
      write(kernel, kernel.name);
    } else if (record->kind == CUPTI_ACTIVITY_KIND_MEMCPY) {
      write(*reinterpret_cast<CUpti_ActivityMemcpy6*>(record), "copy");
    } else if (record->kind == CUPTI_ACTIVITY_KIND_MEMCPY2) {  // between GPUs: never of the kind before
      write(*reinterpret_cast<CUpti_ActivityMemcpyPtoP4*>(record), "copy to peer");
    } else if (record->kind == CUPTI_ACTIVITY_KIND_MEMSET) {
      write(*reinterpret_cast<CUpti_ActivityMemset4*>(record), "fill");
    }
  }
  std::fflush(lines);
  std::free(buffer);
}

}  // namespace

extern "C" int InitializeInjection() {
  const char* path = std::getenv("XDIT_KERNELS");
  if (path == nullptr) return 1;
  lines = std::fopen((std::string(path) + "." + std::to_string(getpid())).c_str(), "w");
  if (lines == nullptr) return 0;
  cuptiActivityRegisterCallbacks(give_buffer, take_buffer);
  for (const CUpti_ActivityKind kind : {CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL, CUPTI_ACTIVITY_KIND_MEMCPY,
                                        CUPTI_ACTIVITY_KIND_MEMCPY2, CUPTI_ACTIVITY_KIND_MEMSET})
    if (cuptiActivityEnable(kind) != CUPTI_SUCCESS) return 0;
  return 1;
}

// A rank's end, which runs no destructors.
extern "C" void _exit(int code) {
  if (lines != nullptr) cuptiActivityFlushAll(0);
  syscall(SYS_exit_group, code);
  __builtin_unreachable();
}
