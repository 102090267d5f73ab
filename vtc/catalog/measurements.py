"""Published measurements shipped with the program, with their source in a column."""

from pathlib import Path

# 28 reasoning and 28 OCR errors of Qwen1.5 0.5B to 7B with 1 to 576 visual tokens. Two OCR rows
# carry a note on why they are suspect.
PUBLISHED = Path(__file__).with_name("published_measurements.csv")
