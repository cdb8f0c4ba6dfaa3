# SPDX-License-Identifier: Apache-2.0
"""Where trials run: one way of running calls in other processes a file, under the name that ``--backend`` takes.

A module here has a function ``run``. It calls a function of a module with what all calls share and with the arguments
of each, in other processes, and yields results as they come::

    def run(function: Call, shared: object, calls: Sequence[Arguments], workers: Workers) -> Generator[Any]: ...

What all calls share is sent once, and not with every call. Closing the generator ends what is still running.
"""

from __future__ import annotations
