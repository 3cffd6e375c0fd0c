#pragma once
#include <sys/types.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/error.h"
#include "output/png.h"

namespace xdit::test {

/// What /proc says of a process; "" when it is not there.
inline std::string proc(pid_t process, const std::string& name) {
  std::ifstream file("/proc/" + std::to_string(process) + "/" + name);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// Processes that the first thread of `process` started and did not reap.
inline std::vector<pid_t> children_of(pid_t process) {
  const std::string id = std::to_string(process);
  std::ifstream list("/proc/" + id + "/task/" + id + "/children");
  return {std::istream_iterator<pid_t>(list), {}};
}

/// A rank's process among the launcher's. Throws when it is not there: -1 would signal every process.
inline pid_t rank_process(pid_t launcher, std::int64_t rank) {
  for (const pid_t child : children_of(launcher))
    if (proc(child, "comm") == "xdit-rank-" + std::to_string(rank) + "\n") return child;
  throw std::runtime_error("no process of rank " + std::to_string(rank));
}

/// The memory that it shares with other ranks, by inode.
inline std::set<std::string> shared_memory(pid_t process) {
  std::istringstream maps(proc(process, "maps"));
  std::set<std::string> inodes;
  for (std::string line; std::getline(maps, line);) {
    std::istringstream words(line);
    std::string range, rights, offset, device, inode, name;
    words >> range >> rights >> offset >> device >> inode >> name;
    if (name == "/memfd:xdit-gen") inodes.insert(inode);
  }
  return inodes;
}

/// Not there, or dead and waiting for a parent to ask (orphans in a container whose first process never
/// does).
inline bool is_gone(pid_t process) {
  const std::string status = proc(process, "stat");
  return status.empty() || status.find(") Z ") != std::string::npos;
}

inline bool all_gone(const std::vector<pid_t>& processes) {
  return std::all_of(processes.begin(), processes.end(), is_gone);
}

/// Whether every file there is a PNG that is whole to its last byte.
inline bool only_whole_pictures(const std::filesystem::path& folder) {
  const std::filesystem::directory_iterator files(folder);
  return std::all_of(begin(files), end(files), [](const std::filesystem::directory_entry& file) {
    try {
      return file.path().extension() == ".png" && output::read_png_text(file, ExitCode::kUsage).width > 0;
    } catch (const Error&) {
      return false;
    }
  });
}

}  // namespace xdit::test
