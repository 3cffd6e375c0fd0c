#pragma once
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "output/report.h"

/// What goes over a Channel. Rank to launcher: {"begin": phase, "steps": n}, {"advance": done},
/// {"finish": true}, {"picture": index}, {"failed": index, "error": ...}, {"warn": line}, {} (alive), and at
/// the end {"report": ...} or {"error": ...}, with {"after": rank} where it only follows from that rank's,
/// which is told earlier.
/// Launcher to rank: {"stop": signal}.
namespace xdit::output {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Phase, name, start_s, end_s, rank, picture, step)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(RankUse, rank, device, device_id, held_s, peak_device_bytes,
                                   peak_host_bytes, bytes_read, bytes_sent)

}  // namespace xdit::output

namespace xdit::launch {

[[nodiscard]] inline nlohmann::json report_message(const output::Report& report) {
  return {{"report", {{"phases", report.phases}, {"ranks", report.ranks}}}};
}

/// Appends a rank's phases and use.
inline void add_report(const nlohmann::json& part, output::Report& report) {
  for (const nlohmann::json& phase : part.at("phases")) report.phases.push_back(phase.get<output::Phase>());
  for (const nlohmann::json& use : part.at("ranks")) report.ranks.push_back(use.get<output::RankUse>());
}

[[nodiscard]] inline nlohmann::json error_message(const Error& error) {
  return {{"error",
           {{"code", static_cast<int>(error.code())},
            {"message", error.message()},
            {"where", error.where()},
            {"fix", error.fix()}}}};
}

/// Of an error_message.
[[nodiscard]] inline Error error_of(const nlohmann::json& message) {
  const nlohmann::json& error = message.at("error");
  return {static_cast<ExitCode>(error.at("code").get<int>()), error.at("message").get<std::string>(),
          error.at("where").get<std::string>(), error.at("fix").get<std::string>()};
}

}  // namespace xdit::launch
