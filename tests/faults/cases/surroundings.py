# ruff: noqa: E501 (a case is a line)
"""The environment a command is called in: variables of batch systems and launchers, locales, folders that are gone."""

from __future__ import annotations

from collections.abc import Iterator

from tests.faults.case import DONE, REFUSED, Case, words
from tests.faults.cases.commands import AUGMENT, CLASSES, EMBED, GENERATE, GRID, MODEL, SLIDE, TRAIN, TRAINING
from tests.faults.pieces import Copy, File

VARIABLES: dict[str, dict[str, str]] = {
    "array-text": {"SLURM_ARRAY_TASK_ID": "x", "SLURM_ARRAY_TASK_COUNT": "y"},
    "array-negative": {"SLURM_ARRAY_TASK_ID": "-1", "SLURM_ARRAY_TASK_COUNT": "-5", "SLURM_ARRAY_TASK_MIN": "3"},
    "array-beyond": {
        "SLURM_ARRAY_TASK_ID": "9",
        "SLURM_ARRAY_TASK_COUNT": "2",
        "SLURM_ARRAY_TASK_MIN": "0",
        "SLURM_ARRAY_TASK_MAX": "1",
    },
    "array-step-zero": {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "1", "SLURM_ARRAY_TASK_STEP": "0"},
    "rank-text": {"RANK": "x", "WORLD_SIZE": "2", "LOCAL_RANK": "0"},
    "rank-beyond": {"RANK": "5", "WORLD_SIZE": "2", "LOCAL_RANK": "5"},
    "world-zero": {"RANK": "0", "WORLD_SIZE": "0"},
    "world-text": {"RANK": "0", "WORLD_SIZE": "many"},
    "procs-text": {"SLURM_NTASKS": "x", "SLURM_PROCID": "y", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "z"},
    "no-home": {"HOME": "/nonexistent", "XDG_CACHE_HOME": "/nonexistent/x", "HF_HOME": "/nonexistent/y"},
    "no-temporary": {"TMPDIR": "/nonexistent"},
    "ascii": {"LC_ALL": "C", "LANG": "C", "PYTHONIOENCODING": "ascii:strict"},
    "terminal": {"TERM": "dumb", "COLUMNS": "1", "LINES": "0"},
    "threads": {"OMP_NUM_THREADS": "x"},
    "cuda": {"CUDA_VISIBLE_DEVICES": "x,y"},
}
COMMANDS = {
    "embed": (EMBED + " -o o.zarr", (SLIDE,)),
    "embed-many": (f"embed d {MODEL} --out-dir o", (Copy("in.tif", "d/a.tif"), Copy("in.tif", "d/ä漢.tif"))),
    "generate": (GENERATE + " -o o.png", (GRID,)),
    "augment": (AUGMENT + " -o o", (CLASSES,)),
}


def cases() -> Iterator[Case]:
    for name, variables in VARIABLES.items():
        for command, (line, before) in COMMANDS.items():
            distributed = name.startswith(("rank", "world", "procs", "array"))
            yield Case("around", f"{command}-{name}", words(line), before, (REFUSED if distributed else frozenset()) | {DONE},
                       env=variables, cpu_s=30)  # fmt: skip
    yield Case(
        "around",
        "json-log",
        (*words(f"{EMBED} -o o.zarr"), "--log-format", "json", "--json"),
        (SLIDE,),
        frozenset({DONE}),
    )
    for device in ("cuda", "cuda:99", "cuda:x", "tpu", "", "cpu:5", "meta", "mps"):
        yield Case("around", f"device-{device or 'empty'}", (*words("embed in.tif --model {world}/bundle -o o.zarr"), f"--device={device}"),
                   (SLIDE,), REFUSED | ({DONE} if device == "cpu:5" else set()))  # fmt: skip
    for model in ("nothing", "hf-hub:no/such", "hf-hub:", "tiny/x", "", ".", "..", "http://127.0.0.1:1/x", "in.tif"):
        for command in ("embed in.tif -o o.zarr", "models info"):
            line = (
                *words(command),
                *((f"--model={model}", "--device", "cpu") if command.startswith("embed") else (model,)),
            )
            yield Case(
                "around",
                f"model-{model.replace('/', '_') or 'empty'}-{command.split()[0]}",
                line,
                (SLIDE,),
                REFUSED,
                cpu_s=30,
            )
    for encoder in (
        "nothing",
        "hf-hub:no/such",
        "local-dir:.",
        "local-dir:nothing",
        "",
        "resnet18",
        "vit_tiny_patch16_224",
    ):
        yield Case("around", f"encoder-{encoder or 'empty'}", (*words("embed in.tif -o o.zarr --device cpu"), f"--encoder={encoder}"),
                   (SLIDE,), REFUSED, cpu_s=30)  # fmt: skip
    for text in ("ä漢\U0001f600", "\udcff", "a\nb", "x" * 100_000, "\x1b[2J", " "):
        yield Case(
            "around",
            f"text-{len(text)}-{ord(text[0]):x}",
            ("generate", f"--label={text}", *words(f"{MODEL} --size 64 -o o.png")),
            (),
            REFUSED,
            cpu_s=30,
        )
        yield Case(
            "around",
            f"words-{len(text)}-{ord(text[0]):x}",
            ("generate", f"--text={text}", *words(f"{MODEL} --size 64 -o o.png")),
            (),
            REFUSED,
            cpu_s=30,
        )
    for number, key in enumerate(("run.steps=x", "run.steps", "=", "nothing=1", "run.steps=-1", "run.batch=1e9", "net='x'", "data.sources=[]", "run.lr=nan", "run.steps=[", "a.b.c.d=1", "run.steps=\"a\nb\"",
                                  "data.sources=[{paths=['none*.png'],mpp=0.5}]", "window_px=7", "window_px=1000000000", "net.encoder_width=1000000000", "run.save_every=0", "start_from='nothing'", "net._class_name='os.system'",
                                  f"run.seed={10**30}", f"run.batch={10**30}", "run.lr=1e308")):  # fmt: skip
        yield Case(
            "around",
            f"train-set-{number}",
            (*words(f"{TRAINING} --out o"), "--set", key),
            (TRAIN,),
            REFUSED,
            cpu_s=30,
        )
    for number, key in enumerate(("layout_px=10000000000", "fit_tiles=10000000000", "global_views=10000000000", "local_views=10000000000", "local_px=10000000000", "jitter=1e308")):  # fmt: skip
        line = words("train encoder --config train/encoder.toml --device cpu --out o")
        yield Case("around", f"train-encoder-set-{number}", (*line, "--set", key), (TRAIN,), REFUSED, cpu_s=30)
    for number, line in enumerate(("--pretrained x", "--encoder nothing --weights w.bin", "--encoder resnet18")):
        yield Case(
            "around",
            f"train-encoder-{number}",
            words(f"train encoder --config train/encoder.toml --device cpu --out o {line}"),
            (TRAIN, File("w.bin", b"x" * 99)),
            REFUSED,
            cpu_s=30,
        )
    yield Case("around", "train-after-bundle", words(f"{TRAINING} --out o"), (TRAIN, Copy("bundle", "o/bundle")), REFUSED,
               says="--restart")  # fmt: skip
