#pragma once
#include <filesystem>
#include <string>

#include "core/file.h"

namespace xdit {

/// Locks the file, or folder, for this process and those that it starts, until the last of them has ended:
/// waits for what was killed just now. Error(kOutput) when another holds it: `busy` at `path`. A file system
/// without locks locks nothing.
void lock_alone(const File& file, const std::filesystem::path& path, const std::string& busy,
                const std::string& fix);

}  // namespace xdit
