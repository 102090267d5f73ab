"""Compressors held side by side: at the same V, and at the same cost. Rows in, rows out; no torch.

Stands on scores, on `cost` for the FLOPs, and on `law` for the exponents.
"""
