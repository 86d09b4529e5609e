#!/usr/bin/env bash
# From a small sample image to a 2048 px synthetic pyramid. Needs only `pip install .`; no network, no GPU.
# Usage: quickstart.sh [FOLDER]   (default: ./quickstart)
set -euo pipefail
sample=$(cd "$(dirname "$0")" && pwd)/sample/tissue.ome.tif
out=${1:-quickstart}
mkdir -p "$out"

ssl-tilegen embed "$sample" -o "$out/tissue.zarr" --skip-existing
ssl-tilegen generate --grid "$out/tissue.zarr" --size 2048 -o "$out/tissue-2048.ome.tif" --preview --overwrite

echo "The pyramid, for QuPath or OpenSlide: $out/tissue-2048.ome.tif"
echo "A preview to look at now:             $out/tissue-2048.preview.png"
