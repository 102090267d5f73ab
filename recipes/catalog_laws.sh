#!/bin/sh
# Remakes the laws shipped in vtc/catalog from the published measurements. Run at the repository's
# root; tests/test_catalog.py checks that the shipped files are what this gives.
set -eu
data=vtc/catalog/published_measurements.csv
vtc fit "$data" --drop-suspect -o vtc/catalog/law_published.json --force
vtc fit "$data" --task reasoning --exponents .077/.015 --format json >vtc/catalog/law_paper.json
vtc fit "$data" --task ocr --drop-suspect --exponents .029/.048 --format json >>vtc/catalog/law_paper.json
