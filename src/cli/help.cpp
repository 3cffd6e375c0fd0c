#include <fmt/format.h>

#include <set>
#include <utility>

#include "cli/generate_options.h"
#include "cli/help.h"
#include "config/settings.h"

namespace xdit::cli {
namespace {

constexpr std::size_t kColumn = 32;   // where meanings begin
constexpr std::size_t kColumns = 80;  // of a screen

// `text` behind `first`, in lines that begin with `indent` spaces: broken behind spaces and between choices.
std::string wrapped(std::string first, std::string_view text, std::size_t indent) {
  std::string all;
  while (first.size() + text.size() > kColumns) {
    std::size_t end = text.find_last_of(" |", kColumns - first.size() - 1);
    if (end == std::string_view::npos) break;
    all += first.append(text.substr(0, text[end] == ' ' ? end : end + 1)) + "\n";
    text.remove_prefix(end + 1);
    first.assign(indent, ' ');
  }
  return all.append(first).append(text) + "\n";
}

// "  -s, --seed N   seeds and ranges"
std::string flag_line(const Parser::Flag& flag) {
  const bool choices = flag.value.find('|') != std::string::npos;
  std::string names;
  for (const std::string& name : flag.names)
    if (name.size() == 2) names = name + ", ";
  names += flag.names.front();
  if (!flag.value.empty()) names += choices ? " NAME" : " " + flag.value;
  return wrapped(fmt::format("  {:<{}} ", names, kColumn - 3),
                 flag.meaning + (choices ? fmt::format(" ({})", flag.value) : ""), kColumn);
}

// Flags of generate that another command takes too.
std::set<std::string> of_generate(const Command& command) {
  std::set<std::string> names;
  for (const Parser::Flag& flag : flags_of(command)) names.insert(flag.names.front());
  const bool takes_them = command.name != generate_command().name && names.contains("--prompt");
  Parser parser;
  if (takes_them) add_generate_flags(parser);
  names.clear();
  for (const Parser::Flag& flag : parser.flags())
    if (flag.names.front() != "--help") names.insert(flag.names.front());
  return names;
}

}  // namespace

std::string short_help() {
  return R"(xdit-gen: pictures from prompts, with FLUX.1, SDXL and Stable Diffusion

usage: xdit-gen [generate] -m MODEL -p PROMPT [flags]
       xdit-gen batch prompts.jsonl -m MODEL -o "out/{index}.png" [--resume]
       xdit-gen plan | doctor | sweep run.yaml | worker | inspect FILE | ...

  -m, --model PATH     diffusers folder, .safetensors file, or owner/name
  -p, --prompt TEXT    what to draw; repeat it for several, - reads stdin
  --size 1024x1024     or -W, --width and -H, --height
  --steps N            also --guidance N; --cfg-scale N with -n TEXT
  -s, --seed 7,20-23   seeds and ranges, -1 draws one; --count N of each
  -o, --output PATH    template such as out/{seed}.png; --overwrite
  --device cuda|cpu    also --dtype bf16|fp16|fp32
  --profile FILE       settings as YAML; --set key=value reaches each of them
  --from-image PNG     makes that picture again
  --dry-run            prints all settings as a profile, and the plan
  --json, --quiet, -v  for programs, for silence, for details

xdit-gen -m configs/demo --device cpu -p "a fox"
xdit-gen -m models/FLUX.1-dev -p "a lighthouse" -s 1-4 -o "dawn/{seed}.png"
xdit-gen --profile run.yaml --steps 20 --dry-run

All flags: xdit-gen help all. A flag's setting can also come from a
profile or the environment: --steps, sampling: {steps: 20}, XDIT_GEN_STEPS.
)";
}

std::string help_of(const Command& command) {
  std::string text = fmt::format("usage: xdit-gen {}{}{} [flags]\n\n", command.name,
                                 command.arguments.empty() ? "" : " ", command.arguments);
  text += wrapped({}, command.meaning, 0) + "\n";
  const std::set<std::string> shared = of_generate(command);
  for (const Parser::Flag& flag : flags_of(command))
    if (!shared.contains(flag.names.front())) text += flag_line(flag);
  if (!shared.empty()) text += "\nAlso the flags of generate: xdit-gen help all\n";
  return text + fmt::format("\nSwitches also as --no-NAME.\n\n{}", command.examples);
}

std::string settings_help() {
  std::string text = "Keys that --set and profiles reach besides:\n";
  std::string line = " ";
  for (const config::Key& key : config::keys()) {
    if (!key.flag.empty()) continue;
    if (line.size() + key.path.size() > 79) text += std::exchange(line, " ") + "\n";
    line += fmt::format(" {}", key.path);
  }
  return text + line + R"(

Precedence: built-in < model's default < --profile < XDIT_GEN_* in the
environment < --from-image < flags.
)";
}

}  // namespace xdit::cli
