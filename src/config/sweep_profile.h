#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "config/settings.h"

namespace xdit::config {

/// A key that a sweep varies, and its values in their order.
struct Axis {
  std::string key;
  std::vector<Setting> values;
};

/// A profile with its `sweep:` section.
struct SweepProfile {
  Layer base;
  std::vector<Axis> axes;
};

/// Reads it as strictly as read_profile. A key of `sweep:` is any of a profile's but those of `output`, its
/// value a list; each item is checked as the key's value is, and comes once. At most 1000 points.
[[nodiscard]] SweepProfile read_sweep_profile(const std::filesystem::path& file);

/// The cartesian product: what each point sets, the last axis varying fastest.
[[nodiscard]] std::vector<Layer> points_of(const std::vector<Axis>& axes);

}  // namespace xdit::config
