#include "core/temporary_folder.h"

#include <fmt/format.h>
#include <stdlib.h>

#include <cerrno>
#include <cstring>
#include <system_error>

#include "core/error.h"

namespace xdit {

TemporaryFolder::TemporaryFolder()
    : path_((std::filesystem::temp_directory_path() / "xdit-gen-XXXXXX").string()) {
  if (::mkdtemp(path_.data()) == nullptr)
    throw Error(ExitCode::kOutput, fmt::format("cannot make a folder: {}", std::strerror(errno)), path_,
                "set TMPDIR to a folder of yours");
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace xdit
