"""The two training stages, through transformers' Trainer."""

import logging

# Trainer loads bitsandbytes, which warns on a CPU that an optional kernel package is absent.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
