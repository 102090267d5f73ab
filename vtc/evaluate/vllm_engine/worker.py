"""The side of vLLM: answers token prompts with a model folder. It runs under vLLM's own Python.

No module of vtc is imported here: vLLM pins versions that vtc cannot share. Started as a script,
it says which vLLM it is, then takes a JSON object a line on stdin and gives one a line on stdout:

    {"folder", "dtype", "max_model_len"}                        -> {"ready": true}
    {"prompts", "shown", "images", "max_tokens", "ends"}        -> {"tokens": [[...], ...]}

`prompts` are token ids in which one image token stands for an image, `shown` the rows of the
tensor [n, V, D] in the safetensors file `images` that each prompt shows, in order. A failure is
answered by {"error": words}, and ends it, as the end of stdin does.
"""

import json
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vllm import LLM  # pyright: ignore[reportMissingImports]

RESERVED = 2 << 30
"""Bytes of the GPU left to vtc's encoder, compressor and features."""
CPU_CACHE = 1 << 30
"""Bytes of keys and values on the CPU, where VLLM_CPU_KVCACHE_SPACE does not say."""


def load(folder: str, dtype: Any, max_model_len: int) -> "LLM":
    """The LLM of a folder that `folder.write_folder` wrote; images come to it as visual tokens."""
    from vllm import LLM  # pyright: ignore[reportMissingImports]
    from vllm.platforms import current_platform  # pyright: ignore[reportMissingImports]

    on_cpu = current_platform.device_type == "cpu"
    memory: dict[str, Any] = _cpu_memory() if on_cpu else {"gpu_memory_utilization": _gpu_share()}
    return LLM(
        folder,
        dtype=dtype,
        max_model_len=max_model_len,
        # No image is encoded here: the folder has no encoder, and none is built.
        limit_mm_per_prompt={"image": 0},
        enable_mm_embeds=True,
        # Else a model's own sampling settings would be added to ours.
        generation_config="vllm",
        enforce_eager=on_cpu,
        seed=0,
        **memory,
    )


def generate(llm: "LLM", asked: dict[str, Any]) -> list[list[int]]:
    """The likeliest tokens behind each prompt, the one that ended it included."""
    from safetensors.torch import load_file
    from vllm import SamplingParams, TokensPrompt  # pyright: ignore[reportMissingImports]

    rows = load_file(asked["images"])["images"] if asked["images"] else []
    prompts = []
    for ids, shown in zip(asked["prompts"], asked["shown"], strict=True):
        prompt = TokensPrompt(prompt_token_ids=ids)
        if shown:
            prompt["multi_modal_data"] = {"image": [rows[row] for row in shown]}
        prompts.append(prompt)
    params = SamplingParams(
        temperature=0.0,
        max_tokens=asked["max_tokens"],
        stop_token_ids=asked["ends"],
        # Answers end at vtc's end tokens alone, whatever the folder's tokenizer calls its end.
        ignore_eos=True,
        detokenize=False,
    )
    outputs = llm.generate(prompts, params, use_tqdm=False)
    return [list(output.outputs[0].token_ids) for output in outputs]


def _gpu_share() -> float:
    import torch

    free, total = torch.cuda.mem_get_info()
    return max(0.05, min(0.92, (free - RESERVED) / total))


def _cpu_memory() -> dict[str, int]:
    return {} if "VLLM_CPU_KVCACHE_SPACE" in os.environ else {"kv_cache_memory_bytes": CPU_CACHE}


def main() -> None:
    """Answer lines of stdin until it ends."""
    # vLLM logs on stdout: that becomes stderr, and answers go where stdout went.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    # One process to end, where vLLM would start another for the model.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    llm = None

    def say(**what: Any) -> None:
        answers.write(json.dumps(what) + "\n")
        answers.flush()

    try:
        import vllm  # pyright: ignore[reportMissingImports]
        from vllm.platforms import current_platform  # pyright: ignore[reportMissingImports]

        say(vllm=vllm.__version__, device=current_platform.device_type)
        for line in sys.stdin:
            asked = json.loads(line)
            if "folder" in asked:
                llm = load(**asked)
                say(ready=True)
            else:
                assert llm is not None
                say(tokens=generate(llm, asked))
    except BaseException as error:
        words = str(error).strip() or type(error).__name__
        say(error=words.splitlines()[0])
        raise


if __name__ == "__main__":
    main()
