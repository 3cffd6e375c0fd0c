#pragma once
#include <string>
#include <vector>

#include "core/error.h"
#include "core/stop.h"

namespace xdit::cli {

using Arguments = std::vector<std::string>;

/// Makes pictures; stops between steps when `stop` says so. `environment` is a null-terminated list of
/// NAME=value.
ExitCode generate(const Arguments& arguments, const char* const* environment, const StopToken& stop);

/// A model (what it holds and lacks) or a PNG (what made it). kModel for a model that lacks something.
ExitCode inspect(const Arguments& arguments);

/// models, schedulers or devices.
ExitCode list(const Arguments& arguments);

}  // namespace xdit::cli
