"""Joins the counts of all texts into a table and a bar chart, with nothing but the standard library."""

import csv
import logging
from collections import Counter
from html import escape
from pathlib import Path

BAR_HEIGHT, GAP, LABEL_WIDTH, CHART_WIDTH = 18, 6, 120, 480
COLOURS = ["#1f6feb", "#2da44e", "#bf8700", "#a475f9", "#cf222e", "#0a7ea4"]


def read_counts(path):
    with open(path, encoding="utf-8", newline="") as file:
        return Counter({word: int(count) for word, count in csv.reader(file, delimiter="\t")})


def top_words(counts, top_n):
    total = sum(counts.values(), Counter())
    return [word for word, _ in sorted(total.items(), key=lambda item: (-item[1], item[0]))[:top_n]]


def table(counts, words):
    yield ["word", *counts, "total"]
    for word in words:
        numbers = [counts[text][word] for text in counts]
        yield [word, *map(str, numbers), str(sum(numbers))]


def chart(counts, words):
    highest = max((sum(counts[text][word] for text in counts) for word in words), default=1)
    height = (len(words) + 1) * (BAR_HEIGHT + GAP) + GAP
    width = LABEL_WIDTH + CHART_WIDTH + 60
    yield f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" role="img"'
    yield ' font-family="sans-serif" font-size="13">'
    yield "<title>The most frequent words, by text</title>"
    x = LABEL_WIDTH
    for number, text in enumerate(counts):
        yield f'<rect x="{x}" y="{GAP}" width="12" height="12" fill="{COLOURS[number % len(COLOURS)]}"/>'
        yield f'<text x="{x + 16}" y="{GAP + 11}">{escape(text)}</text>'
        x += 100
    for row, word in enumerate(words, start=1):
        y = GAP + row * (BAR_HEIGHT + GAP)
        yield f'<text x="{LABEL_WIDTH - 8}" y="{y + 13}" text-anchor="end">{escape(word)}</text>'
        x = float(LABEL_WIDTH)
        for number, text in enumerate(counts):
            length = CHART_WIDTH * counts[text][word] / highest
            colour = COLOURS[number % len(COLOURS)]
            yield f'<rect x="{x:.1f}" y="{y}" width="{length:.1f}" height="{BAR_HEIGHT}" fill="{colour}"/>'
            x += length
        yield f'<text x="{x + 6:.1f}" y="{y + 13}">{sum(counts[text][word] for text in counts)}</text>'
    yield "</svg>"


def main(job):
    logging.basicConfig(filename=job.log[0], level=logging.INFO, format="%(message)s")
    counts = {text: read_counts(path) for text, path in zip(job.params.texts, job.input, strict=True)}
    words = top_words(counts, job.params.top_n)
    rows = list(table(counts, words))
    Path(job.output.tsv).write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    rows.insert(1, ["---"] + ["---:"] * (len(rows[0]) - 1))
    markdown = "".join("| " + " | ".join(row) + " |\n" for row in rows)
    Path(job.output.markdown).write_text(markdown, encoding="utf-8")
    Path(job.output.chart).write_text("\n".join(chart(counts, words)) + "\n", encoding="utf-8")
    logging.info("%d words of %d texts", len(words), len(counts))


main(snakemake)  # noqa: F821 - put there by Snakemake's script directive
