#pragma once
#include <cstddef>
#include <string>
#include <vector>

#include "config/batch_file.h"
#include "output/manifest.h"

namespace xdit::cli {

/// What tells a line of a batch from others, whichever number it has: 16 hex digits.
[[nodiscard]] std::string mark_of(const config::BatchLine& line);

/// The place of each line in the order that numbers and seeds of pictures follow. A batch that goes on knows
/// the places of earlier files' lines: a line that they had keeps its place, wherever it stands now (alike
/// ones stay in their order), one behind it takes a place that has become free there, if nothing was made of
/// that and it is for as many pictures, and others come behind all. So no number changes.
[[nodiscard]] std::vector<std::size_t> places_of(const std::vector<output::Manifest::Place>& lines,
                                                 const std::vector<output::Manifest::Place>& known,
                                                 const std::vector<bool>& made);

}  // namespace xdit::cli
