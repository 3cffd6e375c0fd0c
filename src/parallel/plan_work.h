#pragma once
#include <cstdint>

#include "models/registry.h"
#include "parallel/plan.h"

/// What networks have a GPU do, from their configs. A multiplication and an addition are two operations.
namespace xdit::parallel {

struct Work {
  double product = 0;      ///< operations of linears
  double filling = 0;      ///< and those that filling the chip costs, once a launch
  double attention = 0;    ///< of attentions, as if their heads had 128 channels
  double convolution = 0;  ///< of 3x3 convolutions
  double elements = 0;     ///< that the passes between them read or write
  double weights = 0;      ///< elements of the decoder's and encoders' weights, which are read
  double launches = 0;
  double shapes = 0;  ///< of convolutions: for each a plan is looked for, once
  Work& operator+=(const Work& other);
  friend Work operator*(double times, Work work);
};

/// Rows of a linear that are computed as long as it takes to fill and drain the chip with tiles. An H100's
/// products of FLUX run at 0.7 - 0.78 of 1e15 operations a second with 4608 rows, at a third to three
/// quarters of that with 512.
inline constexpr double kFillRows = 600;

/// Of one forward of the denoiser: by `rank` with its blocks, tokens of its text and `image` of its image.
[[nodiscard]] Work denoiser_work(const Plan& plan, const RankPlan& rank, const models::Model& model,
                                 Range image);
[[nodiscard]] Work decoder_work(const Plan& plan, const RankPlan& rank, const models::Model& model);
/// Of a prompt by one rank.
[[nodiscard]] Work encoder_work(const config::RunSpec& spec, const models::Model& model);

/// What a rank gets from others in one forward.
struct Traffic {
  double elements = 0;
  double exchanges = 0;
  double ahead = 0;  ///< elements that come while something else is computed
};
[[nodiscard]] Traffic denoiser_traffic(const Plan& plan, const RankPlan& rank, const models::Model& model);
/// Elements that a rank gets from others for each prompt: pieces of weights.
[[nodiscard]] double prompt_traffic(const Plan& plan, const RankPlan& rank, const models::Model& model);

}  // namespace xdit::parallel
