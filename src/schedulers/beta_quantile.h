#pragma once

namespace xdit::schedulers {

/// x at which the beta distribution Beta(a, b) reaches probability `p`, to 1e-14 (scipy.stats.beta.ppf).
[[nodiscard]] double beta_quantile(double p, double a, double b);

}  // namespace xdit::schedulers
