"""The first minutes on an accelerator, as one script: `python -m benchmarks.gpu --out FOLDER`."""
