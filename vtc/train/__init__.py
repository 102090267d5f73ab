"""The two training stages, through transformers' Trainer."""
