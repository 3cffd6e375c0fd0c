"""The demo models' tokenizers, trained on their prompts and saved as FLUX.1 and SDXL publish them."""

import io
import itertools
import json
from collections import Counter
from pathlib import Path

import regex
import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from transformers import CLIPTokenizer, T5TokenizerFast

CLIP_LENGTH = 77
T5_LENGTH = 32
START_TOKEN, END_TOKEN = "<|startoftext|>", "<|endoftext|>"
CLIP_WORD = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+")  # as in CLIP's tokenizer


def byte_alphabet() -> list[str]:
    """GPT-2's printable character of each byte, in the order of CLIP's vocabulary."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(len(others))]


def train_clip_bpe(texts: list[str], merge_count: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Byte-pair merges in the order of frequency; the texts are ASCII, so bytes are characters."""
    counts = Counter(word for text in texts for word in CLIP_WORD.findall(text.lower()))
    words = [([*word[:-1], word[-1] + "</w>"], count) for word, count in sorted(counts.items())]
    merges = []
    for _ in range(merge_count):
        pairs: Counter[tuple[str, str]] = Counter()
        for pieces, count in words:
            for pair in itertools.pairwise(pieces):
                pairs[pair] += count
        if not pairs:
            break
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        for pieces, _count in words:
            i = 0
            while i + 1 < len(pieces):
                if (pieces[i], pieces[i + 1]) == best:
                    pieces[i:i + 2] = [best[0] + best[1]]
                i += 1
    letters = byte_alphabet()
    pieces = [*letters, *(c + "</w>" for c in letters), *dict.fromkeys(a + b for a, b in merges),
              START_TOKEN, END_TOKEN]
    return {piece: i for i, piece in enumerate(pieces)}, merges


def save_clip(texts: list[str], folder: Path, merge_count: int = 800, pad_token: str = END_TOKEN) -> CLIPTokenizer:
    vocabulary, merges = train_clip_bpe(texts, merge_count)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges), encoding="utf-8")
    special = {"bos_token": START_TOKEN, "eos_token": END_TOKEN, "unk_token": END_TOKEN, "pad_token": pad_token}
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(
        {"tokenizer_class": "CLIPTokenizer", "model_max_length": CLIP_LENGTH, "do_lower_case": True,
         "add_prefix_space": False, **special}, indent=2) + "\n")
    return CLIPTokenizer.from_pretrained(folder)


def save_t5(texts: list[str], folder: Path, vocabulary_size: int = 1200) -> T5TokenizerFast:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=model, model_type="unigram", vocab_size=vocabulary_size,
        normalization_rule_name="nmt_nfkc", pad_id=0, eos_id=1, unk_id=2, bos_id=-1, pad_piece="<pad>",
        character_coverage=1.0, required_chars="".join(map(chr, range(33, 127))), num_threads=1,
        hard_vocab_limit=False, minloglevel=1)
    parsed = sentencepiece_model_pb2.ModelProto.FromString(model.getvalue())
    tokenizer = T5TokenizerFast(
        vocab=[(piece.piece, piece.score) for piece in parsed.pieces],
        _spm_precompiled_charsmap=parsed.normalizer_spec.precompiled_charsmap,
        extra_ids=0, model_max_length=T5_LENGTH)
    tokenizer.save_pretrained(folder)
    return T5TokenizerFast.from_pretrained(folder)
