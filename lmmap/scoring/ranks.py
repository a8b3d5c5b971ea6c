"""Ranks: a process that accelerate (or torchrun) has started learns its device, and who else is there."""

from __future__ import annotations

import os
from dataclasses import dataclass

from lmmap.scoring.sweep import new_launch

SET_BY_LAUNCHERS = (  # names begin so
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE"),
    *("ROLE_", "MASTER_", "TORCHELASTIC_", "ACCELERATE_"),
)


@dataclass(frozen=True)
class Rank:
    """What a process of a launch has to know.

    Parameters
    ----------
    device : str
        The one that it serves.
    is_main : bool
        Whether it speaks for all.
    launch : str
        What all of them share.
    n_here : int
        Processes of the launch on this machine.
    """

    device: str
    is_main: bool
    launch: str
    n_here: int

    @property
    def has_all_gpus(self) -> bool:
        """Whether the processes of the launch on this machine serve all its GPUs."""
        import torch

        return bool(self.n_here == torch.cuda.device_count())


def join_launch(device: str) -> Rank | None:
    """Meet the other processes of a launch once; from then on they share nothing but the folder.

    Parameters
    ----------
    device : str
        ``auto``, for the GPU of this process's number if there are GPUs, or ``cpu``.

    Returns
    -------
    Rank or None
        None if no launcher started this process.
    """
    import torch

    n_processes = int(os.environ.get("WORLD_SIZE", "1"))
    on_cpu = (
        device == "cpu" or os.environ.get("ACCELERATE_USE_CPU") == "True" or not torch.cuda.is_available()
    )
    if n_processes > 1 and "MASTER_ADDR" in os.environ:
        rank = _meet(on_cpu)
    elif "ACCELERATE_USE_CPU" in os.environ:  # accelerate's launcher of one process
        rank = Rank("cpu" if on_cpu else "cuda:0", is_main=True, launch=new_launch(), n_here=1)
    else:
        return None
    for name in [name for name in os.environ if name.startswith(SET_BY_LAUNCHERS)]:
        del os.environ[name]  # models are loaded as by a process on its own, here and in its workers
    return rank


def _meet(on_cpu: bool) -> Rank:
    import torch
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    n_here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    state = PartialState(cpu=True)  # they only exchange a word: no GPU is needed for it
    (launch,) = broadcast_object_list([new_launch()])
    device = "cpu" if on_cpu else f"cuda:{state.local_process_index}"
    rank = Rank(device, state.is_main_process, launch, n_here)
    torch.distributed.destroy_process_group()
    PartialState._reset_state()
    return rank
