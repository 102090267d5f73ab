"""Laws shipped with the program; recipes/catalog_laws.sh remakes their files."""

from pathlib import Path

# published: the published measurements refitted here; paper: with the exponents that the paper
# prints (its table of fits), k and D by linear least squares on the same points.
SHIPPED = ("published", "paper")


def path(name: str) -> Path:
    """The file of a shipped law: JSON lines, rows of the law table."""
    return Path(__file__).with_name(f"law_{name}.json")
