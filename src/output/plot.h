#pragma once
#include <string>
#include <utility>
#include <vector>

namespace xdit::output {

/// A diagram of lines over two axes, both from zero.
struct Plot {
  struct Line {
    std::string label;
    std::vector<std::pair<double, double>> points;  ///< x and y, finite and >= 0
    bool ideal = false;                             ///< dashed, without marks: what is measured against
  };
  std::string title, x_label, y_label;
  std::vector<std::string> names;  ///< of x = 0, 1, ...; empty: x is a number
  std::vector<Line> lines;
};

/// A stand-alone SVG document: axes, ticks, labels and a legend, no script. Texts are escaped.
[[nodiscard]] std::string to_svg(const Plot& plot);

}  // namespace xdit::output
