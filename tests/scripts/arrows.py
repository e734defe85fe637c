"""Checks that includes only point down. Prints one line for each that does not.

A layer (tp_layer in CMakeLists.txt, bottom up) may include its own headers, those of the layers before it, and the public
headers of either. host/cli may include public headers and its own. A public header may include public headers only."""

import pathlib
import re
import sys

ROOT = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parents[2]).resolve()

# The layer that defines what a public header declares.
PUBLIC = {
    "core": ["status", "tensor"],
    "engine": ["device", "graph", "ops", "plan"],
    "data": ["data"],
    "model": ["model", "recipe", "safetensors"],
    "train": ["metrics", "run", "schedule", "train"],
    "bench": ["bench"],
}


def layers():
    """Name of each layer -> its folders, bottom up."""
    found = re.findall(r"^tp_layer\((\w+) ([^)]*)\)", (ROOT / "CMakeLists.txt").read_text(), re.MULTILINE)
    return {name: rest.split(" DEPENDS ")[0].split() for name, rest in found}


def main():
    order = layers()
    names = list(order)
    errors = []
    owner = {f"temper/{header}.h": layer for layer, headers in PUBLIC.items() for header in headers}
    there = {f"temper/{file.name}" for file in (ROOT / "include/temper").glob("*.h")}
    for header in sorted(there ^ owner.keys()):
        errors.append(f"include/{header}: tests/scripts/arrows.py must say which layer it belongs to")

    def layer_of(path):
        for name, folders in order.items():
            if any(path.startswith(folder + "/") for folder in folders):
                return name
        return "cli" if path.startswith("host/cli/") else owner.get(path)

    files = [file for folder in ("host", "kernels", "include") for file in (ROOT / folder).rglob("*")
             if file.suffix in (".c", ".h", ".cu", ".cuh")]  # fmt: skip
    for file in sorted(files):
        source = str(file.relative_to(ROOT))
        layer = layer_of(source)
        if layer is None and not source.startswith("include/temper/"):
            errors.append(f"{source}: belongs to no layer of CMakeLists.txt")
            continue
        for number, line in enumerate(file.read_text().splitlines(), 1):
            match = re.match(r'\s*#\s*include\s+(?:"([^"]+)"|<((?:temper|host|kernels)/[^>]+)>)', line)
            if not match:
                continue
            target = match[1] or match[2]
            public = target.startswith("temper/")
            to = layer_of(target)
            if to is None or not ((ROOT / target).is_file() or (ROOT / "include" / target).is_file()):
                why = "is no header of this tree, named from its root"
            elif source.startswith("include/") or layer == "cli":
                why = "is not public" if not public and to != layer else ""
            elif to == "cli" or names.index(to) > names.index(layer):
                why = f"is of layer {to}, above {layer}"
            else:
                why = ""
            if why:
                errors.append(f"{source}:{number}: {target} {why}")
    print("\n".join(errors), end="\n" if errors else "")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
