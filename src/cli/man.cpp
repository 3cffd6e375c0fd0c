#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "cli/commands.h"
#include "cli/console.h"
#include "config/settings.h"
#include "config/values.h"

namespace xdit::cli {
namespace {

struct Exit {
  ExitCode code;
  const char* meaning;
};
constexpr std::array kExits{
    Exit{ExitCode::kOk, "Done."},
    Exit{ExitCode::kUsage, "The command line or the environment is wrong."},
    Exit{ExitCode::kProfile, "The profile is wrong."},
    Exit{ExitCode::kModel, "A model file is invalid or not supported."},
    Exit{ExitCode::kDevice, "There is no suitable GPU or driver."},
    Exit{ExitCode::kMemory, "Out of memory."},
    Exit{ExitCode::kRank, "A rank died or hung."},
    Exit{ExitCode::kOutput, "Output could not be written."},
    Exit{ExitCode::kPartial, "Part of a batch or sweep failed; pictures that were compared differ."},
    Exit{ExitCode::kInternal, "An internal error."},
    Exit{ExitCode::kInterrupted, "Interrupted (SIGINT)."},
    Exit{ExitCode::kTerminated, "Terminated (SIGTERM)."},
};

// Text as roff takes it literally, within a line.
std::string roff(std::string_view text) {
  std::string safe;
  for (const char c : text) {
    if (c == '\\')
      safe += "\\e";
    else if (c == '-')
      safe += "\\-";
    else if (c == '\'')
      safe += "\\(aq";
    else if (c == '|')
      safe += "|\\:";  // where a line may break
    else
      safe += c;
  }
  return safe.starts_with('.') ? "\\&" + safe : safe;
}

std::string bold(std::string_view text) {
  return "\\fB" + roff(text) + "\\fR";
}

std::string flag_entry(const Parser::Flag& flag) {
  const bool choices = flag.value.find('|') != std::string::npos;
  std::string names;
  for (const std::string& name : flag.names) names += (names.empty() ? "" : ", ") + bold(name);
  if (!flag.value.empty()) names += " \\fI" + roff(choices ? "NAME" : flag.value) + "\\fR";
  return fmt::format(".TP\n{}\n{}{}\n", names, roff(flag.meaning),
                     choices ? fmt::format(" ({})", roff(flag.value)) : "");
}

bool same(const Parser::Flag& a, const Parser::Flag& b) {
  return a.names == b.names && a.value == b.value && a.meaning == b.meaning;
}

// The command's own flags; those of `common` are named together.
std::string command_section(const Command& command, const std::vector<Parser::Flag>& common) {
  std::string text = fmt::format(".SS {}\n{}", roff(fmt::format("xdit-gen {}", command.name)), ".PP\n");
  text += fmt::format("{}{}{}.\n", bold("xdit-gen " + std::string(command.name)),
                      command.arguments.empty() ? "" : " \\fI" + roff(command.arguments) + "\\fR",
                      ": " + roff(command.meaning));
  std::size_t shared = 0;
  for (const Parser::Flag& flag : flags_of(command)) {
    if (flag.names.front() == "--help") continue;
    const bool known = std::any_of(common.begin(), common.end(),
                                   [&](const Parser::Flag& other) { return same(flag, other); });
    if (known)
      ++shared;
    else
      text += flag_entry(flag);
  }
  if (shared + 1 == common.size()) text += ".PP\nAlso the flags of OPTIONS.\n";
  return text;
}

std::string key_entry(const config::Key& key) {
  std::string text = fmt::format(".TP\n{}", bold(key.path));
  if (!key.flag.empty()) text += fmt::format(" ({})", bold(key.flag));
  return text + fmt::format("\n{} [{}{}{}]\n", roff(key.meaning), roff(key.type),
                            key.allowed.empty() ? "" : " ", roff(key.allowed));
}

std::string page() {
  const std::vector<Command> all = commands();
  const std::vector<Parser::Flag> common = flags_of(all.front());
  std::string text = fmt::format(
      ".TH XDIT\\-GEN 1 \"\" \"xdit\\-gen {}\" \"User Commands\"\n"
      ".ad l\n.SH NAME\nxdit\\-gen \\- pictures from prompts on all GPUs of a machine\n"
      ".SH SYNOPSIS\n.B xdit\\-gen\n[\\fBgenerate\\fR] \\fB\\-m\\fR \\fIMODEL\\fR \\fB\\-p\\fR "
      "\\fIPROMPT\\fR [\\fIflags\\fR]\n.br\n.B xdit\\-gen\n\\fIcommand\\fR [\\fIarguments\\fR] "
      "[\\fIflags\\fR]\n.SH DESCRIPTION\n"
      "Turns prompts into pictures with FLUX.1, SDXL and Stable Diffusion.\nWithout the name of a command it "
      "generates.\nPaths of the pictures go to standard output, everything else to standard error.\n"
      "In its exact modes, a picture has the same bytes on any number of GPUs.\n.SH OPTIONS\n",
      XDIT_VERSION);
  for (const Parser::Flag& flag : common) text += flag_entry(flag);
  text += fmt::format(
      ".TP\n{}\nthe version, alone\n.PP\nSwitches also as {}\\fINAME\\fR. Long flags also with _ for "
      "\\-.\n.SH COMMANDS\n",
      bold("--version"), bold("--no-"));
  for (auto command = all.begin() + 1; command != all.end(); ++command)
    text += command_section(*command, common);
  text +=
      ".SH PROFILE\nA YAML file of these keys, as \\fBsampling: {steps: 20}\\fR; \\fB\\-\\-set\\fR reaches "
      "each as \\fBsampling.steps=20\\fR.\n";
  for (const config::Key& key : config::keys()) text += key_entry(key);
  text +=
      ".SH ENVIRONMENT\nEach key as \\fBXDIT_GEN_SAMPLING__STEPS\\fR, each flag as "
      "\\fBXDIT_GEN_STEPS\\fR.\nA setting comes from, each winning over those before: built\\-in, the "
      "model\\(aqs default, the profile, the environment, \\fB\\-\\-from\\-image\\fR, a flag.\n.SH EXIT "
      "STATUS\n";
  for (const Exit& exit : kExits)
    text += fmt::format(".TP\n.B {}\n{}\n", static_cast<int>(exit.code), roff(exit.meaning));
  text += ".SH EXAMPLES\n.EX\n";
  for (const Command& command : all)
    for (const std::string& line : config::split(command.examples, '\n'))
      if (!line.empty()) text += roff(line) + "\n";
  return text + ".EE\n";
}

ExitCode man(const Call& /*call*/) {
  print(page());
  return ExitCode::kOk;
}

}  // namespace

Command man_command() {
  return {.name = "man",
          .arguments = "",
          .positionals = 0,
          .meaning = "the manual page, for man -l -",
          .examples = "xdit-gen man | man -l -\n",
          .add_flags = [](Parser& /*parser*/) {},
          .run = man};
}

}  // namespace xdit::cli
