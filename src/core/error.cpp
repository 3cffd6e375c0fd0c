#include "core/error.h"

#include <utility>

namespace xdit {

Error::Error(ExitCode code, std::string what, std::string where, std::string fix)
    : code_(code), message_(std::move(what)), where_(std::move(where)), fix_(std::move(fix)) {
  text_ = where_.empty() ? message_ : where_ + ": " + message_;
  if (!fix_.empty()) text_ += "\n  try: " + fix_;
}

void broken_invariant(const char* condition, const char* file, int line) {
  throw Error(ExitCode::kInternal, std::string("internal error: ") + condition + " does not hold",
              std::string(file) + ":" + std::to_string(line), "report this with the command that you ran");
}

}  // namespace xdit
