#include <fmt/format.h>

#include "cli/generate_options.h"
#include "config/values.h"

namespace xdit::cli {
namespace {

// What stands for a value in the help.
std::string_view placeholder(const config::Key& key) {
  if (key.type == config::kBoolean || key.allowed == "auto|true|false") return "";
  if (key.type == config::kText) return key.path == "negative_prompt" ? " TEXT" : " PATH";
  if (key.type == config::kTexts) return " TEXT";
  return key.type == config::kChoice ? " NAME" : " N";
}

std::string flag_line(const config::Key& key) {
  std::string names;
  for (const std::string& alias : config::split(key.aliases, ' '))
    if (alias.size() == 2) names = alias + ", ";
  names += fmt::format("{}{}", key.flag, placeholder(key));
  std::string allowed;
  if (key.type == config::kChoice || key.type == config::kInteger || key.type == config::kNumber)
    allowed = fmt::format(" ({})", key.allowed);
  return fmt::format("  {:<30} {}{}\n", names, key.meaning, allowed);
}

}  // namespace

std::string short_help() {
  return R"(xdit-gen: pictures from prompts, with FLUX.1

usage: xdit-gen [generate] -m MODEL -p PROMPT [flags]
       xdit-gen inspect FILE  |  xdit-gen list models|schedulers|devices

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

All flags: xdit-gen generate --help. A flag's setting can also come from a
profile or the environment: --steps, sampling: {steps: 20}, XDIT_GEN_STEPS.
)";
}

std::string generate_help() {
  std::string text = "usage: xdit-gen [generate] -m MODEL -p PROMPT [flags]\n\n";
  for (const config::Key& key : config::keys())
    if (!key.flag.empty()) text += flag_line(key);
  text += R"(
  --size WxH                     width and height
  --profile FILE                 settings as YAML
  --set KEY=VALUE                any key of a profile:
                                )";
  std::size_t column = 32;
  for (const config::Key& key : config::keys()) {
    if (!key.flag.empty()) continue;
    if (column + key.path.size() > 90) {
      text += "\n" + std::string(32, ' ');
      column = 32;
    }
    text += fmt::format(" {}", key.path);
    column += key.path.size() + 1;
  }
  text += R"(
  --from-image PNG               the settings that made a picture
  --dry-run                      prints all settings as a profile, and the plan
  --json                         one JSON object a picture on stdout
  --quiet, -v, --verbose         nothing but errors; more
  --progress auto|plain|off      bar on a terminal, lines elsewhere

Switches also as --no-NAME. Precedence: built-in < model's default < --profile <
XDIT_GEN_* in the environment < --from-image < flags.
)";
  return text;
}

}  // namespace xdit::cli
