"""The training curve of a bundle's card, of one run or of runs that each went on from the weights of the last:

python examples/train_tiny/curve.py RUN/denoiser/log.jsonl [NEXT/denoiser/log.jsonl ...] -o models/tiny/curve.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ssl_tilegen.training.curves import draw_curves


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logs", type=Path, nargs="+", help="log.jsonl of the runs, in their order")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=["loss", "early", "late"], help="figures; none: all of them")
    options = parser.parse_args()
    draw_curves(options.logs, options.out, options.only)
    print(f"{options.out}: {options.out.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
