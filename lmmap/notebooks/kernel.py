"""The kernel that a notebook runs in: this very interpreter, over encrypted channels, gone with the run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import zmq
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from traitlets import default


@contextmanager
def kernels_of_this_python(log: IO[bytes]) -> Iterator[type[AsyncKernelManager]]:
    """Give papermill a kernel manager to start kernels with; none of them outlives the block.

    A kernel watches whether its parent is still there, but can miss its end while it starts.

    Parameters
    ----------
    log : binary file
        Gets what the kernel process itself says, e.g. as it crashes; what cells print goes to the notebook.

    Yields
    ------
    type
        Starts ``sys.executable``, whichever kernels are installed under the name ``python3``.
    """
    managers: list[AsyncKernelManager] = []

    class ThisPython(AsyncKernelManager):
        @property
        def kernel_spec(self) -> KernelSpec:
            return KernelSpec(**get_kernel_dict())

        @default("transport_encryption")
        def _encrypt(self) -> str:
            return "auto" if zmq.has("curve") else "disabled"

        async def start_kernel(self, **options: object) -> None:  # type: ignore[override]
            managers.append(self)
            await super().start_kernel(**options, stdout=log, stderr=log)

    try:
        yield ThisPython
    finally:
        for provisioner in (manager.provisioner for manager in managers):
            if isinstance(provisioner, LocalProvisioner) and provisioner.process:
                provisioner.process.kill()
