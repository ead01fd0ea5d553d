"""Draws orders.svg: what each order of the loader costs and how well it mixes. Needs matplotlib; nothing is read.

100,000 rows in chunks of 32, batches of 256, rows kept for 10 % of the data where an order mixes within the memory.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np

from h5fast.ordering import Order
from h5fast.planning import field_plan, shuffle_quality

ROWS, CHUNK, BATCH = 100_000, 32, 256
GROUPS = np.append(np.arange(0, ROWS, CHUNK), ROWS).astype(np.uint64)
TITLES = {"exact": "exact", "block": "block", "batches": "batches", "file": "False"}


def order_of(kind: str) -> Order:
    window = max(1, int(0.1 * ROWS - BATCH) // CHUNK)
    return Order(kind, ROWS, 0, BATCH, 0, 1, False, GROUPS if kind == "block" else None, window)


def main() -> None:
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "h5fast"  # the same file each time
    from matplotlib import pyplot

    figure, (costs, mixes) = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    print("| shuffle | displacement | spread | decodes per chunk at 10 % |\n|---|---|---|---|")
    for place, (kind, title) in enumerate(TITLES.items()):
        order = order_of(kind)
        plan = field_plan("x", order, GROUPS, rows_kept=ROWS // 10, across=1, decoded_bytes=ROWS)
        quality = shuffle_quality(order, order.schedule(0), CHUNK)
        print(f"| `{title}` | {quality.displacement:.2f} | {quality.spread:.2f} | {plan.decodes[1] / plan.chunks:.2f} |")
        costs.plot([100 * share for share in plan.at_memory], list(plan.at_memory.values()), marker="o", label=title)
        for shift, color, name in ((-0.2, "tab:blue", "displacement"), (0.2, "tab:orange", "spread")):
            mixes.bar(place + shift, getattr(quality, name), 0.4, color=color, label=name if place == 0 else None)
    costs.set(xlabel="rows kept, % of the data", ylabel="decodes per chunk and epoch", ylim=(0, None))
    costs.legend(title="shuffle")
    mixes.set_xticks(range(len(TITLES)), list(TITLES.values()))
    mixes.set(ylabel="1: as a uniform shuffle", xlabel="shuffle")
    mixes.legend()
    figure.savefig(Path(__file__).with_name("orders.svg"), metadata={"Date": None})


if __name__ == "__main__":
    main()
