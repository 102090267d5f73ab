"""Runs on the Hugging Face hub: a run's folder is uploaded as it stands, and comes back so."""

from pathlib import Path

from vtc.errors import InputError, VtcError
from vtc.model.manifest import MANIFEST, read_manifest


def push_folder(folder: str | Path, name: str, *, private: bool = False) -> str:
    """Upload a run, or a folder that `vtc export` wrote, to the hub's repository `name`; its URL.

    The repository is made if there is none. Raises InputError for a run that stands on folders of
    this machine, which nobody else has, and VtcError if the hub refuses or is not reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    folder = Path(folder)
    if (folder / MANIFEST).is_file():
        _refuse_local_base(folder)
    elif not (folder / "config.json").is_file():
        raise InputError(f"{folder} holds no run and no model to upload")
    hub = HfApi()
    try:
        url = hub.create_repo(name, private=private, exist_ok=True)
        hub.upload_folder(repo_id=name, folder_path=folder)
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise VtcError(f"--push {name}: the hub did not take it ({first})") from None
    return str(url)


def _refuse_local_base(folder: Path) -> None:
    """A small trained part is of use to others only if they can get what it stands on."""
    manifest = read_manifest(folder)
    if manifest["weights"] == "full":
        return
    for part in ("base", "encoder", "llm"):
        entry = manifest.get(part)
        if entry and Path(entry["path"]).is_absolute():
            raise InputError(
                f"run {folder} stands on {entry['path']}, which only this machine has; upload the "
                "whole model: vtc export --merge -o DIR --push"
            )
