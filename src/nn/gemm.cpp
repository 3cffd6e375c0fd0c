#include <ATen/ATen.h>
#include <ATen/cuda/CUDAContext.h>
#include <ATen/cuda/CUDADataType.h>
#include <ATen/cuda/Exceptions.h>
#include <c10/cuda/CUDAGuard.h>
#include <cublasLt.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "core/error.h"
#include "nn/counters.h"
#include "nn/fused.h"
#include "nn/product_tiles.h"

namespace xdit::nn::fused {
namespace {

// cuBLASLt's number of its newest kernels, "nvjet". Unless they split K, each result is one sum in the order
// of k, whatever the tile: the best may be taken for every number of rows (tests/nn/rows_test.cpp). In other
// families the order is the algorithm's, so the best one for kReferenceRows serves any number of rows.
constexpr std::int32_t kNvjet = 66;
constexpr std::int64_t kReferenceRows = 4096;
constexpr std::int64_t kRowBytes = 16;  // what rows are a multiple of, for kernels that load by TMA

std::int64_t padding(std::int64_t size, const at::Tensor& of) {
  const std::int64_t step = kRowBytes / of.element_size();
  return (step - size % step) % step;
}

std::int64_t leading(const at::Tensor& matrix) {
  return matrix.size(0) == 1 ? matrix.size(1) : matrix.stride(0);  // the stride of a single row is arbitrary
}

bool is_aligned(const at::Tensor& matrix) {
  return padding(matrix.size(1), matrix) == 0 && matrix.stride(1) == 1 && leading(matrix) >= matrix.size(1) &&
         padding(leading(matrix), matrix) == 0 &&
         reinterpret_cast<std::uintptr_t>(matrix.const_data_ptr()) % kRowBytes == 0;
}

// `matrix`, or a copy whose rows begin at multiples of kRowBytes, with `rows` of zeros below.
at::Tensor aligned(const at::Tensor& matrix, std::int64_t rows) {
  if (rows == 0 && is_aligned(matrix)) return matrix;
  const std::int64_t columns = padding(matrix.size(1), matrix);
  at::Tensor copy = at::zeros({matrix.size(0) + rows, matrix.size(1) + columns}, matrix.options());
  copy.narrow(0, 0, matrix.size(0)).narrow(1, 0, matrix.size(1)).copy_(matrix);
  return copy;
}

template <class T>
T configured(const cublasLtMatmulAlgo_t& algorithm, cublasLtMatmulAlgoConfigAttributes_t name) {
  T value{};
  std::size_t written = 0;
  TORCH_CUDABLAS_CHECK(
      cublasLtMatmulAlgoConfigGetAttribute(&algorithm, name, &value, sizeof(value), &written));
  return value;
}

struct KnownTile {
  std::uint32_t id;
  std::int64_t outputs, rows;
};
constexpr std::array kKnownTiles{
    KnownTile{CUBLASLT_MATMUL_TILE_80x128, 80, 128},   KnownTile{CUBLASLT_MATMUL_TILE_96x128, 96, 128},
    KnownTile{CUBLASLT_MATMUL_TILE_112x128, 112, 128}, KnownTile{CUBLASLT_MATMUL_TILE_128x80, 128, 80},
    KnownTile{CUBLASLT_MATMUL_TILE_128x96, 128, 96},   KnownTile{CUBLASLT_MATMUL_TILE_128x128, 128, 128},
    KnownTile{CUBLASLT_MATMUL_TILE_128x160, 128, 160}, KnownTile{CUBLASLT_MATMUL_TILE_128x192, 128, 192},
    KnownTile{CUBLASLT_MATMUL_TILE_128x256, 128, 256}, KnownTile{CUBLASLT_MATMUL_TILE_144x128, 144, 128},
    KnownTile{CUBLASLT_MATMUL_TILE_160x128, 160, 128}, KnownTile{CUBLASLT_MATMUL_TILE_168x128, 168, 128},
    KnownTile{CUBLASLT_MATMUL_TILE_176x128, 176, 128}, KnownTile{CUBLASLT_MATMUL_TILE_192x128, 192, 128},
    KnownTile{CUBLASLT_MATMUL_TILE_192x192, 192, 192}, KnownTile{CUBLASLT_MATMUL_TILE_256x128, 256, 128},
    KnownTile{CUBLASLT_MATMUL_TILE_320x128, 320, 128}};

bool is_nvjet(const cublasLtMatmulAlgo_t& algorithm) {
  return configured<std::int32_t>(algorithm, CUBLASLT_ALGO_CONFIG_ID) == kNvjet;
}

// Of an "nvjet" kernel, nothing if it is not a known one. Its custom option's third bit says what "coop" in
// its name does.
std::optional<ProductTile> tile_of(const cublasLtMatmulAlgo_t& algorithm) {
  constexpr std::uint32_t kCooperative = 4;
  const auto id = configured<std::uint32_t>(algorithm, CUBLASLT_ALGO_CONFIG_TILE_ID);
  const auto* const known = std::ranges::find(kKnownTiles, id, &KnownTile::id);
  if (!is_nvjet(algorithm) || known == kKnownTiles.end()) return std::nullopt;
  const auto option = configured<std::uint32_t>(algorithm, CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION);
  return ProductTile{
      .outputs = known->outputs, .rows = known->rows, .cooperative = (option & kCooperative) != 0};
}

bool splits_nothing(const cublasLtMatmulAlgo_t& algorithm) {
  return configured<std::int32_t>(algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM) == 1 &&
         configured<std::uint32_t>(algorithm, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME) ==
             CUBLASLT_REDUCTION_SCHEME_NONE;
}

Rows aligned(const Rows& matrix, std::int64_t rows) {
  if (!matrix.quantised()) return {aligned(matrix.values, rows)};
  return {aligned(matrix.values, rows),
          rows == 0 ? matrix.scales : at::constant_pad_nd(matrix.scales, {0, rows})};
}

// y = act(x W^T + b) of aligned matrices x [M, K], W [N, K], b [1, N], or y + x W^T + b; y's rows may be
// strided. cuBLAS, whose matrices are column-major, sees y^T = (W^T)^T x^T.
class Product {
 public:
  Product(const Rows& x, const Rows& weight, const at::Tensor& bias, bool gelu_tanh, const at::Tensor& y,
          bool tf32 = false)
      : x_(x.values),
        weight_(weight.values),
        y_(y),
        gelu_(gelu_tanh),
        type_(at::cuda::ScalarTypeToCudaDataType(x.values.scalar_type())) {
    TORCH_CUDABLAS_CHECK(cublasLtMatmulDescInit(
        &operation_, tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUDA_R_32F));
    set(CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
    if (x.quantised()) {
      set(CUBLASLT_MATMUL_DESC_A_SCALE_MODE, CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F);
      set(CUBLASLT_MATMUL_DESC_B_SCALE_MODE, CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F);
      set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, weight.scales.const_data_ptr());
      set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, x.scales.const_data_ptr());
      set(CUBLASLT_MATMUL_DESC_FAST_ACCUM, std::int8_t{1});
    }
    if (bias.defined()) {
      set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
      set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias.const_data_ptr());
    }
    without_gelu_ = operation_;
    if (gelu_tanh)
      set(CUBLASLT_MATMUL_DESC_EPILOGUE,
          bias.defined() ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU);
  }

  void run(bool add = false) {
    beta_ = add ? 1 : 0;
    // Where no product in e4m3 has a gelu, whatever the number of rows, it follows.
    const bool apart = gelu_ && x_.element_size() == 1 && !best(kReferenceRows, /*nvjet=*/false);
    if (apart) operation_ = without_gelu_;
    multiply();
    if (apart) y_.copy_(at::gelu(y_, "tanh"));
  }

 private:
  void multiply() {
    const cublasLtMatmulAlgo_t algorithm = choose();
    Layouts layouts = layouts_of(x_.size(0), leading(x_));
    const float one = 1;
    void* result = y_.mutable_data_ptr();
    const at::Tensor counters = Counters::take(static_cast<std::int64_t>(wants_));
    void* memory = counters.defined() ? counters.data_ptr() : at::cuda::getCUDABlasLtWorkspace();
    TORCH_CUDABLAS_CHECK(cublasLtMatmul(
        handle_, &operation_, &one, weight_.const_data_ptr(), &layouts.weight, x_.const_data_ptr(),
        &layouts.x, &beta_, result, &layouts.y, result, &layouts.y, &algorithm, memory,
        counters.defined() ? wants_ : workspace_bytes_, at::cuda::getCurrentCUDAStream()));
  }

  struct Layouts {
    cublasLtMatrixLayoutOpaque_t weight, x, y;
  };

  template <class T>
  void set(cublasLtMatmulDescAttributes_t name, const T& value) {
    TORCH_CUDABLAS_CHECK(cublasLtMatmulDescSetAttribute(&operation_, name, &value, sizeof(value)));
  }

  [[nodiscard]] Layouts layouts_of(std::int64_t rows, std::int64_t x_leading) const {
    Layouts of{};
    const std::uint64_t k = weight_.size(1), n = weight_.size(0), m = rows;
    const cudaDataType_t result = at::cuda::ScalarTypeToCudaDataType(y_.scalar_type());
    TORCH_CUDABLAS_CHECK(cublasLtMatrixLayoutInit(&of.weight, type_, k, n, leading(weight_)));
    TORCH_CUDABLAS_CHECK(cublasLtMatrixLayoutInit(&of.x, type_, k, m, x_leading));
    TORCH_CUDABLAS_CHECK(cublasLtMatrixLayoutInit(&of.y, result, n, m, leading(y_)));
    return of;
  }

  // Without split K, cuBLASLt's best `count` for so many contiguous rows, best first. It remembers them.
  [[nodiscard]] std::vector<cublasLtMatmulAlgo_t> candidates(std::int64_t rows, int count) {
    cublasLtMatmulPreferenceOpaque_t preference{};
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t name, const auto& value) {
      TORCH_CUDABLAS_CHECK(cublasLtMatmulPreferenceSetAttribute(&preference, name, &value, sizeof(value)));
    };
    TORCH_CUDABLAS_CHECK(cublasLtMatmulPreferenceInit(&preference));
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{workspace_bytes_});
    prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, std::uint32_t{CUBLASLT_REDUCTION_SCHEME_NONE});
    for (const auto alignment :
         {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
          CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
      prefer(alignment, std::uint32_t{kRowBytes});
    Layouts layouts = layouts_of(rows, x_.size(1));
    std::vector<cublasLtMatmulHeuristicResult_t> results(count);
    int found = 0;
    const cublasStatus_t status =
        cublasLtMatmulAlgoGetHeuristic(handle_, &without_gelu_, &layouts.weight, &layouts.x, &layouts.y,
                                       &layouts.y, &preference, count, results.data(), &found);
    if (status != CUBLAS_STATUS_NOT_SUPPORTED) TORCH_CUDABLAS_CHECK(status);
    std::vector<cublasLtMatmulAlgo_t> algorithms;
    for (int i = 0; i < found; ++i)
      if (results[i].state == CUBLAS_STATUS_SUCCESS && splits_nothing(results[i].algo))
        algorithms.push_back(results[i].algo);
    return algorithms;
  }

  // The best one for `rows` that takes this product.
  [[nodiscard]] std::optional<cublasLtMatmulAlgo_t> best(std::int64_t rows, bool nvjet) {
    for (const int count : kCounts)
      for (const cublasLtMatmulAlgo_t& algorithm : candidates(rows, count))
        if ((!nvjet || is_nvjet(algorithm)) && takes_this(algorithm)) return algorithm;
    return std::nullopt;
  }

  // The one of cuBLASLt's guesses that best_tile() prefers to the first of them.
  [[nodiscard]] std::optional<cublasLtMatmulAlgo_t> of_better_tile() {
    constexpr int kGuesses = 8;
    if (x_.element_size() != 2) return std::nullopt;
    std::vector<ProductTile> tiles;
    std::vector<cublasLtMatmulAlgo_t> algorithms;
    for (const cublasLtMatmulAlgo_t& algorithm : candidates(x_.size(0), kGuesses)) {
      const std::optional<ProductTile> tile = tile_of(algorithm);
      if (!tile && tiles.empty()) return std::nullopt;
      if (!tile || (tiles.empty() && !takes_this(algorithm))) continue;
      tiles.push_back(*tile);
      algorithms.push_back(algorithm);
    }
    const int multiprocessors = at::cuda::getCurrentDeviceProperties()->multiProcessorCount;
    while (const std::size_t best =
               best_tile(tiles, {x_.size(0), x_.size(1), weight_.size(0)}, multiprocessors)) {
      if (takes_this(algorithms[best])) return algorithms[best];
      tiles.erase(tiles.begin() + static_cast<std::ptrdiff_t>(best));
      algorithms.erase(algorithms.begin() + static_cast<std::ptrdiff_t>(best));
    }
    return std::nullopt;
  }

  [[nodiscard]] bool takes_this(const cublasLtMatmulAlgo_t& algorithm) {
    Layouts layouts = layouts_of(x_.size(0), leading(x_));
    cublasLtMatmulHeuristicResult_t result{};
    return cublasLtMatmulAlgoCheck(handle_, &operation_, &layouts.weight, &layouts.x, &layouts.y, &layouts.y,
                                   &algorithm, &result) == CUBLAS_STATUS_SUCCESS &&
           (wants_ = result.workspaceSize) <= workspace_bytes_;
  }

  [[nodiscard]] cublasLtMatmulAlgo_t choose() {
    if (const auto algorithm = of_better_tile()) return *algorithm;
    if (x_.element_size() < 4)
      for (const std::int64_t rows : {x_.size(0), kReferenceRows})
        if (const auto algorithm = best(rows, /*nvjet=*/true)) return *algorithm;
    if (const auto algorithm = best(kReferenceRows, /*nvjet=*/false)) return *algorithm;
    throw Error(
        ExitCode::kDevice, "cuBLASLt has no algorithm without split K for this product",
        fmt::format("[{}, {}] x [{}, {}]^T in {}", x_.size(0), x_.size(1), weight_.size(0), weight_.size(1),
                    at::toString(x_.scalar_type())),
        x_.element_size() == 1 ? "--quantize none: fp8 needs a Hopper GPU" : "choose another --dtype");
  }

  static constexpr std::array kCounts{1, 32};  // the best one is nearly always it

  const at::Tensor& x_;
  const at::Tensor& weight_;
  const at::Tensor& y_;
  bool gelu_;
  float beta_ = 0;
  cudaDataType_t type_;
  cublasLtMatmulDescOpaque_t operation_{};
  cublasLtMatmulDescOpaque_t without_gelu_{};  // for which cuBLASLt's guesses are better
  cublasLtHandle_t handle_ = at::cuda::getCurrentCUDABlasLtHandle();
  std::size_t workspace_bytes_ = at::cuda::getCUDABlasLtWorkspaceSize();
  std::size_t wants_ = 0;  // of it, for the algorithm that was asked about last
};

}  // namespace

at::Tensor linear(const Rows& x, const Rows& weight, const at::Tensor& bias, bool gelu_tanh,
                  at::ScalarType result, bool tf32) {
  const at::ScalarType type = x.values.scalar_type();
  const std::int64_t outputs = weight.values.size(0);
  XDIT_ASSERT(x.values.dim() == 2 && x.values.size(1) == weight.values.size(1));
  XDIT_ASSERT(type == weight.values.scalar_type() && x.quantised() == weight.quantised());
  XDIT_ASSERT(result == (x.quantised() ? at::kBFloat16 : type) ||
              (result == at::kFloat && !bias.defined() && !gelu_tanh));
  XDIT_ASSERT(!bias.defined() || (bias.dim() == 1 && bias.scalar_type() == result));
  const c10::cuda::CUDAGuard guard(x.values.device());
  const std::int64_t more = padding(outputs, weight.values);  // outputs, dropped at the end
  at::Tensor y = at::empty({x.values.size(0), outputs + more}, x.values.options().dtype(result));
  if (y.size(0) > 0) {
    const at::Tensor padded = bias.defined() && more > 0 ? at::constant_pad_nd(bias, {0, more}) : bias;
    const at::Tensor added = bias.defined() ? aligned(padded.unsqueeze(0), 0) : bias;
    Product(aligned(x, 0), aligned(weight, more), added, gelu_tanh, y, tf32 && type == at::kFloat).run();
  }
  return y.narrow(1, 0, outputs).contiguous();
}

namespace {

// Into `out`, or onto what it holds.
void write(const at::Tensor& out, const Rows& x, const Rows& weight, const at::Tensor& bias, bool gelu_tanh,
           bool add, bool tf32 = false) {
  const c10::cuda::CUDAGuard guard(out.device());
  if (out.size(0) == 0 || !is_aligned(out) || !is_aligned(weight.values) ||
      padding(out.size(1), weight.values) != 0) {
    const at::Tensor y = linear(x, weight, bias, gelu_tanh, out.scalar_type(), tf32);
    add ? out.add_(y) : out.copy_(y);
    return;
  }
  const at::Tensor added = bias.defined() ? aligned(bias.unsqueeze(0), 0) : bias;
  Product(aligned(x, 0), weight, added, gelu_tanh, out, tf32 && x.values.scalar_type() == at::kFloat)
      .run(add);
}

}  // namespace

void linear_into(const at::Tensor& out, const Rows& x, const Rows& weight, const at::Tensor& bias,
                 bool gelu_tanh) {
  write(out, x, weight, bias, gelu_tanh, /*add=*/false);
}

void linear_onto(const at::Tensor& out, const Rows& x, const Rows& weight, const at::Tensor& bias,
                 bool tf32) {
  write(out, x, weight, bias, /*gelu_tanh=*/false, /*add=*/true, tf32);
}

}  // namespace xdit::nn::fused
