"""Pictures that stand in a benchmark's rows become files, each once, whatever they hold."""

import hashlib
from pathlib import Path

from vtc.data.pictures import suffix_of
from vtc.tables.atomic import replacing


class PictureFiles:
    """Writes pictures below a folder, named by the hash of their bytes.

    Bytes that are no picture are kept too (".bin"): opening them fails, and the item is counted
    as wrong, as with a file that is damaged.
    """

    def __init__(self, folder: Path, writes: bool = True):
        """Without `writes` pictures get their names alone."""
        self.folder = folder
        self.writes = writes
        self.n_kept = 0
        self._known: set[str] = set()

    def __call__(self, picture: bytes) -> str:
        """Write a picture unless it is there; its path below the folder."""
        self.n_kept += 1
        digest = hashlib.sha256(picture).hexdigest()[:32]
        relative = f"{digest[:2]}/{digest}.{suffix_of(picture[:16]) or 'bin'}"
        file = self.folder / relative
        if self.writes and relative not in self._known and not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            with replacing(file) as partial:
                partial.write_bytes(picture)
        self._known.add(relative)
        return relative
