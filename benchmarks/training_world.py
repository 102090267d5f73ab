"""Small random backbones, images and conversations on which `training.py` measures."""

import json
from pathlib import Path

import numpy as np

GRID, PATCH = 24, 14
WORDS = "what which where how many is are the a of on left right red blue circle square number"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_world(
    root: Path,
    vocabulary: int,
    n_samples: int,
    width: int = 128,
    encoder: tuple[int, int] = (4, 64),
) -> None:
    """An encoder of 24x24 patches, an LLM with so many embedding rows, JPEGs, and two JSON files.

    The LLM has 4 layers of the given width, the encoder (layers, width) of its own. Captions have
    8 to 24 words; dialogues 1 to 3 turns, questions 5 to 40 words, answers 1 to 40.
    """
    _make_encoder(root / "encoder", *encoder)
    _make_llm(root / "llm", vocabulary, width)
    _make_images(root / "images", n_samples)
    random = np.random.default_rng(0)

    def words(low: int, high: int) -> str:
        return " ".join(random.choice(WORDS.split(), int(random.integers(low, high + 1))))

    for name, many in (("pretrain", False), ("finetune", True)):
        rows = []
        for number in range(n_samples):
            turns = []
            for turn in range(int(random.integers(1, 4)) if many else 1):
                mark = "<image>\n" if turn == 0 else ""
                asked = mark + (words(5, 40) if many else "")
                turns.append({"from": "human", "value": asked})
                turns.append({"from": "gpt", "value": words(1, 40) if many else words(8, 24)})
            rows.append({"id": str(number), "image": f"{number}.jpg", "conversations": turns})
        (root / f"{name}.json").write_text(json.dumps(rows))


def _make_encoder(folder: Path, n_layers: int, width: int) -> None:
    import torch
    from transformers import CLIPVisionConfig, CLIPVisionModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    torch.manual_seed(0)
    side = GRID * PATCH
    config = CLIPVisionConfig(
        hidden_size=width, intermediate_size=4 * width, projection_dim=width,
        num_hidden_layers=n_layers, num_attention_heads=max(1, width // 32),
        image_size=side, patch_size=PATCH,
    )  # fmt: skip
    CLIPVisionModel(config).save_pretrained(folder)
    size = {"height": side, "width": side}
    CLIPImageProcessorPil(size=size, crop_size=size).save_pretrained(folder)


def _make_llm(folder: Path, vocabulary: int, width: int) -> None:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator([WORDS, "system user assistant\n"], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(folder)
    torch.manual_seed(1)
    config = Qwen2Config(
        hidden_size=width, intermediate_size=3 * width, num_hidden_layers=4,
        num_attention_heads=max(1, width // 32), num_key_value_heads=max(1, width // 32),
        vocab_size=vocabulary, tie_word_embeddings=True, max_position_embeddings=4096,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder)


def _make_images(folder: Path, n: int) -> None:
    from PIL import Image

    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(n):
        small = random.integers(0, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(small).resize((GRID * PATCH, GRID * PATCH)).save(folder / f"{number}.jpg")
