#!/usr/bin/env bash
# The study: do pictures made by `ssl-tilegen augment` make better classifiers where labels are few?
# Usage: run.sh DATA [OUT] [options of study.py]    DATA: the folder of real data; OUT: pictures and features (resumed)
# Writes RESULTS.md beside this script, with NOTES.md (by hand: what the figures say) in it. The tables in the tree are of
# `--recipes repaint`; the default has `mix` too and takes an estimated 25 minutes of one idle core.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
data=${1:?the folder of real data (tiles/he, rasters/neon, rasters/naip_rgbn_5m.tif)}
out=${2:-augment-study}
python "$here/study.py" --data "$data" --out "$out" --results "$here/RESULTS.md" "${@:3}"
