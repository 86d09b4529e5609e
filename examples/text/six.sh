#!/usr/bin/env bash
# Six pictures from words, relations and a map, with a small preview of each: six.sh [FOLDER] [SIZE].
# A run that was stopped goes on; pictures that are there are kept.
set -euo pipefail
out=${1:-six}
size=${2:-4096}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$out"

seed=0
paint() {  # NAME OPTION VALUE; each picture has a seed of its own
    seed=$((seed + 1))
    made_before=1
    if [[ ! -e "$out/$1.ome.tif" ]]; then
        made_before=0
        ssl-tilegen generate "$2" "$3" --size "$size" --seed "$seed" -o "$out/$1.ome.tif" --save-grid "$out/$1.zarr" --preview
    fi
    python - "$out/$1" "$made_before" <<'PYTHON'
import sys
from pathlib import Path
from PIL import Image
from ssl_tilegen.workflows.generate.preview import write_preview

name, made_before = sys.argv[1], sys.argv[2] == "1"
if made_before:  # by a run that may have been killed before its preview was whole
    write_preview(Path(f"{name}.ome.tif"))
with Image.open(f"{name}.preview.png") as picture:
    picture = picture.convert("RGB")
    picture.thumbnail((768, 768), Image.Resampling.LANCZOS)
    for quality in (85, 75, 65, 55, 45, 35, 25):
        picture.save(f"{name}.jpg", quality=quality, optimize=True)
        if Path(f"{name}.jpg").stat().st_size <= 200 * 1024:
            break
PYTHON
}

paint alveoli --text "thin walled alveoli of a healthy lung"
paint squamous --text "dense sheets of squamous cancer cells"
paint tumour-and-alveoli --text "dense nests of squamous cells beside normal alveoli"
paint village-in-forest --text "a rural village with fields surrounded by broadleaf forest"
paint town --text "a suburb of red roofed houses on red earth"
paint valley --scene "$here/valley.png"
