#pragma once
#include <functional>

namespace xdit::pipeline {

/// Runs `work` without gradients; LibTorch's errors come out as ours: Error(kMemory) where a device or the
/// host has none left, kInternal else, in LibTorch's first line.
void in_torch(const std::function<void()>& work);

}  // namespace xdit::pipeline
