"""The field's benchmarks, a file each: where their rows are, what is asked, how it is scored."""
