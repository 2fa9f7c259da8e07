"""Make a language model of random weights that llama.cpp takes: 2 layers, with a tokenizer and a chat template.

    python benchmarks/tiny_gguf.py tiny.gguf [--context 512] [--seed 0]

It says nothing sensible, but a server in front of it is a real one: real tokens, real streams, real grammars, real
limits. The vocabulary is every byte, the printable ASCII characters and some common pieces of English words. Needs the
`gguf` package.
"""

from __future__ import annotations

import argparse
import string
from pathlib import Path

HIDDEN, FEED_FORWARD, LAYERS, HEADS = 64, 128, 2, 4
WORDS = ("the", "and", "her", "for", "that", "this", "with", "was", "from", "have", "which", "where", "page", "quote")
ENDINGS = ("ing", "ion", "ent", "ed", "es", "al", "ar", "st", "ng", "ou", "le", "co", "me", "ri", "ro", "ic", "ne")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}</s>\n{% endfor %}<|assistant|>\n"
)


def vocabulary() -> tuple[list[bytes], list[float], list[int]]:
    """Tokens, scores and types, as a SentencePiece model has them; longer pieces score higher, so they are merged."""
    from gguf import TokenType

    tokens, scores = ["<unk>", "<s>", "</s>"], [0.0, 0.0, 0.0]
    kinds = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL]
    for byte in range(256):
        tokens.append(f"<0x{byte:02X}>")
        scores.append(0.0)
        kinds.append(TokenType.BYTE)
    characters = [character for character in string.printable if character.isprintable() and character != " "]
    prefixes = [word[:end] for word in WORDS + ENDINGS for end in range(2, len(word) + 1)]
    plain = ["▁", *characters, *prefixes]
    spaced = [f"▁{piece}" for piece in [*string.ascii_lowercase, *prefixes]]
    for piece in dict.fromkeys([*plain, *spaced]):
        tokens.append(piece)
        scores.append(-100.0 + 10.0 * len(piece))
        kinds.append(TokenType.NORMAL)
    return [token.encode() for token in tokens], scores, [int(kind) for kind in kinds]


def write(path: Path, *, context_tokens: int, seed: int) -> None:
    """Write the model to `path`."""
    import gguf
    import numpy as np

    tokens, scores, kinds = vocabulary()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny-random")
    writer.add_context_length(context_tokens)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(kinds)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(CHAT_TEMPLATE)

    generator = np.random.default_rng(seed)

    def matrix(name: str, *shape: int, zero: slice = slice(0)) -> None:
        values = generator.standard_normal(shape, dtype=np.float32) * 0.3
        values[zero] = 0.0
        writer.add_tensor(name, values)

    def ones(name: str) -> None:
        writer.add_tensor(name, np.ones(HIDDEN, np.float32))

    matrix("token_embd.weight", len(tokens), HIDDEN)
    # The logit of single bytes is always 0, and some other's is higher: what it writes is text.
    matrix("output.weight", len(tokens), HIDDEN, zero=slice(3, 3 + 256))
    ones("output_norm.weight")
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        ones(f"{block}.attn_norm.weight")
        ones(f"{block}.ffn_norm.weight")
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrix(f"{block}.{part}.weight", HIDDEN, HIDDEN)
        matrix(f"{block}.ffn_gate.weight", FEED_FORWARD, HIDDEN)
        matrix(f"{block}.ffn_up.weight", FEED_FORWARD, HIDDEN)
        matrix(f"{block}.ffn_down.weight", HIDDEN, FEED_FORWARD)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> int:
    """Write the file and say how large it is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--context", type=int, default=512, help="tokens of the model's window")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    write(arguments.path, context_tokens=arguments.context, seed=arguments.seed)
    print(f"{arguments.path}: {arguments.path.stat().st_size / 1e6:.1f} MB, window of {arguments.context} tokens")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
