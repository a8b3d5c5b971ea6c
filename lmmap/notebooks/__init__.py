"""Notebooks as programs: read their parameters, run them through papermill, run them over grids of values.

papermill executes; what it leaves open is settled here. Parameters are read with ``ast`` and checked before
a kernel starts, an output gets its name only when every cell has run, and a marker in the executed notebook
says from which source and with which parameters it was made, so that finished runs need not be repeated.
"""

from lmmap.notebooks.executed import RunResult, is_done
from lmmap.notebooks.grid import GridResult, run_grid
from lmmap.notebooks.parameters import Parameter, parse_grid, parse_parameters, read_parameters
from lmmap.notebooks.report import GridRun
from lmmap.notebooks.results import record
from lmmap.notebooks.run import NotebookFailed, run_notebook

__all__ = [
    "GridResult",
    "GridRun",
    "NotebookFailed",
    "Parameter",
    "RunResult",
    "is_done",
    "parse_grid",
    "parse_parameters",
    "read_parameters",
    "record",
    "run_grid",
    "run_notebook",
]
