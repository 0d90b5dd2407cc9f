"""The benchmark's numbers for the terminal."""

from __future__ import annotations

from typing import Any

from experiments.tables import text_table

__all__ = ["describe"]


def describe(report: dict[str, Any]) -> str:
    """Returns the tables of a report of ``experiments.benchmark``."""
    parts = [_headline(report), _comparison(report), _phases(report)]
    if report["growth"]:
        parts.append(_growth(report["growth"]))
    return "\n\n".join([*parts, _remarks(report)])


def _headline(report: dict[str, Any]) -> str:
    found, options = report["environment"], report["options"]
    where = found["gpu"] or f"{found['processor']}, {found['threads']} threads"
    batch = options["schedule"]["batch_size"]
    return (
        f"{options['model']['backbone']}, batch {batch} + {batch}, {report['precision']}; {where}; "
        f"torch {found['packages']['torch']}; {report['date']}"
    )


def _comparison(report: dict[str, Any]) -> str:
    ours, plain = report["ours"], report["plain"]
    rows = [
        _row("step, ms (median)", ours, plain, "step_seconds", factor=1e3),
        _row("step, ms (mean)", ours, plain, "mean_step_seconds", factor=1e3),
        _row("iterations a second", ours, plain, "iterations_per_second", rate=True),
        _row("images a second", ours, plain, "images_per_second", rate=True),
        _row("evaluation, patches a second", ours, plain, "evaluated_per_second", rate=True),
        _row("a checkpoint, ms", ours, plain, "save_seconds", factor=1e3),
    ]
    rows += [_hours(ours, plain, part) for part in ours["schedule_hours"]]
    sizes = [each["memory_gib"]["own"] if each else None for each in (ours, plain)]
    rows.append(["memory of the training, GiB", *map(_number, sizes), ""])
    head = ["median (lowest to highest repetition)", "ours", "plain loop", "ratio"]
    return text_table(head, rows)


def _row(
    label: str,
    ours: dict[str, Any],
    plain: dict[str, Any] | None,
    name: str,
    factor: float = 1.0,
    rate: bool = False,
) -> list[str]:
    cells = [_spread(each[name], factor) if each else "-" for each in (ours, plain)]
    if plain is None:
        return [label, *cells, "-"]
    ratio = plain[name]["median"] / ours[name]["median"]
    return [label, *cells, f"{1 / ratio if rate else ratio:.2f}"]


def _hours(ours: dict[str, Any], plain: dict[str, Any] | None, part: str) -> list[str]:
    label = "whole schedule, hours" if part == "whole" else f"  {part}, hours"
    hours = [each["schedule_hours"][part] if each else None for each in (ours, plain)]
    ratio = hours[1] / hours[0] if hours[0] and hours[1] is not None else None
    return [label, *map(_number, hours), _number(ratio)]


def _phases(report: dict[str, Any]) -> str:
    phases = report["phases"]
    total = sum(phases.values())
    rows = [[name, f"{1e3 * s:.2f}", f"{s / total:.1%}"] for name, s in phases.items()]
    return text_table(["our step, mean", "ms", "share"], [*rows, ["sum", f"{1e3 * total:.2f}", ""]])


def _growth(rows: list[dict[str, Any]]) -> str:
    head = ["batch x pixels", "step, ms", "images a second", "memory, GiB"]
    cells = [
        [
            f"{row['batch_size']} + {row['batch_size']} x {row['image_size']}",
            _spread(row["step_seconds"], 1e3),
            _number(row["images_per_second"]),
            _number(row["memory_gib"]["peak"]),
        ]
        for row in rows
    ]
    return text_table(head, cells)


def _remarks(report: dict[str, Any]) -> str:
    phases, arithmetic = report["phases"], report["arithmetic"]
    total = sum(phases.values())
    used = report["ours"]["images_per_second"]["median"]
    lines = [
        f"handlers, monitors and progress: {phases['handlers'] / total:.2%} of the step",
        f"data loading alone: {report['loading_patches_per_second']:,.0f} patches a second, "
        f"{report['loading_patches_per_second'] / used:.1f} times what training takes",
        f"arithmetic: {arithmetic['tflop_per_step']:.3f} TFLOP a step, "
        f"{arithmetic['tflops']:.2f} TFLOPS",
    ]
    if arithmetic["utilisation"] is not None:
        peak = arithmetic["peak_tflops"]
        lines[-1] += f": {arithmetic['utilisation']:.1%} of {peak:g} (model FLOP utilisation)"
    return "\n".join(lines)


def _spread(values: dict[str, float], factor: float) -> str:
    middle, low, high = (_number(factor * values[n]) for n in ("median", "lowest", "highest"))
    return f"{middle} ({low} to {high})"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
