#!/usr/bin/env bash
# Train models/tiny from nothing: run.sh [FOLDER]. Any stage that was stopped continues when this is run again.
# The images are expected beside the checkout (see the paths in the TOML files).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-run}
python "$here/prior_table.py" "$here/../../../shared/data" "$here/prior.csv"
for stage in encoder autoencoder denoiser painter prior; do
    ssl-tilegen train "$stage" --config "$here/$stage.toml" --out "$out"
done
ssl-tilegen train autoencoder --config "$here/decoder.toml" --out "$out/detail" --set start_from="$out/bundle"
echo "The bundle is in $out/detail/bundle"
