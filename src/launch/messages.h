#pragma once
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "output/report.h"
#include "pipeline/rank.h"

/// What goes over a Channel. Rank to launcher: {"begin": phase, "steps": n}, {"advance": done},
/// {"finish": true}, {"picture": index}, {"failed": index, "error": ...}, {"warn": line}, {} (alive), and at
/// the end of a task {"report": ...} or {"error": ...}, with {"after": rank} where it only follows from that
/// rank's, which is told earlier; then {"idle": whether it holds the networks} unless the task was the last.
/// Launcher to rank: {"task": ...} (task.h), with {"forget": true} for a rank that is to load all again;
/// {"stop": signal}, which is for the task before.
namespace xdit::output {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Phase, name, start_s, end_s, rank, picture, step)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(RankUse, rank, device, device_id, held_s, peak_device_bytes,
                                   peak_host_bytes, bytes_read, bytes_sent, waited_s, host_bound_s)

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

/// Passes on what a listener is told; false for another message.
inline bool pass_on(const nlohmann::json& message, pipeline::Listener& listener) {
  if (const auto begin = message.find("begin"); begin != message.end())
    listener.begin(begin->get<std::string>(), message.at("steps").get<std::int64_t>());
  else if (const auto done = message.find("advance"); done != message.end())
    listener.advance(done->get<std::int64_t>());
  else if (message.contains("finish"))
    listener.finish();
  else if (const auto picture = message.find("picture"); picture != message.end())
    listener.picture(picture->get<std::int64_t>());
  else if (const auto line = message.find("warn"); line != message.end())
    listener.warn(line->get<std::string>());
  else if (const auto failed = message.find("failed"); failed != message.end())
    listener.failed(failed->get<std::int64_t>(), error_of(message));
  else
    return false;
  return true;
}

}  // namespace xdit::launch
