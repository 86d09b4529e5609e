#!/usr/bin/env bash
# The study: do pictures made by `ssl-tilegen augment` make better classifiers where labels are few?
# Usage: run.sh DATA [OUT] [options of study.py]    DATA: the folder of real data; OUT: pictures and features (kept)
# Writes RESULTS.md beside this script. Two processes, one core each. Pictures are kept by recipe and model, features
# by picture, so a second run only trains the classifiers.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
data=${1:?the folder of real data (tiles/he, rasters/neon, rasters/naip_rgbn_5m.tif)}
out=${2:-augment-study}
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
python "$here/study.py" --data "$data" --out "$out" --tasks sites green "${@:3}" &
python "$here/study.py" --data "$data" --out "$out" --tasks lung "${@:3}"
wait $!
python "$here/report.py" "$out" "$here/RESULTS.md"
