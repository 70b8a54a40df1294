"""python -m models.export: write a model in another format, checked before it takes its name."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from core.errors import OptionError
from core.installed.choice import PluginChoice
from core.installed.registry import Registry, default_registry
from core.interrupts import held_interrupts
from core.output import escaped
from core.plan.weights import Progress, no_progress
from core.reading import read_file
from models.analysis import loss_report
from models.analysis.losses import measure_losses, simulated
from models.analysis.written import verify_written
from models.checkpoints.base import Checkpoint, read_checkpoint
from models.checkpoints.placing import place_files, place_folder, staging_folder
from models.checkpoints.source import Source, without_rope_scaling
from models.checkpoints.targets import TARGETS, Target, choose_target
from models.cli import report
from models.cli.arguments import (
    PLUGIN_OPTIONS,
    QUANTIZATION,
    add_load_options,
    quantization,
)
from models.cli.command import command
from models.cli.console import tell

_LONGEST = 64 << 20  # bytes of a text for the report


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser("python -m models.export",
                                description="Write a model in another format.")
    p.add_argument("--model", required=True, metavar="PATH|NAME")
    p.add_argument("--to", choices=TARGETS, help="format; required unless --dry-run")
    p.add_argument("--out", type=Path, metavar="PATH",
                   help="a folder for hf, else a file; required unless --dry-run")
    p.add_argument("--dtype", choices=("f32", "f16", "bf16"),
                   help="dtype of the weights (default: as stored; llama2c and kuiper: f32)")
    add_load_options(p, only=(*QUANTIZATION, *PLUGIN_OPTIONS))
    p.add_argument("--version", type=int, choices=(0, 1, 2),
                   help="version of llama2.c's format (default: 0, for run.c; int8: 2, for runq.c)")
    p.add_argument("--ignore-rope-scaling", action="store_true",
                   help="write the model that a program without rope scaling runs")
    p.add_argument("--report", action="store_true",
                   help="show what was lost: errors by tensor, KL divergence of the logits")
    p.add_argument("--report-text", type=Path, metavar="FILE",
                   help="compare logits on this text (default: text that it samples)")
    p.add_argument("--report-json", type=Path, metavar="FILE", help="write the report as JSON")
    p.add_argument("--report-plot", type=Path, metavar="FILE.png",
                   help="plot errors by layer (extra plot: matplotlib)")
    p.add_argument("--no-leave-out", action="store_true",
                   help="leave out the table that tries each tensor in full precision")
    p.add_argument("--dry-run", action="store_true",
                   help="write no model: report what --dtype or --quantize would do, as --to hf "
                        "and models.run --quantize compute it")
    p.add_argument("--force", action="store_true", help="replace what is there")
    p.add_argument("--no-verify", action="store_true", help="do not reload and compare logits")
    return p


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 written, 1 the written model differs, 2 the input cannot be used."""
    args = parser().parse_args(argv)
    registry = default_registry(choice=PluginChoice.of(args.only_plugins, args.without_plugins))
    report.left_out(registry)
    checkpoint = read_checkpoint(args.model, registry)
    if args.ignore_rope_scaling:
        checkpoint = without_rope_scaling(checkpoint)
    _check_report(args)
    source = Source(checkpoint, registry)
    target = choose_target(args.to or "hf", source, args.dtype, quantization(args), args.version)
    try:
        with report.Loading() as loading:
            if args.dry_run:
                after = simulated(source, args.dtype, target.quantization, loading.progress)
                said = "no model was written"
            else:
                said = export(source, target, args.out, registry, force=args.force,
                              verify=not args.no_verify, progress=loading.progress)
    except KeyboardInterrupt as stop:
        tell(f"interrupted; {str(stop) or 'nothing was written'}")
        return 130
    for note in checkpoint.notes:
        tell(f"note: {note}")
    print(escaped(f"dry run ({target.name}, {target.precision}); {said}" if args.dry_run else
                  f"wrote {args.out} ({target.name}, {target.precision}); {said}"))
    if args.report:
        _report(args, checkpoint, after if args.dry_run else
                read_checkpoint(target.named(args.out, source), registry), registry)
    return 0


def _check_report(args: argparse.Namespace) -> None:
    """Before anything is computed. Raises OptionError for options that contradict each other."""
    if args.dry_run and not args.report:
        raise OptionError("--dry-run writes nothing: give --report with it")
    if args.dry_run and (args.out or args.to not in (None, "hf")):
        raise OptionError("--dry-run shows what --to hf would do: give no --out and no other --to")
    if args.dry_run and not (args.quantize or args.dtype):
        raise OptionError("--dry-run: give --quantize or --dtype, else nothing changes")
    missing = [f"--{name}" for name in ("to", "out") if getattr(args, name) is None]
    if missing and not args.dry_run:
        raise OptionError(f"the following arguments are required: {', '.join(missing)} (or "
                          "--report --dry-run, which writes nothing)")
    wanted = [args.report_text, args.report_json, args.report_plot]
    if any(wanted) and not args.report:
        raise OptionError("--report-text, --report-json and --report-plot go with --report")
    for path in wanted[1:]:
        if path is not None and not path.absolute().parent.is_dir():
            raise OptionError(f"{path}: folder {path.absolute().parent} does not exist")
    if args.report_plot:
        loss_report.check_plot(args.report_plot)
    if args.report_text and not args.report_text.is_file():
        raise OptionError(f"--report-text {args.report_text}: no such file")


def _report(args: argparse.Namespace, before: Checkpoint, after: Checkpoint,
            registry: Registry) -> None:
    text = None if args.report_text is None else read_file(args.report_text, _LONGEST).decode(
        "utf-8", "surrogateescape")
    with report.Loading() as loading:
        losses = measure_losses(before, after, registry, text=text,
                                leave_out=not args.no_leave_out, progress=loading.progress)
    loss_report.show(losses)
    if args.report_json:
        loss_report.write_json(losses, args.report_json)
    if args.report_plot:
        loss_report.plot(losses, args.report_plot)


def export(source: Source, target: Target, out: Path, registry: Registry, *, force: bool = False,
           verify: bool = True, progress: Progress = no_progress) -> str:
    """Write to a temporary folder beside `out`, verify there, then rename; an error leaves what was
    there. Returns what the verification found.

    Raises OptionError if `out` exists, is being written by another export, or the disk is too
    small, CheckError if the logits differ.
    """
    if "\0" in str(out):
        raise OptionError(f"--out {out}: a name has no NUL; choose another one")
    parent = out.absolute().parent
    if not parent.is_dir():
        raise OptionError(f"--out {out}: folder {parent} does not exist; make it first")
    _check_free(parent, target.bytes_needed(source))
    if os.path.lexists(out) and not (out.is_file() or out.is_dir()):
        raise OptionError(f"--out {out} is neither a file nor a folder; choose another name")
    if out.exists() and out.is_dir() != target.is_folder:
        raise OptionError(f"--out {out} is a {'folder' if out.is_dir() else 'file'}, --to "
                          f"{target.name} writes the other; choose another name")
    if out.exists() and not force:
        raise OptionError(f"--out {out} exists; pass --force to replace it, or choose another name")
    placed = False
    try:
        with staging_folder(out) as staging:
            folder = staging / "model"
            folder.mkdir()
            key = target.write(source, folder, out.name, progress)
            _check_siblings(folder, out, force, target)
            said = "not verified"
            if verify:
                written = folder if target.is_folder else folder / out.name
                said = verify_written(source.checkpoint, f"{key}:{written}" if key else
                                      str(written), target, registry)
            with held_interrupts():
                (place_folder if target.is_folder else place_files)(folder, out)
                placed = True
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{out} was written" if placed else "") from None
    return said


def _check_free(parent: Path, needed: int) -> None:
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise OptionError(f"{parent} has {free >> 20} MiB free, the export needs up to "
                          f"{needed >> 20} MiB; free some space, or choose another --out")


def _check_siblings(folder: Path, out: Path, force: bool, target: Target) -> None:
    """Check that tokenizer files that are already beside a weights file equal ours."""
    if target.is_folder or force:
        return
    for file in folder.iterdir():
        there = out.parent / file.name
        if there.exists() and there.read_bytes() != file.read_bytes():
            raise OptionError(f"{there} exists and differs from this model's; pass --force to "
                              "replace it, or export into a folder of its own")


if __name__ == "__main__":
    sys.exit(main())
