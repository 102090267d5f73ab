"""Fixtures for all tests: small real backbones, saved as ordinary folders, made once a session."""

import os

# Before torch loads: tests run several at a time on few cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples every time, and no time limit for one on cores that others use too.
settings.register_profile("vtc", deadline=None, derandomize=True)
settings.load_profile("vtc")

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} "
    "[/INST]{% else %} {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)
CORPUS = (
    "What colour is the square on the left ? red green blue yellow",
    "How many circles are there ? one two three four five",
    "Read the text . a b c d e f g 0 1 2 3 4 5 6 7 8 9",
    "system user assistant [INST] [/INST]",
)
IMAGE_SIZE = 48
PATCH = 8
GRID = IMAGE_SIZE // PATCH


@dataclass(frozen=True)
class TinyWorld:
    """Folders of small backbones: a 6x6 grid, four encoder layers, two LLM layers."""

    encoder: Path
    siglip: Path
    clip_pair: Path
    qwen: Path
    llama: Path
    images: Path
    image_names: tuple[str, ...]


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    """Untrained CLIP, SigLIP, Qwen2 (tied head, ChatML) and Llama (untied, BOS), and images."""
    root = tmp_path_factory.mktemp("tiny_world")
    world = TinyWorld(
        encoder=root / "encoder",
        siglip=root / "siglip",
        clip_pair=root / "clip-pair",
        qwen=root / "llm" / "tiny-qwen",
        llama=root / "llm" / "tiny-llama",
        images=root / "images",
        image_names=tuple(f"{number}.png" for number in range(6)),
    )
    _make_encoders(world)
    _make_llms(world)
    _make_images(world)
    return world


def _make_encoders(world: TinyWorld) -> None:
    import torch
    from transformers import (
        CLIPConfig,
        CLIPModel,
        CLIPTextConfig,
        CLIPVisionConfig,
        CLIPVisionModel,
        SiglipVisionConfig,
        SiglipVisionModel,
    )
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    shape = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "image_size": IMAGE_SIZE,
        "patch_size": PATCH,
    }
    torch.manual_seed(0)
    clip = CLIPVisionConfig(**shape, projection_dim=32)
    CLIPVisionModel(clip).save_pretrained(world.encoder)
    SiglipVisionModel(SiglipVisionConfig(**shape)).save_pretrained(world.siglip)
    text = CLIPTextConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
        vocab_size=50, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    pair = CLIPConfig(text_config=text.to_dict(), vision_config=clip.to_dict(), projection_dim=32)
    CLIPModel(pair).save_pretrained(world.clip_pair)
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    for folder in (world.encoder, world.clip_pair):
        CLIPImageProcessorPil(size=size, crop_size=size).save_pretrained(folder)
    SiglipImageProcessorPil(size=size).save_pretrained(world.siglip)


def _make_llms(world: TinyWorld) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    shape = {
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        # Wide enough that greedy answers of untrained weights differ from prompt to prompt.
        "initializer_range": 0.2,
    }
    torch.manual_seed(1)
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = make_tokenizer(special, CHATML, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.save_pretrained(world.qwen)
    # As with the real Qwen, more embedding rows than tokens: `<image>` needs no resize.
    qwen = Qwen2Config(
        **shape, vocab_size=len(tokenizer) + 8, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    Qwen2ForCausalLM(qwen).save_pretrained(world.qwen)
    tokenizer = make_tokenizer(["<unk>", "<s>", "</s>"], LLAMA, bos_token="<s>", eos_token="</s>")
    tokenizer.save_pretrained(world.llama)
    llama = LlamaConfig(
        **shape, vocab_size=len(tokenizer), tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    LlamaForCausalLM(llama).save_pretrained(world.llama)


def make_tokenizer(special: list[str], template: str, **named: str):
    """A byte-level BPE tokenizer trained on CORPUS, with a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(CORPUS, trainer)
    bos = named.get("bos_token")
    if bos:
        core.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, core.token_to_id(bos))]
        )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, **named)
    tokenizer.chat_template = template
    return tokenizer


def _make_images(world: TinyWorld) -> None:
    import numpy as np
    from PIL import Image

    world.images.mkdir()
    generator = np.random.default_rng(0)
    for name in world.image_names:
        pixels = generator.integers(0, 256, (IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(world.images / name)
