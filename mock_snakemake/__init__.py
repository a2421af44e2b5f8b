"""A stand-in with Snakemake's command line, log lines, files and exit codes. Standard library only."""
