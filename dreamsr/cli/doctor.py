"""`dreamsr doctor`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from dreamsr.cli import console

AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout instead of a table.")]


def doctor(as_json: AsJson = False) -> None:
    """Show versions, devices, memory and weights, and what dreamsr would choose here and why.

    Exits with 1 where something is wrong.
    """
    from dreamsr.doctor import examine

    found = examine()
    if as_json:
        console.say_json(found)
    else:
        console.table(("", ""), _rows(found), header=False)
        for problem in found["problems"]:
            console.warn(problem)
    if found["problems"]:
        raise typer.Exit(1)


def _rows(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    memory = found["memory_bytes"]
    yield "dreamsr", f"{found['dreamsr']}, Python {found['python']}, {found['platform']}"
    yield "libraries", ", ".join(f"{name} {number or '(not installed)'}" for name, number in found["libraries"].items())
    yield "formats", ", ".join(found["formats"])
    yield "computes on", f"{found['device']} in {found['dtype']} ({found['why']})"
    for device in found["devices"]:
        yield "device", f"{device['name']}: {device['model']}, {device['dtype']}, {_gb(device['free_bytes'])} free"
    yield "CPU", f"{found['cpu_threads']} threads; {', '.join(found['cpu_features']) or 'features unknown'}"
    yield "memory", f"{_gb(memory['free'])} free of {_gb(memory['total'])}; tiles of {found['tile_px']} px"
    yield "cache", found["cache"]
    for weights in found["weights"]:
        where = "bundled" if weights["bundled"] else weights["path"] or ""
        yield "weights", f"{weights['name']}: {weights['state']} {where} sha256 {weights['sha256'][:12]}…"
    for name, value in found["environment"].items():
        yield "environment", f"{name}={value}"


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
