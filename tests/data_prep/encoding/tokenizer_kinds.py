"""Small tokenizers in the shapes of those of well-known models: DeepSeek, Llama, Gemma and Qwen."""

import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

TEXTS = ["The first line\nand the second line", "naïve café \U0001f600", "a third  document, and the last one", "1234"]
WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+"
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
# The end token of each tokenizer, and the file that names it.
END_TOKENS = {
    "deepseek": ("<｜end▁of▁sentence｜>", "tokenizer_config.json"),
    "llama2": ("</s>", "tokenizer_config.json"),
    "llama3": ("<|end_of_text|>", "tokenizer_config.json"),
    "gemma": ("<eos>", "special_tokens_map.json"),
    "qwen": ("<|im_end|>", "tokenizer_config.json"),
}


def write_tokenizer(folder: Path, kind: str) -> Path:
    """Train a tokenizer on TEXTS and write it as its model's authors publish theirs."""
    tokenizer = {"llama2": _sentencepiece, "gemma": _sentencepiece}.get(kind, _byte_level)(kind)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    end_token, file = END_TOKENS[kind]
    content = {"__type": "AddedToken", "content": end_token, "special": True} if kind == "deepseek" else end_token
    settings = {"tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast"}}
    settings.setdefault(file, {})["eos_token"] = content
    for name, values in settings.items():
        (folder / name).write_text(json.dumps(values))
    return folder


def _byte_level(kind: str) -> dict:
    """Byte-level BPE with a pattern of its own; Qwen normalizes, Llama 3 looks whole words up first."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=kind == "llama3"))
    tokenizer.normalizer = normalizers.NFC() if kind == "qwen" else None
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = {
        "deepseek": ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"],
        "llama3": [],
        "qwen": [],
    }[kind]  # those that come first stand in the model's vocabulary too
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=special,
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    if kind == "llama3":
        tokenizer.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>"])
    if kind == "qwen":
        tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
        tokenizer.add_tokens([AddedToken("<tool_call>", special=False)])
    return json.loads(tokenizer.to_str())


def _sentencepiece(kind: str) -> dict:
    """BPE of characters, spaces written as U+2581, with bytes as the last resort."""
    special = {"llama2": ["<unk>", "<s>", "</s>"], "gemma": ["<pad>", "<eos>", "<bos>", "<unk>"]}[kind]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    steps = [normalizers.Replace(" ", "▁")]
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), *steps] if kind == "llama2" else steps,
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        + ([decoders.Strip(" ", 1, 0)] if kind == "llama2" else [])
    )
    trainer = trainers.BpeTrainer(
        vocab_size=120,
        limit_alphabet=25,
        special_tokens=special + BYTES,
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    description = json.loads(tokenizer.to_str())
    description["added_tokens"] = [token for token in description["added_tokens"] if token["content"] in special]
    return description
