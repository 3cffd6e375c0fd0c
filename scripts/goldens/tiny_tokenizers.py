"""Small CLIP and T5 tokenizers in the published file layouts, trained on sentences.txt."""

import base64
import io
import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import sentencepiece
import sentencepiece.sentencepiece_model_pb2 as sentencepiece_model
from transformers import CLIPTokenizer

SENTENCES = (Path(__file__).parent / "sentences.txt").read_text(encoding="utf-8").splitlines()
T5_EXTRA_IDS = 100


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def special(content: str, normalized: bool) -> dict:
    """One added token as tokenizer_config.json writes it."""
    return {"content": content, "lstrip": False, "normalized": normalized, "rstrip": False, "single_word": False}


def clip_byte_letters() -> list[str]:
    """The 256 letters of byte-level BPE in the published order: printable bytes first, then the shifted rest."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(256 - len(printable))]


def train_clip(merge_count: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges in CLIP's order: bytes, bytes with </w>, merges, <|startoftext|>, <|endoftext|>.

    By hand, because the trainer of `tokenizers` breaks ties differently in each run.
    """
    prototype = CLIPTokenizer(vocab={"<|startoftext|>": 0, "<|endoftext|>": 1}, merges=[]).backend_tokenizer
    words = Counter()
    for sentence in SENTENCES:
        for word, _ in prototype.pre_tokenizer.pre_tokenize_str(prototype.normalizer.normalize_str(sentence)):
            words[(*word[:-1], word[-1] + "</w>")] += 1
    merges = []
    while len(merges) < merge_count:
        pairs = Counter()
        for word, count in words.items():
            for pair in pairwise(word):
                pairs[pair] += count
        merges.append(min(pairs, key=lambda pair: (-pairs[pair], pair)))
        words = Counter({merged(word, merges[-1]): count for word, count in words.items()})
    letters = clip_byte_letters()
    pieces = letters + [letter + "</w>" for letter in letters] + [a + b for a, b in merges]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    return {piece: i for i, piece in enumerate(pieces)}, merges


def merged(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """The word with each occurrence of the pair joined, from the left."""
    pieces = []
    for piece in word:
        if pieces and (pieces[-1], piece) == pair:
            pieces[-1] += piece
        else:
            pieces.append(piece)
    return tuple(pieces)


def write_clip(folder: Path, merge_count: int, single_file: bool, pad: str = "<|endoftext|>") -> int:
    """vocab.json and merges.txt, or tokenizer.json alone, with their configs. Returns the vocabulary's size."""
    vocab, merges = train_clip(merge_count)
    start, end = "<|startoftext|>", "<|endoftext|>"
    names = {"bos_token": start, "eos_token": end, "unk_token": end, "pad_token": pad}
    config = {
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(vocab[start]): special(start, normalized=True) | {"special": True},
            str(vocab[end]): special(end, normalized=False) | {"special": True},
        }
        | ({} if pad == end else {str(vocab[pad]): special(pad, normalized=False) | {"special": True}}),
        **names,
        "clean_up_tokenization_spaces": True,
        "do_lower_case": True,
        "errors": "replace",
        "model_max_length": 77,
        "tokenizer_class": "CLIPTokenizer",
    }
    write_json(folder / "tokenizer_config.json", config)
    if single_file:
        CLIPTokenizer(vocab=vocab, merges=merges, **names).backend_tokenizer.save(str(folder / "tokenizer.json"))
        return len(vocab)
    specials = {k: special(v, normalized=k != "unk_token") for k, v in names.items()} | {"pad_token": pad}
    write_json(folder / "special_tokens_map.json", specials)
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(vocab)


def train_t5(piece_count: int) -> bytes:
    """A sentencepiece Unigram model with nmt_nfkc and T5's ids: <pad> 0, </s> 1, <unk> 2."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES),
        model_writer=model,
        model_type="unigram",
        vocab_size=piece_count,
        normalization_rule_name="nmt_nfkc",
        character_coverage=1.0,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def t5_tokenizer_json(spiece: bytes) -> dict:
    """tokenizer.json as published with FLUX.1 (written by transformers 4's T5Converter)."""
    model = sentencepiece_model.ModelProto.FromString(spiece)
    vocab = [[p.piece, p.score] for p in model.pieces]
    sentinels = [f"<extra_id_{i}>" for i in range(T5_EXTRA_IDS - 1, -1, -1)]
    vocab += [[piece, 0.0] for piece in sentinels]
    ids = {piece: i for i, (piece, _) in enumerate(vocab)}
    charsmap = base64.b64encode(model.normalizer_spec.precompiled_charsmap).decode()
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}

    def template(*texts: str) -> list:
        end = {"SpecialToken": {"id": "</s>", "type_id": 0}}
        return [x for text in texts for x in ({"Sequence": {"id": text, "type_id": 0}}, end)]

    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": ids[piece]} | special(piece, normalized=False) | {"special": True}
            for piece in ["<pad>", "</s>", "<unk>", *sentinels]
        ],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Precompiled", "precompiled_charsmap": charsmap},
                {"type": "Strip", "strip_left": False, "strip_right": True},
                {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"},
            ],
        },
        "pre_tokenizer": metaspace,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": template("A"),
            "pair": template("A", "B"),
            "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}},
        },
        "decoder": metaspace,
        "model": {"type": "Unigram", "unk_id": 2, "vocab": vocab, "byte_fallback": False},
    }


def write_t5(folder: Path, piece_count: int, single_file: bool) -> int:
    """tokenizer.json, or spiece.model alone, with their configs. Returns the count of ids, sentinels included."""
    spiece = train_t5(piece_count)
    document = t5_tokenizer_json(spiece)
    names = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    sentinels = [f"<extra_id_{i}>" for i in range(T5_EXTRA_IDS)]
    added = {str(t["id"]): {k: v for k, v in t.items() if k != "id"} for t in document["added_tokens"]}
    config = {
        **({"added_tokens_decoder": added} if single_file else {}),
        "additional_special_tokens": sentinels,
        "clean_up_tokenization_spaces": True,
        **names,
        "extra_ids": T5_EXTRA_IDS,
        "legacy": True,
        "model_max_length": 512,
        "sp_model_kwargs": {},
        "tokenizer_class": "T5Tokenizer",
    }
    write_json(folder / "tokenizer_config.json", config)
    specials = {"additional_special_tokens": sentinels} | {k: special(v, normalized=False) for k, v in names.items()}
    write_json(folder / "special_tokens_map.json", specials)
    if single_file:
        (folder / "tokenizer.json").write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    else:
        (folder / "spiece.model").write_bytes(spiece)
    return len(document["model"]["vocab"])
