// Updates and norms in one pass against one by one, bit for bit; on a GPU with XDIT_TEST_CUDA set.
#include "nn/residual_stream.h"

#include <ATen/ATen.h>

#include <array>

#include "nn/ops.h"
#include "tests/catch.h"
#include "tests/nn/device.h"

namespace xdit::nn {
namespace {

using test::randn;

constexpr std::array kTypes{at::kFloat, at::kHalf, at::kBFloat16};

bool same_bits(const Rows& a, const Rows& b) {
  const auto bytes = [](const at::Tensor& x) { return x.to(at::kCPU).view(at::kByte); };
  return a.quantised() == b.quantised() && at::equal(bytes(a.values), bytes(b.values)) &&
         (!a.quantised() || at::equal(a.scales, b.scales));
}

struct Shape {
  std::int64_t rows, width;
  std::int64_t x_stride, y_stride;
  std::int64_t y_first = 0, gate_first = 0;  // columns: at odd ones vectors end
};

TEST_CASE("an update in a norm's pass has the bits of add_gated, then the norm") {
  at::manual_seed(1);
  for (const at::ScalarType type : kTypes)
    for (const bool quantised : {false, true})
      for (const Shape& shape : {Shape{5, 3072, 3072, 3072},
                                 {3, 40, 48, 56},
                                 {4, 640, 640, 648},
                                 {2, 24576, 24576, 24576},
                                 {3, 3072, 3072, 3073},
                                 {3, 3072, 3072, 3080, 1},
                                 {3, 3072, 3072, 3072, 0, 1},
                                 {3, 3072, 3073, 3072},
                                 {7, 129, 131, 130, 1, 1},
                                 {2, 4099, 4099, 4100},
                                 {4, 1, 3, 2},
                                 {0, 64, 64, 64}}) {
        const auto& [rows, width, x_stride, y_stride, y_first, gate_first] = shape;
        CAPTURE(at::toString(type), quantised, rows, width, x_stride, y_stride, y_first, gate_first);
        const at::Tensor buffer = 3 * randn({rows, x_stride}, type) + 1;
        if (type == at::kHalf && rows > 1) buffer[1] *= 20000;  // saturates
        const at::Tensor apart = buffer.clone();
        const at::Tensor shift = randn({width}, type), scale = randn({width}, type);
        const GatedUpdate update{randn({gate_first + width}, type).narrow(0, gate_first, width),
                                 (5 * randn({rows, y_stride}, type)).narrow(1, y_first, width)};
        const at::Tensor x = apart.narrow(1, 0, width);
        add_gated(x, update);
        const Rows expected = modulated_rows(x, shift, scale, quantised);
        const Rows y = modulated_rows(buffer.narrow(1, 0, width), shift, scale, quantised, update);
        CHECK(at::equal(buffer, apart));
        CHECK(same_bits(y, expected));
      }
}

TEST_CASE("what a residual stream puts off changes no bits") {
  at::manual_seed(2);
  for (const at::ScalarType type : kTypes) {
    CAPTURE(at::toString(type));
    const at::Tensor first = randn({9, 48}, type), x = first.clone(), rows = first.clone();
    const at::Tensor gate = randn({48}, type), shift = randn({48}, type), scale = randn({48}, type);
    const std::array ys{randn({9, 48}, type), randn({9, 48}, type), randn({9, 48}, type)};
    ResidualStream stream(rows);
    CHECK(same_bits(stream.normed(shift, scale), modulated_rows(x, shift, scale, false)));

    stream.add(gate, ys[0]);
    stream.add(shift, ys[1]);
    add_gated(x, {gate, ys[0]});
    add_gated(x, {shift, ys[1]});
    for (int i = 0; i < 2; ++i)  // the second time nothing waits
      CHECK(same_bits(stream.normed(shift, scale, true), modulated_rows(x, shift, scale, true)));
    CHECK(at::equal(rows, x));

    stream.add(gate, ys[2]);
    CHECK(at::equal(rows, x));
    stream.keep(2, 5);
    CHECK(stream.tokens() == 5);
    add_gated(x.narrow(0, 2, 5), {gate, ys[2].narrow(0, 2, 5)});
    CHECK(at::equal(stream.settle(), x.narrow(0, 2, 5)));
    CHECK(at::equal(stream.settle(), x.narrow(0, 2, 5)));
    CHECK(at::equal(rows, x));
    CHECK(!at::equal(x, first));
  }
}

}  // namespace
}  // namespace xdit::nn
