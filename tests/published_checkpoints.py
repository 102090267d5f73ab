"""Checkpoints of TokenPacker, QueCC, MQT and M3 as the original code writes them, small."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from conftest import GRID, IMAGE_SIZE, PATCH, TinyWorld
from published_projectors import M3, Mqt, TokenPacker, drawn, quecc
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaForCausalLM

WIDTH, TEXT, N = 32, 48, GRID * GRID
QUESTION = [7, 9, 5, 11]


class Given(NamedTuple):
    """What a published projector is given: levels [B, N, D], all of them, the question's vector."""

    single: Tensor
    several: Tensor
    asked: Tensor


class Kind(NamedTuple):
    """A published projector: its class, its place, its config, its V, and how it is called."""

    make: Callable[[], nn.Module]
    prefix: str
    config: dict
    tokens: int
    run: Callable[[nn.Module, Given], Tensor]
    trained: tuple[int, ...] | None = None


LLAVA = {"mm_projector_type": "mlp2x_gelu"}
KINDS = {
    "tokenpacker": Kind(
        lambda: TokenPacker(WIDTH, TEXT, 3), "model.mm_projector.", {**LLAVA, "scale_factor": 3}, 4,
        lambda module, given: module((given.single, given.several)),
    ),
    "quecc": Kind(
        lambda: quecc(WIDTH, TEXT, 2), "model.mm_projector.",
        {**LLAVA, "mm_vision_token_compression_type": "quecc",
         "mm_vision_token_compression_kernel_size": 2, "mm_vision_token_compression_stride": 2}, 9,
        lambda module, given: module((given.several, given.asked.unsqueeze(1), given.single)),
    ),
    "mqt": Kind(
        lambda: Mqt(WIDTH, TEXT, GRID), "model.query_abstractor.",
        {"mm_projector_type": "linear", "query_abstractor_type": "matry_query",
         "num_visual_tokens": "second_stage"}, 36,
        lambda module, given: module(given.single, 36), tuple(range(2, 37, 2)),
    ),
    "m3": Kind(
        lambda: M3(WIDTH, TEXT), "model.mm_projector.",
        {**LLAVA, "matryoshka_vis_token_scale": [1, 9, 36], "unfreeze_mm_vision_tower": True}, 36,
        lambda module, given: module(given.single), (1, 9, 36),
    ),
}  # fmt: skip


def deep_encoder(tiny_world: TinyWorld, folder: Path) -> Path:
    """A CLIP of 24 layers, of which some publications have the numbers as literals."""
    shutil.copytree(tiny_world.encoder, folder)
    torch.manual_seed(3)
    config = CLIPVisionConfig(
        hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=24, num_attention_heads=4,
        image_size=IMAGE_SIZE, patch_size=PATCH,
    )  # fmt: skip
    CLIPVisionModel(config).save_pretrained(folder)
    return folder


def checkpoints(tiny_world: TinyWorld, encoder: Path, root: Path) -> dict[str, Path]:
    """Folders as the original code writes them; of M3 with its own encoder, in two shards."""
    found = {}
    llm = LlamaForCausalLM.from_pretrained(tiny_world.llama)
    for name, kind in KINDS.items():
        found[name] = shutil.copytree(tiny_world.llama, root / name)
        write_config(found[name], encoder, kind.config)
        state = {k: v.clone() for k, v in llm.state_dict().items()}
        for key, tensor in drawn(kind.make()).state_dict().items():
            state[kind.prefix + key] = tensor.half() if key == "pos_embed" else tensor
        if name == "m3":
            for key, tensor in tuned(encoder).state_dict().items():
                state[f"model.vision_tower.vision_tower.vision_model.{key}"] = tensor
        names = sorted(state)
        for number, part in enumerate((names[::2], names[1::2])):
            file = found[name] / f"model-0000{number + 1}-of-00002.safetensors"
            save_file({k: state[k] for k in part}, file, metadata={"format": "pt"})
        (found[name] / "model.safetensors").unlink()
    return found


def write_config(folder: Path, encoder: Path, more: dict) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "architectures": ["LlavaLlamaForCausalLM"], "model_type": "llava_llama",
        "mm_vision_tower": str(encoder), "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch", "image_aspect_ratio": "pad", "mm_hidden_size": WIDTH,
        "mm_patch_merge_type": "flat", **more,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))


def tuned(encoder: Path) -> CLIPVisionModel:
    """The encoder that M3 trained along."""
    tower = CLIPVisionModel.from_pretrained(encoder).eval()
    with torch.no_grad():
        tower.get_parameter("encoder.layers.20.mlp.fc1.weight").mul_(3)
    return tower


def tokens_by_hand(name: str, encoder: Path, llama: Path, pixels: Tensor) -> Tensor:
    """The visual tokens that the publication's parts make of images."""
    tower = tuned(encoder) if name == "m3" else CLIPVisionModel.from_pretrained(encoder).eval()
    llm = LlamaForCausalLM.from_pretrained(llama).eval()
    kind = KINDS[name]
    with torch.no_grad():
        states = tower(pixels, output_hidden_states=True).hidden_states
        asked = llm.model(input_ids=torch.tensor([QUESTION])).last_hidden_state[:, -1]
        given = Given(
            states[-2][:, 1:], torch.cat([states[level][:, 1:] for level in (12, 16, 22, 23)], -1),
            asked.expand(len(pixels), -1),
        )  # fmt: skip
        return kind.run(drawn(kind.make()), given)
