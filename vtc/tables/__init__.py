"""Every table's columns, units and meaning; atomic reading and writing; provenance footers."""
