"""Writes a whisper.cpp model from a CTranslate2 one, so that the binding is tested with weights that are there.

Formats: CTranslate2's `model_spec.py` (binary version 6), whisper.cpp's `models/convert-pt-to-ggml.py`. Takes float16
models only, which the catalogue's are.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from sipserver.speech.mel import filters

_FLOAT16 = 4
_MAGIC = 0x67676D6C
_ORDINARY_TOKENS = 50_256

Arrays = dict[str, NDArray[Any]]


def convert(source: Path, target: Path) -> None:
    """source: a folder with model.bin and tokenizer.json; target: the .bin file to write."""
    arrays = _read(source / "model.bin")
    vocabulary = _vocabulary(source / "tokenizer.json")
    with target.open("wb") as file:
        _write_head(file, arrays, vocabulary)
        for name, array in _renamed(arrays):
            _write_tensor(file, name, array)


def _read(path: Path) -> Arrays:
    arrays: Arrays = {}
    with path.open("rb") as file:

        def take(form: str) -> tuple[Any, ...]:
            return struct.unpack(form, file.read(struct.calcsize(form)))

        def text() -> str:
            (length,) = take("<H")
            return file.read(length)[:-1].decode()

        take("<I")
        text()
        take("<I")
        (count,) = take("<I")
        for _ in range(count):
            name = text()
            (rank,) = take("<B")
            shape = take(f"<{rank}I")
            kind, size = take("<BI")
            payload = file.read(size)
            arrays[name] = np.frombuffer(payload, np.float16 if kind == _FLOAT16 else np.uint8)
            if kind == _FLOAT16:
                arrays[name] = arrays[name].reshape(shape)
    return arrays


def _vocabulary(path: Path) -> list[bytes]:
    """Ordinary tokens as bytes. GPT-2 writes bytes that are no printable characters as characters from U+0100 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    byte_of = {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}
    numbers = json.loads(path.read_text(encoding="utf-8"))["model"]["vocab"]
    tokens = sorted((number, token) for token, number in numbers.items() if number < _ORDINARY_TOKENS)
    return [bytes(byte_of[character] for character in token) for _, token in tokens]


def _layers(arrays: Arrays, side: str) -> int:
    return sum(name.startswith(f"{side}/layer_") and name.endswith("ffn/linear_0/weight") for name in arrays)


def _write_head(file: BinaryIO, arrays: Arrays, vocabulary: list[bytes]) -> None:
    tokens, width = arrays["decoder/embeddings/weight"].shape
    heads = width // 64
    audio = (len(arrays["encoder/position_encodings/encodings"]), width, heads, _layers(arrays, "encoder"))
    words = (len(arrays["decoder/position_encodings/encodings"]), width, heads, _layers(arrays, "decoder"))
    bands = filters(80)
    file.write(struct.pack("<12i", _MAGIC, tokens, *audio, *words, len(bands), 1))
    file.write(struct.pack("<2i", *bands.shape) + bands.tobytes())
    file.write(struct.pack("<i", len(vocabulary)))
    for token in vocabulary:
        file.write(struct.pack("<i", len(token)) + token)


def _renamed(arrays: Arrays) -> Iterator[tuple[str, NDArray[Any]]]:
    """OpenAI's names, with CTranslate2's joined projections taken apart again."""
    yield "encoder.positional_embedding", arrays["encoder/position_encodings/encodings"]
    yield "decoder.positional_embedding", arrays["decoder/position_encodings/encodings"]
    yield "decoder.token_embedding.weight", arrays["decoder/embeddings/weight"]
    yield from _pair(arrays, "encoder/layer_norm", "encoder.ln_post", "gamma", "beta")
    yield from _pair(arrays, "decoder/layer_norm", "decoder.ln", "gamma", "beta")
    for conv in ("conv1", "conv2"):
        yield f"encoder.{conv}.weight", arrays[f"encoder/{conv}/weight"]
        yield f"encoder.{conv}.bias", arrays[f"encoder/{conv}/bias"][:, None]
    for side in ("encoder", "decoder"):
        for number in range(_layers(arrays, side)):
            old, new = f"{side}/layer_{number}", f"{side}.blocks.{number}"
            yield from _attention(arrays, f"{old}/self_attention", f"{new}.attn", (("query", "key", "value"), ("out",)))
            if side == "decoder":
                parts = (("query",), ("key", "value"), ("out",))
                yield from _attention(arrays, f"{old}/attention", f"{new}.cross_attn", parts)
            yield from _pair(arrays, f"{old}/ffn/layer_norm", f"{new}.mlp_ln", "gamma", "beta")
            yield from _pair(arrays, f"{old}/ffn/linear_0", f"{new}.mlp.0", "weight", "bias")
            yield from _pair(arrays, f"{old}/ffn/linear_1", f"{new}.mlp.2", "weight", "bias")


def _pair(arrays: Arrays, old: str, new: str, weight: str, bias: str) -> Iterator[tuple[str, NDArray[Any]]]:
    yield f"{new}.weight", arrays[f"{old}/{weight}"]
    yield f"{new}.bias", arrays[f"{old}/{bias}"]


def _attention(
    arrays: Arrays, old: str, new: str, groups: tuple[tuple[str, ...], ...]
) -> Iterator[tuple[str, NDArray[Any]]]:
    yield from _pair(arrays, f"{old}/layer_norm", f"{new}_ln", "gamma", "beta")
    for number, names in enumerate(groups):
        weights = np.split(arrays[f"{old}/linear_{number}/weight"], len(names))
        biases = np.split(arrays[f"{old}/linear_{number}/bias"], len(names))
        for name, weight, bias in zip(names, weights, biases, strict=True):
            yield f"{new}.{name}.weight", weight
            if name != "key":
                yield f"{new}.{name}.bias", bias


def _write_tensor(file: BinaryIO, name: str, array: NDArray[Any]) -> None:
    half = array.ndim > 1 and not name.endswith((".bias", "positional_embedding"))
    payload = array.astype(np.float16 if half else np.float32)
    file.write(struct.pack("<3i", payload.ndim, len(name), int(half)))
    file.write(struct.pack(f"<{payload.ndim}i", *reversed(payload.shape)) + name.encode() + payload.tobytes())
