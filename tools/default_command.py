# SPDX-License-Identifier: Apache-2.0
"""What `graphprune solve MODEL --flops F` alone gives: the figures of the table in the README.

::

    OMP_NUM_THREADS=1 python tools/default_command.py examples/digits.onnx examples/digits_test.npz
    OMP_NUM_THREADS=1 python tools/default_command.py mobilenet_v2.onnx photographs/ --flops 0.7 --calib others/

The data is what `tools/without_data.py` takes: labels are only used to count. Widths follow the processor. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from without_data import test_data

import graphprune


def main() -> None:
    """Print accuracies, shares of FLOPs and time, and processor seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--flops", default="0.5")
    parser.add_argument("--calib", help="samples, as `graphprune solve` takes them; none by default")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pruned, plan = Path(folder, "pruned.onnx"), Path(folder, "plan.json")
        command = [sys.executable, "-m", "graphprune", "solve", str(arguments.model), "--flops", arguments.flops]
        command += ["-o", str(pruned), "--plan", str(plan), "--bench", "--json"]
        command += [] if arguments.calib is None else ["--calib", arguments.calib]
        done = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        spent = resource.getrusage(resource.RUSAGE_CHILDREN)
        original, result = graphprune.load(arguments.model), graphprune.load(pruned)
        data = test_data(arguments.data, original)
        figures = {
            "flops_left": round(done["flops"]["ratio"], 4),
            "time_left": round(done["bench"]["ratio"], 3),
            "original": graphprune.evaluate(original, data).top1,
            "pruned": graphprune.evaluate(result, data).top1,
            "solver": done["solver"]["name"],
            "cpu_s": round(spent.ru_utime + spent.ru_stime, 1),
        }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
