"""`vtc ...` in a process of its own, forked from a server that has the large libraries loaded.

Such a process has its own standard streams, arguments, folder and exit code, as one of a shell
has, and spares the five to nine seconds that torch, transformers and peft take to load. What a
test says about loading itself, about signals or a terminal, needs a `subprocess`.
"""

import multiprocessing
import os
import signal
import sys
import tempfile
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from subprocess import CompletedProcess

# As vtc's command line sets them before it loads a library.
for _quiet, _value in (
    ("HF_HUB_DISABLE_PROGRESS_BARS", "1"),
    ("TRANSFORMERS_VERBOSITY", "error"),
    ("HF_HUB_VERBOSITY", "error"),
):
    os.environ.setdefault(_quiet, _value)
SERVER = multiprocessing.get_context("forkserver")
# Nothing of vtc: a command that forgets to load a part of it fails here as it would from a shell.
SERVER.set_forkserver_preload(
    [
        "bitsandbytes", "datasets", "peft", "pyarrow.parquet", "rich.table", "scipy.optimize",
        "scipy.stats", "torch", "transformers.trainer",
        "transformers.models.clip.modeling_clip", "transformers.models.llama.modeling_llama",
        "transformers.models.llava.modeling_llava", "transformers.models.qwen2.modeling_qwen2",
        "transformers.models.siglip.modeling_siglip",
    ]
)  # fmt: skip


def vtc(*arguments: object, stdin: str = "", cwd: Path | None = None) -> CompletedProcess[str]:
    """What `vtc ARGUMENTS` prints on both streams, and the code it ends with."""
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder, name) for name in ("stdin", "stdout", "stderr")]
        streams[0].write_text(stdin, encoding="utf-8")
        child = started(arguments, streams, cwd)
        child.join()
        out, said = (stream.read_text(encoding="utf-8") for stream in streams[1:])
    return CompletedProcess(["vtc", *map(str, arguments)], child.exitcode or 0, out, said)


def started(
    arguments: tuple[object, ...], streams: list[Path] | None = None, cwd: Path | None = None
) -> ForkServerProcess:
    """Such a process, under way; `streams` are the files of its stdin, stdout and stderr."""
    files = [str(stream) for stream in streams or [Path(os.devnull)] * 3]
    words, here = [str(argument) for argument in arguments], str(cwd or Path.cwd())
    child = SERVER.Process(target=_run, args=(words, files, here, dict(os.environ)))
    child.start()
    return child


def _run(words: list[str], files: list[str], here: str, environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(here)
    for number, (path, mode) in enumerate(zip(files, ("r", "w", "w"), strict=True)):
        with open(path, mode) as file:
            os.dup2(file.fileno(), number)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
    sys.argv = ["vtc", *words]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from vtc import cli

    cli.run()
