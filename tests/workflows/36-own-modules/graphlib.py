"""As much as Snakemake needs of what it hides."""

import importlib.util
import os
import sysconfig

WHOSE = "the workflow"
_spec = importlib.util.spec_from_file_location(
    "_real_graphlib", os.path.join(sysconfig.get_path("stdlib"), "graphlib.py")
)
_real = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_real)
TopologicalSorter, CycleError = _real.TopologicalSorter, _real.CycleError
