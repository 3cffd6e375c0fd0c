#include "weights/model_stamp.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <set>
#include <system_error>

namespace xdit::weights {
namespace fs = std::filesystem;
namespace {

// Files that are gone count too.
std::string stamp_of(const fs::path& file) {
  struct stat status {};
  static_cast<void>(::stat(file.c_str(), &status));
  std::error_code ignored;
  return fmt::format("{} {} {} {} {}.{}\n", fs::absolute(file, ignored).string(), status.st_dev,
                     status.st_ino, status.st_size, status.st_mtim.tv_sec, status.st_mtim.tv_nsec);
}

}  // namespace

std::string model_stamp(const ModelFiles& files) {
  std::set<fs::path> all;
  for (const auto& [name, component] : files.components)
    all.insert(component.table.files.begin(), component.table.files.end());
  for (const auto& [name, folder] : files.tokenizers) {
    std::error_code error;
    for (auto at = fs::directory_iterator(folder, error); !error && at != fs::directory_iterator();
         at.increment(error))
      all.insert(at->path());
  }
  std::string text = files.name + "\n";
  for (const fs::path& file : all) text += stamp_of(file);
  return text;
}

}  // namespace xdit::weights
