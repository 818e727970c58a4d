"""Directives that draw the tables of the page of benchmarks from the stored results.

``.. benchmark-table:: NAME`` draws a table of the figures of `TABLES[NAME]`, and
``.. benchmark-records::`` lists every file with the commands, machine and versions behind it.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from sphinx.util.docutils import SphinxDirective

RESULTS = Path(__file__).parents[2] / "benchmarks/results"

# The guide page of each file of results.
GUIDES = {
    "automatic_choice": "latent_knn",
    "accelerator": "accelerators",
    "black_box_curve": "boundary_samples",
    "boundary": "boundary_samples",
    "counterfactuals": "counterfactuals",
    "deepdig": "characterization",
    "determinism": "determinism",
    "device_traffic": "accelerators",
    "equivalence": None,
    "extrapolation": "biased_extrapolation",
    "faults": "faults",
    "first_call": None,
    "fixed_costs": "networks",
    "hold_me_tight": "subspace_margins",
    "label_issues": "label_issues",
    "lasenn": "latent_knn",
    "latent_knn": "latent_knn",
    "margins_speed": "subspace_margins",
    "neighbors": "nearest_neighbors",
    "out_of_core": "memory",
    "out_of_distribution": "out_of_distribution",
    "oversampling": "biased_extrapolation",
    "pm": "boundary_samples",
    "pm_all_new": "boundary_samples",
    "resample_speed": "biased_extrapolation",
    "scale": "distributed",
    "search_floor": "nearest_neighbors",
    "tour": "latent_knn",
    "weight_decay": "characterization",
}


def load(name: str):
    return json.loads((RESULTS / f"{name}.json").read_text())


def neighbors() -> Iterator[list[str]]:
    peers = {"faiss": "faiss", "panorama": "Panorama", "sklearn": "scikit-learn"}
    yield [
        "workload",
        "samples x columns",
        "queries",
        "seconds",
        *(f"/ {p}" for p in peers.values()),
    ]
    for r in load("neighbors")["records"]:
        if r["threads"] == 1:
            wall = {name: seconds["wall"] for name, seconds in r["seconds"].items()}
            ratios = [f"{wall['ours'] / wall[p]:.2f}" if p in wall else "" for p in peers]
            size = f"{r['rows']:,} x {r['dimensions']:,}"
            name = f"{r['workload']}, {r['data']}"
            yield [name, size, f"{r['queries']:,}", f"{wall['ours']:.2f}", *ratios]


def gradient_search() -> Iterator[list[str]]:
    records = load("boundary")["gradient"]["records"]
    yield ["search", *(f"{net}: {what}" for net in records for what in ("distance", "CPU s"))]
    for name in next(iter(records.values()))["nearest"]:
        cells = [record["nearest"][name] for record in records.values()]
        pairs = [(f"{c['mean_distance']:.3f}", f"{c['cpu_s_per_1000']:.1f}") for c in cells]
        yield [name, *(figure for pair in pairs for figure in pair)]


def black_box() -> Iterator[list[str]]:
    records = load("boundary")["black-box"]["records"]
    searches = dict.fromkeys(name for r in records.values() for name in r["contenders"])
    yield ["classifier, data", *searches]
    for name, record in records.items():
        found = record["contenders"]
        yield [name, *(f"{found[s]['mean_distance']:.2f}" if s in found else "" for s in searches)]


def resample_speed() -> Iterator[list[str]]:
    records = load("resample_speed")["records"]
    names = list(records[0]["seconds"])
    yield ["samples", "threads", f"{names[0]}, seconds", *(f"{n} / {names[0]}" for n in names[1:])]
    for r in records:
        wall = {name: seconds["wall"] for name, seconds in r["seconds"].items()}
        first = wall[names[0]]
        ratios = [f"{wall[n] / first:.2f}" if n in wall else "" for n in names[1:]]
        yield [f"{r['rows']:,}", str(r["threads"]), f"{first:.3f}", *ratios]


def over_samplers() -> Iterator[list[str]]:
    half = load("oversampling")["reported half"]
    metrics = ["balanced accuracy", "PR-AUC", "G-mean"]
    yield ["method", *metrics]
    ranks = [half[metric]["mean rank"] for metric in metrics]
    for method in sorted(ranks[0], key=ranks[0].get):
        yield [method, *(f"{rank[method]:.2f}" for rank in ranks)]


def latent_knn() -> Iterator[list[str]]:
    yield ["ratio of wall times", ""]
    for name, ratio in load("latent_knn")["ratios"].items():
        yield [name, f"{ratio:.2f}"]


def first_call() -> Iterator[list[str]]:
    yield ["milliseconds", "import", "first call", "later call"]
    for name, seconds in load("first_call")["seconds"].items():
        yield [name, *(f"{1e3 * s:.0f}" for s in seconds.values())]


TABLES = {f.__name__: f for f in (neighbors, gradient_search, black_box, resample_speed)}
TABLES |= {f.__name__: f for f in (over_samplers, latent_knn, first_call)}


def runs(results) -> Iterator[dict]:
    """Yield everything in a file of results that has commands, or versions without one."""
    if isinstance(results, list):
        for item in results:
            yield from runs(item)
    elif isinstance(results, dict):
        if "versions" in results:
            commands = results.get("commands", [results.get("command", "python -m skboundary")])
            machine = results.get("machine") or {}
            yield {"commands": commands, "machine": machine, "versions": results["versions"]}
        else:
            for item in results.values():
                yield from runs(item)


def records() -> Iterator[str]:
    """Yield a line of a list for each file."""
    for path in sorted(RESULTS.glob("*.json")):
        found = list(runs(load(path.stem)))
        commands = list(dict.fromkeys(c for run in found for c in run["commands"]))
        more = f", and {len(commands) - 1} more" if len(commands) > 1 else ""
        machine, versions = found[0]["machine"], found[0]["versions"]
        cores = f", {machine['cores']} cores" if "cores" in machine else ""
        packages = ", ".join(f"{name} {version}" for name, version in versions.items())
        guide = f" (:ref:`{GUIDES[path.stem]}`)" if GUIDES[path.stem] else ""
        place = machine.get("processor", "processor not recorded") + cores
        place += f", {machine['gpu']}" if "gpu" in machine else ""
        yield f"- ``{path.name}``{guide}: ``{commands[0]}``{more}; {place}; {packages}"


def list_table(rows: Iterator[list[str]]) -> str:
    """A table in reStructuredText whose first row is its header."""
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in rows:
        lines += [f"   {'* -' if i == 0 else '  -'} {cell}" for i, cell in enumerate(row)]
    return "\n".join(lines)


class BenchmarkTable(SphinxDirective):
    required_arguments = 1

    def run(self):
        return self.parse_text_to_nodes(list_table(TABLES[self.arguments[0]]()))


class BenchmarkRecords(SphinxDirective):
    def run(self):
        return self.parse_text_to_nodes("\n".join(records()))


def setup(app):
    app.add_directive("benchmark-table", BenchmarkTable)
    app.add_directive("benchmark-records", BenchmarkRecords)
    return {"parallel_read_safe": True}
