"""Tokenizer folders as people have them: older and newer files that name special and added tokens."""

from dataclasses import dataclass

CLIP_FILES, CLIP_SINGLE = "flux/tiny-dev/tokenizer", "flux/tiny-schnell/tokenizer"
T5_SINGLE, T5_FILES = "flux/tiny-dev/tokenizer_2", "flux/tiny-schnell/tokenizer_2"
START, END = "<|startoftext|>", "<|endoftext|>"
CLIP_PROMPTS = (
    "Hello, world! It's a <cat-toy>!! <|endoftext|> <|StartOfText|>",
    "a  <mask>  b<mask>c <mask>",
    "<|startoftext|>x<|ENDOFTEXT|> <Cat-Toy><cat-toy>é<É>",
    "!<|pad|>  <|pad|>!",
    "",
)
T5_PROMPTS = (
    "a lighthouse <extra_id_0> at dawn</s> <pad>!",
    "a  <extra_id_1>  b<extra_id_1>c <extra_id_2> d",
    "<mask> x  <mask>y ＜mask＞ <ﬁsh> <fish> ＜fish＞",  # noqa: RUF001
    "<unk></s><s> <0x41> <extra_id_9><extra_id_10><extra_id_99>",
    "",
)


@dataclass(frozen=True)
class Folder:
    """A folder of tests/data with other JSON files (None: without that file)."""

    name: str
    kind: str
    base: str
    files: dict[str, dict | None]
    prompts: tuple[str, ...]


def clip(name: str, files: dict, base: str = CLIP_FILES) -> Folder:
    none = {"tokenizer_config.json": None} | ({"special_tokens_map.json": None} if base == CLIP_FILES else {})
    return Folder(name, "clip", base, none | files, CLIP_PROMPTS)


def t5(name: str, files: dict, base: str = T5_FILES) -> Folder:
    none = {"tokenizer_config.json": None, "special_tokens_map.json": None}
    return Folder(name, "t5", base, none | files, T5_PROMPTS)


def token(content: str, **flags: object) -> dict:
    return {"content": content, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False} | flags


def typed(content: str, **flags: object) -> dict:
    return {"__type": "AddedToken"} | token(content, **flags)


CLIP_MAP = {name: token(END) for name in ("eos_token", "unk_token")} | {"bos_token": token(START)}
CLIP_CONFIG = {
    "add_prefix_space": False,
    "bos_token": typed(START),
    "do_lower_case": True,
    "eos_token": typed(END),
    "errors": "replace",
    "model_max_length": 77,
    "tokenizer_class": "CLIPTokenizer",
    "unk_token": typed(END),
}
SPECIAL = {"special": True}
FOLDERS = (
    clip("no-config", {}),
    clip("no-config-single", {}, CLIP_SINGLE),
    clip(  # stable-diffusion-xl's second tokenizer
        "sdxl-2",
        {
            "tokenizer_config.json": CLIP_CONFIG | {"pad_token": "!"},
            "special_tokens_map.json": CLIP_MAP | {"pad_token": "!"},
        },
    ),
    clip(
        "sdxl-1",
        {
            "tokenizer_config.json": CLIP_CONFIG | {"pad_token": END},
            "special_tokens_map.json": CLIP_MAP | {"pad_token": END},
        },
    ),
    clip("typed-config", {"tokenizer_config.json": CLIP_CONFIG | {"pad_token": typed("<|pad|>", rstrip=True)}}),
    clip("map-only", {"special_tokens_map.json": CLIP_MAP | {"mask_token": token("<mask>", lstrip=True)}}),
    clip(
        "textual-inversion",
        {
            "added_tokens.json": {"<cat-toy>": 674, "<mask>": 675},
            "tokenizer_config.json": CLIP_CONFIG | {"mask_token": "<mask>"},
            "special_tokens_map.json": CLIP_MAP | {"additional_special_tokens": ["<É>"]},
        },
    ),
    clip(
        "decoder",
        {
            "tokenizer_config.json": {
                "added_tokens_decoder": {
                    "673": token(END, normalized=False) | SPECIAL,
                    "672": token(START) | SPECIAL,
                    "0": token("!", normalized=False) | SPECIAL,
                    "680": token("<mask>", lstrip=True, rstrip=True, normalized=False),
                    "679": token("<Cat-Toy>"),
                },
                "additional_special_tokens": ["<|pad|>", "!"],
                "bos_token": START,
                "eos_token": END,
                "pad_token": "!",
                "unk_token": END,
            },
            "special_tokens_map.json": {"pad_token": "<|never|>"},
        },
    ),
    clip(
        "decoder-single",
        {
            "tokenizer_config.json": {
                "added_tokens_decoder": {"0": token("<mask>", rstrip=True)},
                "pad_token": "<|pad|>",
            }
        },
        CLIP_SINGLE,
    ),
    clip(
        "named",
        {
            "tokenizer_config.json": {
                "cat_token": "<cat-toy>",
                "extra_special_tokens": [typed("<mask>", normalized=False)],
            }
        },
    ),
    t5("no-config", {}),
    t5("no-config-single", {}, T5_SINGLE),
    t5("few-sentinels", {"tokenizer_config.json": {"extra_ids": 10, "additional_special_tokens": ["<mask>"]}}),
    t5(
        "sentinel-names",
        {
            "tokenizer_config.json": {"extra_ids": 2, "additional_special_tokens": ["<extra_id_0>", "<extra_id_1>"]},
            "special_tokens_map.json": {"eos_token": token("</s>", lstrip=True), "pad_token": "<pad>"},
        },
    ),
    t5(
        "decoder",
        {
            "tokenizer_config.json": {
                "added_tokens_decoder": {
                    "0": token("<pad>", normalized=False) | SPECIAL,
                    "1": token("</s>", normalized=False) | SPECIAL,
                    "2": token("<unk>", normalized=False) | SPECIAL,
                    "478": token("<extra_id_1>", lstrip=True, rstrip=True, normalized=False) | SPECIAL,
                    "479": token("<extra_id_0>", normalized=True) | SPECIAL,
                    "500": token("<mask>", rstrip=True),
                    "501": token("<ﬁsh>"),
                },
                "eos_token": "</s>",
                "extra_ids": 100,
                "pad_token": "<pad>",
                "unk_token": "<unk>",
            }
        },
        T5_SINGLE,
    ),
    t5(
        "other-names",
        {"special_tokens_map.json": {"eos_token": "<pad>", "pad_token": "</s>", "mask_token": token("<mask>")}},
    ),
    t5("older-single", {"added_tokens.json": {"<mask>": 480, "<fish>": 481}}, T5_SINGLE),
)
