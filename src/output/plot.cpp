#include "output/plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <set>
#include <string_view>

#include "config/values.h"
#include "output/unicode.h"

namespace xdit::output {
namespace {

using Point = std::pair<double, double>;

constexpr double kWidth = 760, kHeight = 440;
constexpr double kLeft = 70, kTop = 46, kBottom = 390;
constexpr double kRight = 540;  // of the axes: the legend stands beyond
constexpr double kLegendLine = 20;
constexpr std::size_t kMostTicks = 12;
constexpr std::size_t kLongestText = 60;   // characters
constexpr std::size_t kLongestLabel = 26;  // of those in the legend
constexpr std::size_t kMostInLegend = 16;
// Okabe and Ito's palette, told apart by colour-blind readers.
constexpr std::array<std::string_view, 7> kColours{"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                                   "#e69f00", "#56b4e9", "#000000"};

// Text of an element: characters that XML 1.0 has, `longest` of them at most.
std::string escaped(const std::string& text, std::size_t longest = kLongestText) {
  const std::u32string all = code_points(config::valid_utf8(text)).value_or(U"");
  std::string safe;
  for (const char32_t c : std::u32string_view(all).substr(0, longest)) {
    if (c == U'&')
      safe += "&amp;";
    else if (c == U'<')
      safe += "&lt;";
    else if (c == U'>')
      safe += "&gt;";
    else
      safe += c < 0x20 || c == 0x7f || (c & 0xFFFEU) == 0xFFFEU ? " " : to_utf8(std::u32string(1, c));
  }
  return all.size() > longest ? safe + "..." : safe;
}

std::string text_at(double x, double y, std::string_view anchor, const std::string& text,
                    const std::string& more = {}) {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\"{}>{}</text>\n", x, y, anchor, more,
                     text);
}

std::string line_from(Point from, Point to, std::string_view colour) {
  return fmt::format("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"{}\"/>\n",
                     from.first, from.second, to.first, to.second, colour);
}

// 1, 2 or 5 times a power of ten, so that few steps reach `highest`.
double step_for(double highest) {
  const double rough = highest / 6;
  const double power = std::pow(10, std::floor(std::log10(rough)));
  for (const double factor : {1.0, 2.0, 5.0})
    if (factor * power >= rough * (1 - 1e-9)) return factor * power;
  return 10 * power;
}

std::vector<double> ticks_to(double highest) {
  const double step = step_for(highest);
  const auto count = static_cast<int>(std::ceil(highest / step - 1e-9));
  std::vector<double> ticks;
  ticks.reserve(static_cast<std::size_t>(count) + 1);
  for (int i = 0; i <= count; ++i) ticks.push_back(i * step);
  return ticks;
}

/// Where numbers stand on the page.
class Axes {
 public:
  explicit Axes(const Plot& plot) : names_(plot.names) {
    std::set<double> xs;
    double highest = 0;
    for (const Plot::Line& line : plot.lines)
      for (const auto& [x, y] : line.points) {
        xs.insert(x);
        highest = std::max(highest, y);
      }
    if (names_.empty() && xs.size() <= kMostTicks) {
      x_ticks_.assign(xs.begin(), xs.end());  // the values themselves: GPUs are 1, 2, 4, 8
    } else if (names_.empty()) {
      x_ticks_ = ticks_to(*xs.rbegin());
    } else {
      for (std::size_t i = 0; i < names_.size(); ++i) x_ticks_.push_back(static_cast<double>(i));
    }
    y_ticks_ = ticks_to(highest > 0 ? highest : 1);
    left_ = names_.empty() ? 0 : -0.5;
    right_ = (x_ticks_.empty() ? 1 : x_ticks_.back()) + (names_.empty() ? 0 : 0.5);
    if (right_ <= left_) right_ = left_ + 1;
  }

  [[nodiscard]] double x(double value) const {
    return kLeft + (value - left_) / (right_ - left_) * (kRight - kLeft);
  }
  [[nodiscard]] double y(double value) const { return kBottom - value / y_ticks_.back() * (kBottom - kTop); }

  [[nodiscard]] std::string svg() const {
    std::string text;
    for (const double tick : y_ticks_) {
      text += line_from({kLeft, y(tick)}, {kRight, y(tick)}, "#dddddd");
      text += text_at(kLeft - 8, y(tick) + 4, "end", fmt::format("{:.6g}", tick));
    }
    for (const double tick : x_ticks_) {
      text += line_from({x(tick), kBottom}, {x(tick), kBottom + 5}, "#333333");
      const std::string name = names_.empty() ? fmt::format("{:.6g}", tick)
                                              : escaped(names_.at(static_cast<std::size_t>(tick)), 14);
      text += text_at(x(tick), kBottom + 20, "middle", name);
    }
    text += line_from({kLeft, kBottom}, {kRight, kBottom}, "#333333");
    return text + line_from({kLeft, kTop}, {kLeft, kBottom}, "#333333");
  }

 private:
  const std::vector<std::string>& names_;
  std::vector<double> x_ticks_, y_ticks_;
  double left_ = 0, right_ = 1;
};

std::string curve(const Plot::Line& line, const Axes& axes, std::string_view colour) {
  std::string path;
  std::string marks;
  for (const auto& [x, y] : line.points) {
    path += fmt::format("{}{:.1f},{:.1f}", path.empty() ? "" : " ", axes.x(x), axes.y(y));
    if (!line.ideal)
      marks += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3.5\" fill=\"{}\"/>\n", axes.x(x),
                           axes.y(y), colour);
  }
  return fmt::format("<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\"{}/>\n", path,
                     colour, line.ideal ? " stroke-dasharray=\"6 4\"" : "") +
         marks;
}

}  // namespace

std::string to_svg(const Plot& plot) {
  const Axes axes(plot);
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} {1}\" "
      "font-family=\"sans-serif\" font-size=\"13\" fill=\"#333333\">\n"
      "<rect width=\"{0}\" height=\"{1}\" fill=\"#ffffff\"/>\n",
      kWidth, kHeight);
  svg += text_at((kLeft + kRight) / 2, kTop - 20, "middle", escaped(plot.title), " font-size=\"15\"");
  svg += axes.svg();
  svg += text_at((kLeft + kRight) / 2, kBottom + 42, "middle", escaped(plot.x_label));
  svg += text_at(18, (kTop + kBottom) / 2, "middle", escaped(plot.y_label),
                 fmt::format(" transform=\"rotate(-90 18 {:.1f})\"", (kTop + kBottom) / 2));
  std::size_t coloured = 0;
  double at = kTop + 10;
  for (std::size_t i = 0; i < plot.lines.size(); ++i) {
    const Plot::Line& line = plot.lines[i];
    const std::string_view colour = line.ideal ? "#888888" : kColours.at(coloured++ % kColours.size());
    svg += curve(line, axes, colour);
    if (i >= kMostInLegend) continue;
    svg += fmt::format(
        "<line x1=\"{0:.1f}\" y1=\"{2:.1f}\" x2=\"{1:.1f}\" y2=\"{2:.1f}\" stroke=\"{3}\" "
        "stroke-width=\"2\"{4}/>\n",
        kRight + 16, kRight + 40, at, colour, line.ideal ? " stroke-dasharray=\"6 4\"" : "");
    svg += text_at(kRight + 46, at + 4, "start", escaped(line.label, kLongestLabel));
    at += kLegendLine;
  }
  return svg + "</svg>\n";
}

}  // namespace xdit::output
