#pragma once
#include <sys/types.h>

#include <filesystem>
#include <string>
#include <vector>

namespace xdit::cli {

/// A folder of its own, removed with everything in it.
struct Folder {
  std::filesystem::path path = make();

  Folder() = default;
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder();
  /// Writes a file and returns its path.
  [[nodiscard]] std::string write(const std::string& name, const std::string& text) const;

 private:
  static std::filesystem::path make();
};

struct Run {
  std::string input = {};                     ///< on stdin
  std::vector<std::string> environment = {};  ///< "XDIT_GEN_STEPS=4"; else only HOME, PATH and no GPU
  std::string output = {};                    ///< stdout goes to this file instead, e.g. /dev/full
};
struct Result {
  int code = -1;  ///< exit code, or 256 + the signal that ended it
  std::string out;
  std::string err;
};

/// Starts the built xdit-gen and waits for it.
[[nodiscard]] Result xdit_gen(const std::vector<std::string>& arguments, const Run& run = {});

/// generate --dry-run on the CPU.
[[nodiscard]] Result dry_run(std::vector<std::string> arguments, const Run& run = {});

/// Starts it with stdin and stdout at these descriptors.
[[nodiscard]] pid_t start(const std::vector<std::string>& arguments,
                          const std::vector<std::string>& environment, int input, int output, int error);
[[nodiscard]] int wait_for(pid_t process);  ///< as Result::code

/// A folder or file under tests/data.
[[nodiscard]] std::string data(const std::string& name);

}  // namespace xdit::cli
