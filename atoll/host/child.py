"""A module of ours, run once as a process of its own: for libraries that would weigh on this one for ever."""

import asyncio
import sys

CHILD_S = 30.0
"""A child that takes longer is killed."""


async def output_of(module: str, *arguments: str) -> str:
    """Return what `python -m module arguments…` prints. Raises `OSError`, and `TimeoutError` after `CHILD_S`."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(CHILD_S):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    if process.returncode != 0:
        raise OSError(f"`{module} {arguments[0] if arguments else ''}` ended with {process.returncode}")
    return output.decode()
