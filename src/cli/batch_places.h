#pragma once
#include <cstddef>
#include <string>
#include <vector>

#include "config/batch_file.h"

namespace xdit::cli {

/// What tells a line of a batch from others, whichever number it has: 16 hex digits.
[[nodiscard]] std::string mark_of(const config::BatchLine& line);

/// The place of each line in the order that numbers and seeds of pictures follow. A batch that goes on knows
/// the marks of earlier files: lines that they had keep their places, lines between such take those that have
/// become free there and of which nothing was made, and others come behind all.
[[nodiscard]] std::vector<std::size_t> places_of(const std::vector<std::string>& marks,
                                                 const std::vector<std::string>& known,
                                                 const std::vector<bool>& made);

}  // namespace xdit::cli
