"""What Snakemake 9.27 writes on a cluster, shortened."""

INNER_RUN = """Building DAG of jobs...
Using shell: /usr/bin/bash
Provided remote nodes: 1
Select jobs to execute...
Execute 1 jobs...

[Fri Nov 27 14:57:11 2026]
rule check:
    output: out/bad.txt
    jobid: 0
    reason: Forced execution
    resources: tmpdir=<TBD>, mem_mb=1000, mem=1 GB

Building DAG of jobs...
Using shell: /usr/bin/bash
Provided cores: 2
Rules claiming more threads will be scaled down.
Select jobs to execute...
Execute 1 jobs...

[Fri Nov 27 14:57:16 2026]
localrule check:
    output: out/bad.txt
    jobid: 0
    reason: Forced execution
    resources: tmpdir=/tmp, mem_mb=1000, mem=1 GB
reads are empty
RuleException:
CalledProcessError in file "/data/Snakefile", line 21:
Command 'set -euo pipefail;  check reads.fq > out/bad.txt' returned non-zero exit status 7.
[Fri Nov 27 14:57:16 2026]
Error in rule check:
    message: None
    jobid: 0
    output: out/bad.txt
    shell:
        check reads.fq > out/bad.txt
        (command exited with non-zero exit code)
Shutting down, this might take some time.
Exiting because a job execution failed. Look above for error messages
Storing output in storage.
Elapsed time: 0:00:00.278415
WorkflowError:
At least one job did not complete successfully.
srun: error: node1: task 0: Exited with exit code 1
[Fri Nov 27 14:57:19 2026]
Error in rule check:
    message: None
    jobid: 0
    output: out/bad.txt
    shell:
        check reads.fq > out/bad.txt
        (command exited with non-zero exit code)
Shutting down, this might take some time.
Exiting because a job execution failed. Look above for error messages
Storing output in storage.
Elapsed time: 0:00:08.185970
WorkflowError:
At least one job did not complete successfully.
"""
"""The log of a task in Slurm: a Snakemake that runs a Snakemake that runs the rule `check`, which fails."""
