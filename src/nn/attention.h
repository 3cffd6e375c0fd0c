#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "nn/cudnn_attention.h"

namespace xdit::nn {

/// The RMS norms of so many tokens: weights [D].
struct TokenNorms {
  std::int64_t tokens = 0;
  at::Tensor query;
  at::Tensor key;
};

/// Tokens on their way from their products to attention.
struct RotatedTokens {
  at::Tensor qkv;                ///< [T, 3, H, D]
  at::Tensor rotary;             ///< [T, D / 2, 2]
  at::Tensor query, key, value;  ///< [T, H, D], the first two normed and rotated
  std::vector<at::Tensor> places;
  std::int64_t count = 0;  ///< of tokens that are
  RotatedTokens() = default;
  /// `to`: places of the tokens in turn, [1 or 2, n, H, D], for K and a copy of V; without any K is `key`.
  RotatedTokens(const at::Tensor& of, const at::Tensor& by, std::vector<at::Tensor> to = {});
  void add(std::int64_t first, const TokenNorms& norms);
};

/// Joint attention over the local tokens of one picture. Takes q, k, v before norm and rotation so that norm,
/// rotation and placement (on another GPU, too) can be one kernel.
class Attention {
 public:
  Attention() = default;
  Attention(const Attention&) = delete;
  Attention& operator=(const Attention&) = delete;
  virtual ~Attention() = default;
  /// Of `qkv` [T, 3, H, D], the last three dimensions contiguous, whose tokens are still to be computed, and
  /// `rotary` [T, D / 2, 2], cosine and sine in float32.
  virtual void begin(std::int64_t layer, const at::Tensor& qkv, const at::Tensor& rotary) = 0;
  /// The tokens from `first` on, norms.tokens of them, have been computed: they are normed, rotated and sent
  /// where they are needed. Each token once; what is computed until finish() hides what has to travel.
  virtual void add(std::int64_t first, const TokenNorms& norms) = 0;
  /// Writes softmax(q k^T / sqrt(D)) v to `out` [T, H * D], whose rows may be strided.
  virtual void finish(const at::Tensor& out) = 0;
  [[nodiscard]] virtual bool sends() const { return false; }  ///< tokens travel after `add`
};

/// softmax(q k^T / sqrt(D)) v of tokens q [T, H, D], k, v [S, H, D] into `out` [T, H, D], or of pictures
/// [B, T, H, D]. A query row's bits depend on no other row or head. Keeps what it has built.
class TokenAttention {
 public:
  explicit TokenAttention(std::shared_ptr<cudnn::Attentions> in_place) : in_place_(std::move(in_place)) {}
  void operator()(const at::Tensor& out, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v);

 private:
  std::shared_ptr<cudnn::Attentions> in_place_;
};

/// Every token is on this rank.
class LocalAttention final : public Attention {
 public:
  explicit LocalAttention(std::shared_ptr<cudnn::Attentions> in_place = std::make_shared<cudnn::Attentions>())
      : attention_(std::move(in_place)) {}
  void begin(std::int64_t layer, const at::Tensor& qkv, const at::Tensor& rotary) override;
  void add(std::int64_t first, const TokenNorms& norms) override;
  void finish(const at::Tensor& out) override;

 private:
  TokenAttention attention_;
  RotatedTokens tokens_;
};

/// softmax(q k^T scale + bias) v, like q [B, H, T, D], all of any strides; `bias` [1, H, T, S] or undefined.
/// Without it a query row's bits depend on no other row or head. `tf32`: a GPU may round float32's factors.
[[nodiscard]] at::Tensor scaled_dot_product(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                            double scale, const at::Tensor& bias = {}, bool causal = false,
                                            bool tf32 = false);

/// Attention over some of the keys, perhaps none, to be merged with that over others.
struct AttentionPart {
  at::Tensor out;          ///< [B, H, T, D] in the dtype of q; once merged, in float32
  at::Tensor log_sum_exp;  ///< natural, [B, H, T] in float32
};
[[nodiscard]] AttentionPart partial_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                              double scale);
/// `into` gets what attention over both sets of keys gives; an undefined one becomes `part`.
void merge(AttentionPart& into, const AttentionPart& part);

/// Cosines and sines [T, D / 2, 2] of `positions` [T, axes] (float64) for axes of `dims` channels each, D in
/// all. Rotary position embedding (Su et al. 2021) on several axes, as black-forest-labs/flux math.py `rope`.
[[nodiscard]] at::Tensor rotary_table(const at::Tensor& positions, std::span<const std::int64_t> dims,
                                      double theta = 10000);

}  // namespace xdit::nn
