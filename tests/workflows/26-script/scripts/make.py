import json
import os
import sys

import shifting

with open(snakemake.input.text) as file:
    words = [shifting.shift(word, snakemake.params.shift) for word in file.read().split()]
found = {
    "words": words,
    "nested": snakemake.params["nested"],
    "threads": snakemake.threads,
    "rule": snakemake.rule,
    "config": snakemake.config,
    "log": list(snakemake.log),
    "scriptdir": os.path.basename(snakemake.scriptdir),
    "cwd is the working directory": os.path.exists("words.txt"),
    "flags": [sys.flags.isolated, sys.flags.optimize],
    "name": __name__,
    "input is at end": sys.stdin.read() == "",
}
with open(snakemake.log[0], "w") as log:
    print("shifted", len(words), file=log)
with open(snakemake.output[0], "w") as file:
    json.dump(found, file, indent=1, sort_keys=True)
