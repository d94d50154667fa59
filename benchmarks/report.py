"""The figures as ratios, tables and a picture."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from harness import table

OWN = "tinygraph"
BUILD = ("build", "first step")

Report = dict[str, Any]


def least(starts: Iterable[Report], *parts: str) -> float:
    """The least of the sum of parts over fresh processes."""
    return min(sum(s[p] for p in parts) for s in starts)


def summarise(report: Report) -> None:
    """Add ``ratios``: of the best peer to tinygraph, so that more is better, and others."""
    own = report["peers"].get(OWN)
    others = {n: p for n, p in report["peers"].items() if n != OWN and "median" in p}
    report["ratios"] = ratios = {}
    if own is None or "median" not in own:
        return
    if others:
        best = min(others, key=lambda n: others[n]["median"])
        report["best"] = best
        ratios["median"] = others[best]["median"] / own["median"]
        ratios["minimum"] = min(p["minimum"] for p in others.values()) / own["minimum"]
        report["by system"] = {}
        for p in others.values():
            held = report["by system"].get(p["system"], np.inf)
            report["by system"][p["system"]] = min(held, p["median"] / own["median"])
        if "blocks" in own:
            blocks = np.min([p["blocks"] for p in others.values()], axis=0)
            ratios["blocks"] = float(np.median(blocks / own["blocks"]))
        ratios["first"] = min(min(p["first"]) for p in others.values()) / min(own["first"])
        jax = [min(p["first"]) for p in others.values() if p["system"] == "jax"]
        if jax:
            ratios["first, jax"] = min(jax) / min(own["first"])
        if own.get("peak"):
            ratios["peak"] = min(p["peak"] for p in others.values()) / own["peak"]
    if "warm" in own:
        ratios["build, warm / cold"] = (least(own["warm parts"], *BUILD)
                                        / least(own["parts"], *BUILD))


def milliseconds(seconds: float) -> str:
    """Four digits at the least."""
    ms = 1e3 * seconds
    return f"{ms:.4f}" if ms < 1 else f"{ms:.3f}" if ms < 100 else f"{ms:.1f}"


def show(name: str, report: Report) -> str:
    """One workload as text."""
    whole = report["whole"]
    time = (lambda s: f"{s:.2f}") if whole else milliseconds
    unit = "s" if whole else "ms"
    head = [f"{name} {report['title']}", f"median {unit}", f"min {unit}", "vs best", "first s",
            "build s", "warm s", "warm build s", "compiles", "peak MB", "error"]
    rows = [head]
    best = min((p["median"] for n, p in report["peers"].items() if n != OWN and "median" in p),
               default=None)
    for peer, p in report["peers"].items():
        if "median" not in p:
            continue
        warm = "warm" in p
        rows.append([
            peer, time(p["median"]), time(p["minimum"]),
            f"{p['median'] / best:.3f}" if best else "", f"{min(p['first']):.2f}",
            f"{least(p['parts'], *BUILD):.2f}", f"{min(p['warm']):.2f}" if warm else "",
            f"{least(p['warm parts'], *BUILD):.3f}" if warm else "",
            str(p["compiles"] if p["compiles"] is not None else ""),
            f"{p['peak'] / 1e6:.0f}" if p["peak"] else "", f"{max(p['errors'].values()):.0e}"])
    lines = [table(rows)]
    lines += [f"  skipped: {peer}: {why}" for peer, why in report["skipped"].items()]
    lines += [f"  NOT EQUAL, not timed: {peer}: {why}" for peer, why in report["wrong"].items()]
    if "median" in report["ratios"]:
        r = report["ratios"]
        more = f", of blocks {r['blocks']:.2f}" if "blocks" in r else ""
        lines.append(f"  {report['best']} / tinygraph: {r['median']:.2f} (goal "
                     f"{report['goal']:g}); minima {r['minimum']:.2f}{more}; first result "
                     f"{r['first']:.2f}")
    return "\n".join(lines)


def show_limit(report: Report) -> str:
    """The limit as text."""
    rows = [["one thread, GFLOP/s", "median", "maximum", "of sgemm", "goal"]]
    for row, kinds in report["rates"].items():
        for what, rate in kinds.items():
            share = goal = ""
            if what == "step":
                share = f"{100 * report['shares'][row]['median']:.0f}%"
                goal = f"{100 * report['goals'][row]:.0f}%"
            label = "sgemm 1024" if row == "sgemm" else f"{row} {what}"
            rows.append([label, f"{rate['median'] / 1e9:.1f}", f"{rate['maximum'] / 1e9:.1f}",
                         share, goal])
    return table(rows)


def summary(reports: dict[str, Report]) -> str:
    """All ratios in one table."""
    rows = [["best peer / tinygraph", "best peer", "median", "goal", "minimum", "first result",
             "to JAX's first", "build, warm / cold", "peak"]]
    for name, report in reports.items():
        r = report["ratios"]
        keys = ("median", "", "minimum", "first", "first, jax", "build, warm / cold", "peak")
        cells = [f"{r[k]:.2f}" if k in r else "" for k in keys]
        cells[1] = f"{report['goal']:g}"
        rows.append([f"{name} {report['title']}", report.get("best", ""), *cells])
    return table(rows)


def picture(reports: dict[str, Report], path: str) -> None:
    """The ratios of medians as bars, one for each system, and the goals as lines."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = {n: r for n, r in reports.items() if r.get("by system")}
    systems = sorted({s for r in rows.values() for s in r["by system"]})
    width = 0.8 / max(1, len(systems))
    figure, axes = plt.subplots(figsize=(9, 4.5))
    for k, system in enumerate(systems):
        at = [x - 0.4 + (k + 0.5) * width for x, r in enumerate(rows.values())
              if system in r["by system"]]
        height = [r["by system"][system] for r in rows.values() if system in r["by system"]]
        bars = axes.bar(at, height, width, label=system)
        axes.bar_label(bars, [f"{h:.3g}" for h in height], fontsize=7)
    for x, r in enumerate(rows.values()):
        axes.hlines(r["goal"], x - 0.45, x + 0.45, color="black", linewidth=1.2,
                    label="goal, to the best" if x == 0 else None)
    axes.axhline(1, color="0.5", linewidth=0.8)
    axes.set(yscale="log", ylabel="peer's time / tinygraph's time", xticks=range(len(rows)),
             xticklabels=list(rows), title="Medians of one run; more is faster than the peer")
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)
