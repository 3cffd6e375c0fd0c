#include "schedulers/beta_quantile.h"

#include <algorithm>
#include <cmath>

namespace xdit::schedulers {
namespace {

constexpr int kTerms = 300;
constexpr double kTiny = 1e-300;

// The continued fraction of the incomplete beta function (NIST DLMF 8.17.22) by Lentz's method.
double continued_fraction(double x, double a, double b) {
  const auto away_from_zero = [](double value) { return std::abs(value) < kTiny ? kTiny : value; };
  double c = 1;
  double d = 1 / away_from_zero(1 - (a + b) * x / (a + 1));
  double fraction = d;
  for (int m = 1; m <= kTerms; ++m) {
    const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
    const double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
    double change = 1;
    for (const double term : {even, odd}) {
      d = 1 / away_from_zero(1 + term * d);
      c = away_from_zero(1 + term / c);
      change = c * d;
      fraction *= change;
    }
    if (std::abs(change - 1) < 1e-16) break;
  }
  return fraction;
}

double beta_probability(double x, double a, double b) {
  if (x > (a + 1) / (a + b + 2)) return 1 - beta_probability(1 - x, b, a);
  if (x <= 0) return 0;
  const double log_front =
      a * std::log(x) + b * std::log1p(-x) + std::lgamma(a + b) - std::lgamma(a) - std::lgamma(b);
  return std::exp(log_front) / a * continued_fraction(x, a, b);
}

}  // namespace

double beta_quantile(double p, double a, double b) {
  if (p <= 0) return 0;
  if (p >= 1) return 1;
  if (p > 0.5) return 1 - beta_quantile(1 - p, b, a);
  double low = 0;
  double high = 1;
  double x = 0.5;
  for (int i = 0; i < kTerms && high - low > 1e-17; ++i) {  // Newton's steps inside a shrinking bracket
    const double error = beta_probability(x, a, b) - p;
    (error > 0 ? high : low) = x;
    const double density = std::exp((a - 1) * std::log(x) + (b - 1) * std::log1p(-x) + std::lgamma(a + b) -
                                    std::lgamma(a) - std::lgamma(b));
    const double next = x - error / density;
    const double chosen = next > low && next < high ? next : (low + high) / 2;
    if (chosen == x) break;
    x = chosen;
  }
  return x;
}

}  // namespace xdit::schedulers
