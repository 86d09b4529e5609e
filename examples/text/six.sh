#!/usr/bin/env bash
# One picture per prompt, with a small preview beside it: six.sh [FOLDER] [SIZE]. Needs the extra: pip install 'ssl-tilegen[text]'
set -euo pipefail
out=${1:-six}
size=${2:-4096}
mkdir -p "$out"
paint() {
    ssl-tilegen generate --text "$2" --size "$size" --seed 1 -o "$out/$1.ome.tif" --save-grid "$out/$1.zarr" --preview
}
paint alveoli "thin walled alveoli of a healthy lung"
paint adenocarcinoma "adenocarcinoma with irregular glands and open lumina"
paint squamous "dense sheets of squamous cancer cells"
paint forest "a lush broadleaf forest from above"
paint savanna "dry grass with scattered oaks"
paint town "a suburb of red roofed houses on red earth"
