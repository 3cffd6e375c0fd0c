#pragma once
#include <string>

#include "cli/commands.h"

namespace xdit::cli {

[[nodiscard]] std::string short_help();                     ///< of generate: a screen with examples
[[nodiscard]] std::string help_of(const Command& command);  ///< every flag, or those that generate has not
[[nodiscard]] std::string settings_help();                  ///< where settings come from besides flags

}  // namespace xdit::cli
