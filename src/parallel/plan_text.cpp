#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>

#include "parallel/plan.h"
#include "parallel/plan_parameters.h"
#include "parallel/plan_weights.h"

namespace xdit::parallel {
namespace {

double gigabytes(std::uint64_t bytes) {
  return static_cast<double>(bytes) / 1e9;
}

std::string range_text(const Range& range) {
  return range.count == 0 ? "none" : fmt::format("{}-{}", range.first, range.first + range.count - 1);
}

std::string ranges_text(const std::vector<Range>& ranges) {
  std::vector<std::string> texts;
  texts.reserve(ranges.size());
  for (const Range& range : ranges) texts.push_back(range_text(range));
  return fmt::format("{}", fmt::join(texts, ","));
}

std::string tokens_text(const Plan& plan, const RankPlan& rank, const models::Shape& shape) {
  if (!shape.by_rows)
    return fmt::format("text tokens {}, image tokens {}", range_text(rank.text_tokens),
                       ranges_text(rank.image_tokens));
  const Range& tokens = rank.image_tokens.front();
  return fmt::format("rows {}",
                     range_text({tokens.first / plan.image_columns, tokens.count / plan.image_columns}));
}

// Bytes that a rank reads of each file of a network.
std::map<std::int32_t, std::uint64_t> file_reads(const Plan& plan, const RankPlan& rank,
                                                 const models::Network& network) {
  std::map<std::string, const weights::Placed*> placed;
  for (const weights::Placed& one : network.placed) placed[one.name] = &one;
  std::map<std::int32_t, std::uint64_t> bytes;
  if (placed.empty()) return bytes;
  const std::vector<Range> ranges = reads_of(plan, rank, network);
  for (const HeldParameter& held : held_by(plan, rank, network))
    for (const Range& range : ranges) {
      const Range part = comm::overlap(range, {held.offset, held.elements()});
      if (part.count == 0) continue;
      for (const weights::Piece& piece :
           pieces_of(held, *placed.at(held.name), {part.first - held.offset, part.count}))
        bytes[piece.file] += piece.bytes;
    }
  return bytes;
}

const char* transport_text(const Plan& plan, const config::RunSpec& spec) {
  const bool direct = plan.transport == config::Transport::kPeer;
  if (spec.runtime.device == config::Device::kCpu)
    return direct ? "shared memory" : "shared memory, of which each rank has copies";
  return direct ? "peer memory" : "pinned host memory";
}

// What is spread beside blocks.
std::string pieces_text(const models::Model& model) {
  std::string text;
  for (const weights::Parameter& parameter : denoiser_of(model).parameters)
    if (parameter.piece_rows > 0) text += fmt::format(" and {}", parameter.name);
  return text;
}

std::string rank_text(const Plan& plan, const RankPlan& rank, const models::Model& model) {
  std::string text;
  if (rank.pictures.count == 0)
    text += rank.networks.empty() ? "  idle\n" : "  no pictures, but a share of the weights\n";
  else
    text += fmt::format("  pictures {}, {}, blocks {}, decodes latent rows {}\n", range_text(rank.pictures),
                        tokens_text(plan, rank, model.shape), range_text(rank.blocks),
                        range_text(rank.latent_rows));
  for (const models::Network& network : model.networks) {
    const auto found = rank.networks.find(network.component);
    if (found == rank.networks.end()) continue;
    text += fmt::format("  {}: reads {:.3f} GB, holds {:.3f} GB\n", network.component,
                        gigabytes(found->second.file), gigabytes(found->second.memory));
    for (const auto& [file, bytes] : file_reads(plan, rank, network))
      text += fmt::format("    {:.3f} GB of {}\n", gigabytes(bytes),
                          model.files.components.at(network.component)
                              .table.files.at(static_cast<std::size_t>(file))
                              .filename()
                              .string());
  }
  if (!rank.networks.empty())
    text += fmt::format("  predicted peak {:.2f} GB\n", gigabytes(rank.peak_memory));
  return text;
}

}  // namespace

std::string to_text(const Plan& plan, const models::Model& model, const Machine& machine,
                    const config::RunSpec& spec) {
  const Mesh& m = plan.mesh;
  std::string text = fmt::format(
      "mesh: data {} x cfg {} x pipefusion {} x ring {} x gather {} x ulysses {} x tensor {} = {} rank{}\n"
      "tokens: {} text + {} image\n",
      m.data, m.cfg, m.pipefusion, m.ring, m.gather, m.ulysses, m.tensor, m.size(), m.size() == 1 ? "" : "s",
      plan.text_tokens, plan.image_tokens);
  if (plan.exchanges()) text += fmt::format("transport: {}\n", transport_text(plan, spec));
  if (plan.quantised) text += "weights: the blocks' matrices in fp8, quantised when they are read\n";
  if (plan.shard > 1)
    text += fmt::format("weights: each block{} spread over {} ranks\n", pieces_text(model), plan.shard);
  for (const std::string& note : plan.notes) text += note + "\n";
  for (const RankPlan& rank : plan.ranks) {
    const bool on_cpu = spec.runtime.device == config::Device::kCpu;
    text += fmt::format("rank {} on {}:\n", rank.rank,
                        on_cpu ? "cpu"
                               : fmt::format("GPU {} ({})", rank.device,
                                             machine.gpus[static_cast<std::size_t>(rank.device)].name));
    text += rank_text(plan, rank, model);
  }
  return text;
}

}  // namespace xdit::parallel
