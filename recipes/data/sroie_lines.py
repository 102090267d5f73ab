"""Text lines of scanned receipts (SROIE) as LLaVA conversations and an OCR benchmark.

ICDAR 2019 SROIE (data set under CC-BY-4.0), as `lines.jsonl`: image, split, question, answer,
receipt; crops of single lines. Images stay where they are.

    python recipes/data/sroie_lines.py sroie_lines/ work/ [--limit LINES]

writes work/sroie_finetune.json, work/sroie_pretrain.json (the text as the caption) and
work/sroie.toml (the test split). The image root is the data set's folder.
"""

import argparse
import json
from pathlib import Path


def conversation(question: str, answer: str) -> list[dict[str, str]]:
    """One question about the image, in LLaVA's turns."""
    return [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="folder of the data set")
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--limit", type=int, default=None, help="training lines to use")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    text = (arguments.source / "lines.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    train = [row for row in rows if row["split"] == "train"][: arguments.limit]
    for name in ("pretrain", "finetune"):
        samples = [
            {
                "id": Path(row["image"]).stem,
                "image": row["image"],
                "conversations": conversation(
                    "Read the line." if name == "pretrain" else row["question"], row["answer"]
                ),
            }
            for row in train
        ]
        (arguments.out / f"sroie_{name}.json").write_text(json.dumps(samples), encoding="utf-8")
    source = arguments.source.resolve()
    (arguments.out / "sroie.toml").write_text(
        f"""name = "sroie"
task = "ocr"
rows = {json.dumps(str(source / "lines.jsonl"))}
images = {json.dumps(str(source))}
metric = "anls"
max_new_tokens = 24

[filter]
split = "test"

[columns]
question = "question"
answers = "answer"
image = "image"
""",
        encoding="utf-8",
    )
    print(f"{len(train)} lines")


if __name__ == "__main__":
    main()
