#!/usr/bin/env bash
# The study: do pictures made by `ssl-tilegen augment` make better classifiers where labels are few?
# Usage: run.sh DATA [OUT] [options of study.py]    DATA: the folder of real data; OUT: pictures, features and networks (kept)
# Writes RESULTS.md beside this script. Two processes, one core each. Pictures are kept by recipe and model, features by picture, networks by what they
# were trained on, so that a second run is short, and one with another model trains no network on real pictures again.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
data=${1:?the folder of real data (tiles/he, rasters)}
out=${2:-augment-study}
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
one="" two=""
trap 'for job in $one $two; do kill -- "-$job" 2>/dev/null || true; done' EXIT  # where one fails, the other is stopped
set -m  # each with what it starts is a group of its own, to be stopped as one
{
    python "$here/study.py" --data "$data" --out "$out" --tasks sites green --finetune 0 "${@:3}" &&
        python "$here/study.py" --data "$data" --out "$out" --tasks built "${@:3}"
} &
one=$!
python "$here/study.py" --data "$data" --out "$out" --tasks lung "${@:3}" &
two=$!
while kill -0 $one 2>/dev/null && kill -0 $two 2>/dev/null; do sleep 1; done
if kill -0 $one 2>/dev/null; then wait $two; wait $one; else wait $one; wait $two; fi
python "$here/report.py" "$out" "$here/RESULTS.md"
