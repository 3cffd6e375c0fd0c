#pragma once
#include <exception>
#include <string>

namespace xdit {

/// What the process returns. The table stands in the README; scripts rely on it.
enum class ExitCode : int {
  kOk = 0,
  kUsage = 2,
  kProfile = 3,
  kModel = 4,
  kDevice = 5,
  kMemory = 6,
  kRank = 7,
  kOutput = 8,
  kPartial = 9,
  kInternal = 70,
  kInterrupted = 130,
  kTerminated = 143,
};

/// The one error type: what is wrong, where (file:line:column, or file and tensor), and what to type next.
class Error : public std::exception {
 public:
  Error(ExitCode code, std::string what, std::string where = {}, std::string fix = {});

  [[nodiscard]] const char* what() const noexcept override {
    return text_.c_str();
  }  ///< all parts, one a line
  [[nodiscard]] ExitCode code() const noexcept { return code_; }
  [[nodiscard]] const std::string& message() const noexcept { return message_; }
  [[nodiscard]] const std::string& where() const noexcept { return where_; }
  [[nodiscard]] const std::string& fix() const noexcept { return fix_; }

 private:
  ExitCode code_;
  std::string message_;
  std::string where_;
  std::string fix_;
  std::string text_;
};

/// A broken invariant: a defect of ours, never of the user's input. Throws Error(kInternal).
[[noreturn]] void broken_invariant(const char* condition, const char* file, int line);

}  // namespace xdit

#define XDIT_ASSERT(condition) \
  ((condition) ? static_cast<void>(0) : ::xdit::broken_invariant(#condition, __FILE__, __LINE__))
