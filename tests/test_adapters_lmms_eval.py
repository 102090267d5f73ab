"""lmms-eval runs a task of local rows on a vtc run; where it is not installed, that is said."""

import importlib
import io
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import TinyWorld
from PIL import Image

from vtc.adapters.likelihood import answer_loss
from vtc.model.assemble import assemble
from vtc.model.generation import generate_answers
from vtc.model.run import Run, load_run, save_run

GROUP = "lmms_eval.models"
QUESTIONS = (
    "What colour is the square ?",
    "two",
    "How many circles are there on the left ?",
    "Read the text . a b c",
    "How many ?",
)
POST = "\nAnswer in one word."
TASK = f"""
task: vtc_tiny
dataset_path: parquet
dataset_kwargs:
  data_files:
    test: {{rows}}
test_split: test
output_type: generate_until
doc_to_visual: !function tiny.pictures
doc_to_text: !function tiny.text
doc_to_target: "answer"
generation_kwargs:
  max_new_tokens: 6
  until: ["never"]
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
lmms_eval_specific_kwargs:
  default:
    post_prompt: {json.dumps(POST)}
"""
TINY = """
import io
from PIL import Image

def pictures(doc):
    return [Image.open(io.BytesIO(doc["image"]["bytes"]))] if doc["image"] else []

def text(doc, lmms_eval_specific_kwargs=None):
    return doc["question"] + (lmms_eval_specific_kwargs or {}).get("post_prompt", "")
"""


def test_the_entry_point_names_a_function():
    root = Path(__file__).parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, name = project["entry-points"][GROUP]["vtc"].split(":")
    assert callable(getattr(importlib.import_module(module), name))


@pytest.fixture(scope="module")
def run(tiny_world: TinyWorld, tmp_path_factory) -> Run:
    built = assemble(tiny_world.encoder, tiny_world.qwen, "tokenpacker", 4, seed=3)
    folder = tmp_path_factory.mktemp("runs") / "v4"
    save_run(
        folder, built.model, built.processor, encoder=built.encoder,
        llm=built.llm, stage="projector", weights="compressor", seed=3,
    )  # fmt: skip
    return load_run(folder)


def needs_lmms_eval() -> None:
    pytest.importorskip("lmms_eval", reason="lmms-eval is not installed: pip install lmms-eval")


def write_task(folder: Path, world: TinyWorld, run: Run) -> list[str]:
    """A task and its rows, one without an image; returns the run's own answers."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [*world.image_names[: len(QUESTIONS) - 1], None]
    shown = [Image.open(world.images / name).convert("RGB") if name else None for name in names]
    prompts = [
        run.processor.apply_chat_template(
            [{"role": "user", "content": f"{'<image>' + chr(10) if name else ''}{question}{POST}"}],
            add_generation_prompt=True,
            tokenize=False,
        )
        for name, question in zip(names, QUESTIONS, strict=True)
    ]
    found = generate_answers(run.model, run.processor, prompts, shown, 6, batch_size=1)
    answers = [answer.text for answer in found]
    rows = []
    for number, (name, question) in enumerate(zip(names, QUESTIONS, strict=True)):
        image = {"bytes": (world.images / name).read_bytes(), "path": name} if name else None
        answer = answers[number] if number % 2 == 0 else "something else"
        rows.append({"question": question, "answer": answer, "image": image})
    path = folder / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    (folder / "vtc_tiny.yaml").write_text(TASK.format(rows=path))
    (folder / "tiny.py").write_text(TINY)
    return answers


def test_lmms_eval_runs_its_tasks_on_a_run(tiny_world, run: Run, tmp_path):
    needs_lmms_eval()
    tasks, out = tmp_path / "tasks", tmp_path / "out"
    tasks.mkdir()
    answers = write_task(tasks, tiny_world, run)
    command = [sys.executable, "-m", "lmms_eval", "--model", "vtc", "--device", "cpu"]
    command += ["--model_args", f"run={run.folder},dtype=fp32", "--batch_size", "2"]
    command += ["--tasks", "vtc_tiny", "--include_path", str(tasks)]
    command += ["--log_samples", "--output_path", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    [log] = out.rglob("*_samples_vtc_tiny.jsonl")
    samples = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert [sample["filtered_resps"] for sample in samples] == answers
    assert [sample["doc_id"] for sample in samples] == list(range(len(QUESTIONS)))
    [results] = out.rglob("*_results.json")
    scores = json.loads(results.read_text(encoding="utf-8"))["results"]
    assert scores["vtc_tiny"]["exact_match,none"] == pytest.approx(3 / 5)


def test_arguments_that_vtc_does_not_take_are_named(run: Run):
    needs_lmms_eval()
    from vtc.adapters.lmms_eval_model import VtcModel

    with pytest.raises(ValueError, match="takes no argument 'colour'"):
        VtcModel(run=str(run.folder), colour="red")
    with pytest.raises(ValueError, match="needs the folder of a run"):
        VtcModel()
    with pytest.raises(ValueError, match="a number for --batch_size, not 'auto'"):
        VtcModel(run=str(run.folder), batch_size="auto")


def test_rounds_losses_and_pictures(tiny_world, run: Run):
    needs_lmms_eval()
    from lmms_eval.api.instance import Instance

    from vtc.adapters.lmms_eval_model import VtcModel

    model = VtcModel(pretrained=str(run.folder), device="cpu", dtype="fp32")
    image = (tiny_world.images / tiny_world.image_names[0]).read_bytes()
    model.task_dict["t"] = {"test": [{"question": "two"}]}
    asked = []

    def pictures(doc):
        return [Image.open(io.BytesIO(image))]

    def text(doc, previous_output, round_idx, previous_round_info):
        asked.append((list(previous_output), round_idx, previous_round_info))
        return None, f"{doc['question']} {round_idx}", round_idx == 2, previous_output, round_idx

    arguments = ("one", {"max_new_tokens": 3}, pictures, text, 0, "t", "test")
    about = {"task": "t", "doc_id": 0, "repeats": 1}
    [rounds] = model.generate_until_multi_round(
        [Instance("generate_until_multi_round", arguments, 0, about)]
    )
    assert len(rounds) == 2
    assert asked == [(rounds[:1], 1, None), (rounds, 2, 1)]
    losses = [
        Instance("loglikelihood", ("one", f" {word}", pictures, 0, "t", "test"), 0, about)
        for word in ("red", "green")
    ]
    losses.append(Instance("loglikelihood", ("", "red"), 0, about))
    found = model.loglikelihood(losses)
    shown = [Image.open(io.BytesIO(image)).convert("RGB")]
    assert found[:2] == [answer_loss(model.run, "one", shown, word) for word in ("red", "green")]
    assert found[2] == answer_loss(model.run, "", [], "red")
    video = Instance("generate_until", ("one", {}, lambda doc: ["a.mp4"], 0, "t", "test"), 0, about)
    with pytest.raises(TypeError, match="task t, document 0: model vtc sees images, not str"):
        model.generate_until([video])
