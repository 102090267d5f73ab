"""easy-VQA as LLaVA conversations and a reasoning benchmark; its images stay where they are.

easy-VQA (github.com/vzhou842/easy-VQA, MIT): 64x64 images of one shape each, templated questions,
13 answers. `questions.json` holds [question, answer, image_id].

    python recipes/data/easy_vqa.py easy_vqa/ work/ [--limit IMAGES]

writes work/easy_vqa_pretrain.json (a caption an image, with the shape's region),
work/easy_vqa_finetune.json (all questions of an image as one conversation) and
work/easy_vqa.toml. The image root is the data set's folder.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path

SHAPES = ("circle", "rectangle", "triangle")


def read_images(folder: Path, split: str) -> dict[int, list[tuple[str, str]]]:
    """Questions and answers of every image of a split."""
    rows = json.loads((folder / split / "questions.json").read_text(encoding="utf-8"))
    images: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for question, answer, image in rows:
        images[image].append((question, answer))
    return dict(sorted(images.items()))


def caption(asked: list[tuple[str, str]]) -> str:
    """What the open questions about an image tell of its one shape, such as "a blue circle"."""
    colour, shape = "", "shape"
    for question, answer in asked:
        words = question.rstrip("?").split()
        if "color" in words:
            colour = answer
            # "what color is the circle?" names the shape.
            shape = words[-1] if words[-1] in SHAPES else shape
        elif words[0] == "what":
            shape = answer
            # "what is the blue shape?" names the colour.
            colour = words[-2] if words[:3] == ["what", "is", "the"] else colour
    return " ".join(filter(None, ("a", colour, shape)))


def conversation(turns: list[tuple[str, str]]) -> list[dict[str, str]]:
    """LLaVA turns; the image stands in the first."""
    made = []
    for number, (question, answer) in enumerate(turns):
        made.append({"from": "human", "value": ("" if number else "<image>\n") + question})
        made.append({"from": "gpt", "value": answer})
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="folder of the data set")
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--limit", type=int, default=None, help="training images to use")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    images = list(read_images(arguments.source, "train").items())[: arguments.limit]
    pretrain, finetune = [], []
    for image, asked in images:
        about = {"id": f"easy-{image}", "image": f"train/images/{image}.png"}
        told = caption(asked)
        pretrain.append(
            {
                **about,
                "conversations": conversation([("Describe the image.", told)]),
                "regions": [{"text": told, "x": 0.5, "y": 0.5}],
            }
        )
        finetune.append({**about, "conversations": conversation(asked)})
    for name, rows in (("pretrain", pretrain), ("finetune", finetune)):
        (arguments.out / f"easy_vqa_{name}.json").write_text(json.dumps(rows), encoding="utf-8")
    source = arguments.source.resolve()
    (arguments.out / "easy_vqa.toml").write_text(
        f"""name = "easy_vqa"
task = "reasoning"
rows = {json.dumps(str(source / "test" / "questions.json"))}
fields = ["question", "answer", "image_id"]
images = {json.dumps(str(source))}
metric = "exact_match"
max_new_tokens = 8

[columns]
question = "question"
answers = "answer"
image = "test/images/{{image_id}}.png"
""",
        encoding="utf-8",
    )
    print(f"{len(images)} images, {sum(len(asked) for _, asked in images)} questions")


if __name__ == "__main__":
    main()
